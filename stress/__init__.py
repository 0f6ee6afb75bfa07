"""Fault injection on real runs: ``make stress`` breaks what can break, counts what survives, writes RELIABILITY.md.

What the tests know already is asked of them, with larger counts: see :mod:`stress.suite`. ``python -m stress --help``
says what can be asked for.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""Of the repository."""

TESTS = ROOT / "tests"

PLACES = [str(each) for each in (ROOT / "src", ROOT, TESTS, TESTS / "commands", TESTS / "training", TESTS / "runs")]
"""Where modules are found: the package, this one, and what the tests share."""

sys.path[:0] = [each for each in PLACES if each not in sys.path]
os.environ["PYTHONPATH"] = os.pathsep.join([PLACES[0], *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", NO_COLOR="1")
