"""Which runs may be watched: those that were named at the start, and those that appear beside them."""

import threading
from collections.abc import Mapping
from pathlib import Path

from ddm.commands.studio.watching import Watched, changed
from ddm.errors import unknown

KEPT = 12
"""Runs whose records stay in memory."""


class Runs:
    """The runs that may be watched, by the names of the page.

    Args:
        given: run folders, or checkpoints in one, that were named at the start.
        folder: where more may appear; None for no more than those.
    """

    def __init__(self, given: Mapping[str, Path] | None = None, folder: Path | None = None):
        self._given = {name: _run_of(path) for name, path in (given or {}).items()}
        self._folder, self._kept, self._lock = folder, {}, threading.Lock()

    def paths(self) -> dict[str, Path]:
        """The folder of each name, as things are now: those given first, then those that have appeared."""
        known = {path.resolve() for path in self._given.values()}
        found = dict(self._given)
        there = sorted(each.parent for each in self._folder.glob("*/config.yaml")) if self._folder else ()
        for path in there:
            if path.resolve() not in known:
                found[path.name if path.name not in found else f"{path.name} (runs)"] = path
        return found

    @property
    def names(self) -> list[str]:
        """As things are now."""
        return list(self.paths())

    @property
    def liveliest(self) -> str | None:
        """The run whose log changed last; the first where none has a log."""
        found = self.paths()
        return max(found, key=lambda name: changed(found[name] / "metrics.jsonl"), default=None)

    def get(self, name: object) -> "Watched":
        """The run of a name.

        Raises:
            RequestError: there is none.
        """
        found = self.paths()
        with self._lock:
            if not isinstance(name, str) or not (name in found or name in self._kept):
                raise unknown("run", str(name)[:40], found or ("none: no run is there yet",))
            watched = self._kept.pop(name, None) or Watched(name, found[name])
            self._kept[name] = watched  # one that was moved aside can still be asked for, and says so
            while len(self._kept) > KEPT:
                self._kept.pop(next(iter(self._kept)))
        return watched


def _run_of(path: Path) -> Path:
    return path.parent.parent if path.parent.name == "checkpoints" else path
