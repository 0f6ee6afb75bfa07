"""What a campaign is given, and what all of them share."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stress.rows import TOLD, Row
from stress.starting import Starter


class NotHere(Exception):
    """This machine cannot do it; the message says why."""


@dataclass(frozen=True)
class Plan:
    """How much to do, where.

    Args:
        starter: of processes.
        folder: an empty one for a campaign's own files.
        seed: of all that is random.
        full: whether to do all of it, or what fits into half an hour.
    """

    starter: Starter
    folder: Path
    seed: int = 0
    full: bool = False

    def count(self, short: int, full: int) -> int:
        """How often."""
        return full if self.full else short

    def random(self, *what: object) -> random.Random:
        """Numbers that depend on the seed and on what they are for."""
        return random.Random(f"{self.seed} {what}")


Campaign = Callable[[Plan], Iterator[Row]]


@dataclass
class Tally:
    """Counts while a campaign goes on.

    Attributes:
        passed: how often all was well.
        count: how often it was tried.
        problems: the first few that were not well.
    """

    passed: int = 0
    count: int = 0
    problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, problem: str = "", *, times: int = 1) -> None:
        """One more try; without a problem it passed."""
        self.count += times
        self.passed += 0 if problem else times
        if problem and len(self.problems) < TOLD:
            self.problems.append(problem)

    def row(self, figure: str, what: str, target: str, **more: object) -> Row:
        """What came of it."""
        seconds = time.monotonic() - self.started
        found = {"passed": self.passed, "count": self.count, "problems": self.problems, "seconds": seconds}
        return Row(figure, what, target=target, **(found | more))  # pyright: ignore[reportArgumentType]


def problem_of(check: Callable[[], object]) -> str:
    """What a check complains about, in one line; nothing where all is well."""
    try:
        check()
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
    return ""


def middle(values: list[float], share: float = 0.5) -> float:
    """The value that a share of all do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
