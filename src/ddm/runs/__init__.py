"""A run on disk, and its links to the world."""
