"""Training for so many seconds, and judging what came of it: shared by ablations.py and flagship.py."""
