"""How far a long piece of work is."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` of ``what``; yielded by work that returns its result at the end."""

    what: str
    done: int
    total: int


def finish(
    work: Generator[Progress, None, Result],
    show: Callable[[Progress], None] = lambda _: None,
    *,
    leave: Callable[[], bool] = lambda: False,
) -> Result | None:
    """Do the work to its end and return its result.

    Args:
        work: a generator of :class:`Progress`.
        show: called with each.
        leave: asked after each; where it says so the work ends there, and the result is None.
    """
    while True:
        try:
            show(next(work))
        except StopIteration as end:
            return end.value
        if leave():
            work.close()
            return None
