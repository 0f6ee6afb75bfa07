"""Which of several numbers of one metric really differ."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from ddm.metrics.intervals import Z
from ddm.metrics.measurement import Measurement

Mark = Literal["", "best", "tied"]

LEVEL = 0.05
"""Of significance, after Holm's correction."""

ASSUMED = (
    "p: two-sided z-test from the standard errors of both numbers, with Holm's correction over the pairs of a metric. "
    "It takes the generated sets as independent and the reference as given: it is about these very weights and "
    "settings, not about training again. Pictures of equal seeds are alike where models are, which makes the true "
    "error of a difference smaller than the one used here: no difference is called significant because of it."
)


@dataclass(frozen=True)
class Difference:
    """How far two sources are apart in one metric, at the number of pictures that were measured.

    A Frechet distance has a bias at that number, which differs between sources and stays in ``value``.

    Args:
        metric: its label.
        first: a source.
        second: another.
        value: the number of the first less that of the second.
        low: lower end of the 95 % interval of ``value``, for this pair alone.
        high: its upper end.
        p: of the two-sided test that it is 0, corrected for the number of pairs.
    """

    metric: str
    first: str
    second: str
    value: float
    low: float
    high: float
    p: float


def difference_test(first: Measurement, second: Measurement) -> tuple[float, float]:
    """Standard error of ``first - second`` and the p of a two-sided z-test that it is 0.

    The sets are taken as independent. Where both come from the same seeds they are not quite: different networks that
    learned the same data turn one noise into similar pictures (arXiv 2310.05264). Errors that go together cancel in the
    difference, so the test errs towards calling nothing significant.
    """
    error = math.hypot(first.error, second.error)
    gap = abs(first.value - second.value)
    if error == 0:
        return error, float(gap == 0)
    return error, math.erfc(gap / error / math.sqrt(2))


def holm(p: Sequence[float]) -> list[float]:
    """Corrected p-values in the same order; Holm 1979: the chance of even one false alarm stays below the level."""
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, largest = [0.0] * len(p), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[number]))
        corrected[number] = largest
    return corrected


def differences(metric: str, measured: Mapping[str, Measurement]) -> list[Difference]:
    """Every pair of sources in one metric.

    Args:
        metric: its label.
        measured: the numbers by source, all of one protocol.
    """
    pairs = list(combinations(measured.items(), 2))
    tests = [difference_test(first, second) for (_, first), (_, second) in pairs]
    corrected = holm([p for _, p in tests])
    found = []
    for ((one, first), (other, second)), (error, _), p in zip(pairs, tests, corrected):
        value = first.value - second.value
        found.append(Difference(metric, one, other, value, value - Z * error, value + Z * error, p))
    return found


def marks(measured: Mapping[str, Measurement], found: Iterable[Difference]) -> dict[str, Mark]:
    """Which sources are the best in a metric, and which are not significantly different from it.

    Args:
        measured: the numbers by source.
        found: the differences of all pairs of them.
    """
    if len(measured) < 2:
        return {}
    lower = next(iter(measured.values())).better == "lower"
    best = (min if lower else max)(measured, key=lambda name: measured[name].value)
    near = {
        each.second if each.first == best else each.first
        for each in found
        if best in (each.first, each.second) and each.p >= LEVEL
    }
    equal = {name for name, each in measured.items() if each.value == measured[best].value}
    return {name: "best" if name in equal else "tied" if name in near else "" for name in measured}
