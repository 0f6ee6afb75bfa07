"""Work that several metrics share is done once in an evaluation: nobody has to pass it around."""

import functools
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

KEPT = 2
"""Results kept a function: that of the real pictures and that of the generated ones."""


def remember(function: Callable[P, Result]) -> Callable[P, Result]:
    """Decorator: the last :data:`KEPT` results of a function of sets of pictures and plain values.

    A set of pictures (:class:`~ddm.metrics.Embedded`) is known by identity, not by content: it must not be written to.
    The sets are not kept alive, and a result goes when one of its sets does.
    """
    kept: list[tuple[list[Any], Result]] = []

    @functools.wraps(function)
    def remembered(*arguments: P.args, **options: P.kwargs) -> Result:
        given = [*arguments, *options.items()]
        for marks, result in kept:
            if len(marks) == len(given) and all(_is(mark, value) for mark, value in zip(marks, given)):
                return result
        marks = [_mark(value, lambda _: _drop_dead(kept)) for value in given]
        result = function(*arguments, **options)
        kept.append((marks, result))
        del kept[:-KEPT]
        return result

    return remembered


def _mark(value: Any, when_gone: Callable[[Any], None]) -> Any:
    plain = isinstance(value, (int, float, str, tuple))
    return value if plain else weakref.ref(value, when_gone)


def _is(mark: Any, value: Any) -> bool:
    return mark() is value if isinstance(mark, weakref.ref) else mark == value


def _drop_dead(kept: list[tuple[list[Any], Any]]) -> None:
    kept[:] = [(marks, result) for marks, result in kept if not any(_dead(mark) for mark in marks)]


def _dead(mark: Any) -> bool:
    return isinstance(mark, weakref.ref) and mark() is None
