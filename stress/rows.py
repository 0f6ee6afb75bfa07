"""What was found: a row for each figure, kept as a line of JSON as soon as it is known."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scipy.stats import beta

LEVEL = 0.05
"""A bound is wrong one time in twenty."""

TOLD = 5
"""Problems of a row that are kept, at most."""


@dataclass(frozen=True)
class Row:
    """A figure.

    Args:
        figure: ``F1`` to ``F25`` of the project's list, or what else it is.
        what: was done, and has to hold.
        passed: how often it held.
        count: how often it was tried.
        target: what the project asks for.
        faults: whether each try is a fault; else it is a measurement, and not in the sum.
        every: all cases there are were tried, so there is no rate to bound.
        note: more numbers.
        reason: why it was not measured.
        problems: what went wrong, a line each.
        seconds: it took.
        seed: of all that was random in it.
        commit: of the source.
        machine: it ran on.
    """

    figure: str
    what: str
    passed: int = 0
    count: int = 0
    target: str = ""
    faults: bool = True
    every: bool = False
    note: str = ""
    reason: str = ""
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    seed: int = 0
    commit: str = ""
    machine: str = ""

    @property
    def lost(self) -> int:
        """How often it did not hold."""
        return self.count - self.passed

    @property
    def bound(self) -> str:
        """Upper end of the exact one-sided 95 % interval of the share that is lost (Clopper and Pearson 1934)."""
        if self.reason or not self.count or not self.faults:
            return "-"
        return "all cases" if self.every and not self.lost else f"{upper(self.lost, self.count):.2%}"

    def said(self) -> str:
        """One line for a terminal."""
        if self.reason:
            return f"{self.figure:<6} not measured  {self.what}: {self.reason}"
        note = f"; {self.note}" if self.note else ""
        lines = [f"{self.figure:<6} {self.passed:>5} / {self.count:<5} {self.what} ({self.seconds:.0f} s{note})"]
        return "\n       ! ".join([*lines, *self.problems[:TOLD]])


def upper(lost: int, count: int) -> float:
    """The largest share of losses that these counts do not rule out; 1 - 0.05 ** (1 / count), about 3 / count, at 0.

    Args:
        lost: tries that failed.
        count: all tries.
    """
    return 1.0 if lost >= count else float(beta.ppf(1 - LEVEL, lost + 1, count - lost))


class Kept:
    """Rows in a file, a line each.

    Args:
        path: the file.
        anew: forget what an earlier call kept there.
    """

    def __init__(self, path: Path, *, anew: bool = True):
        self.path, self.rows = path, []
        path.parent.mkdir(parents=True, exist_ok=True)
        if anew or not path.exists():
            path.write_text("")
        for line in path.read_text().splitlines():
            self._put(Row(**json.loads(line)))

    def add(self, row: Row) -> None:
        """Keep a row; it takes the place of an earlier one of the same kind."""
        self._put(row)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    def _put(self, row: Row) -> None:
        self.rows = [each for each in self.rows if (each.figure, each.what) != (row.figure, row.what)] + [row]


def totals(rows: Iterable[Row]) -> str:
    """The last line."""
    faults = [row for row in rows if row.faults]
    count, lost = sum(row.count for row in faults), sum(row.lost for row in faults)
    return f"faults injected {count:,}, survived {count - lost:,}, lost {lost:,}"
