"""Oracles: SciPy's normal distribution and t-test, and the closed testing procedure that Holm's is a short cut of."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from ddm.metrics import Measurement
from ddm.metrics.intervals import around
from ddm.metrics.significance import LEVEL, difference_test, differences, holm, marks


def measurement(value: float, error: float, **options) -> Measurement:
    return Measurement(value, *around(value, error), **options)


@pytest.mark.parametrize(
    ("gap", "one", "other"), [(0.0, 1, 2), (1.3, 0.4, 0.9), (-5, 0.1, 3), (9, 1e-3, 1.5), (30, 1, 1)]
)
def test_the_test_is_scipys(gap: float, one: float, other: float):
    error, p = difference_test(measurement(7 + gap, one), measurement(7, other))
    assert error == pytest.approx(np.hypot(one, other))
    assert p == pytest.approx(2 * scipy.stats.norm.sf(abs(gap) / np.hypot(one, other)), rel=1e-9)


def test_means_of_many_are_told_apart_as_a_t_test_does():
    draw = np.random.default_rng(0)
    a, b = draw.normal(0, 1, 4000), draw.normal(0.05, 2, 4000)
    means = [measurement(float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)) for each in (a, b)]
    assert difference_test(*means)[1] == pytest.approx(scipy.stats.ttest_ind(a, b, equal_var=False).pvalue, rel=0.01)


def test_numbers_without_a_spread():
    assert difference_test(Measurement(2, 2, 2), Measurement(2, 2, 2)) == (0, 1)
    assert difference_test(Measurement(2, 2, 2), Measurement(3, 3, 3)) == (0, 0)


def closed_testing(p: list[float]) -> list[float]:
    """Marcus et al. 1976 with Bonferroni's test of every intersection of hypotheses: Holm's result by brute force."""
    numbers = range(len(p))
    return [
        max(
            min(1.0, size * min(p[each] for each in subset))
            for size in range(1, len(p) + 1)
            for subset in combinations(numbers, size)
            if number in subset
        )
        for number in numbers
    ]


@pytest.mark.parametrize("seed", range(8))
def test_holm_is_closed_testing(seed: int):
    draw = np.random.default_rng(seed)
    p = (draw.random(7) ** 3).round(2 if seed % 2 else 9).tolist()  # rounded: with ties
    assert holm(p) == pytest.approx(closed_testing(p))
    assert holm([]) == [] and holm([0.3]) == [0.3]


def test_false_alarms_stay_below_the_level():
    """Five equal sources a thousand times: one of the ten pairs is called different in at most 5 % of them."""
    draw, alarms = np.random.default_rng(1), 0
    for _ in range(1000):
        measured = {str(number): measurement(draw.normal(), 1) for number in range(5)}
        alarms += any(each.p < LEVEL for each in differences("FID", measured))
    assert 15 <= alarms <= 65


def test_a_common_error_only_makes_it_more_careful():
    """Sources of the same seeds: their errors go together, and real differences are found less, not more often."""
    draw, alarms = np.random.default_rng(2), 0
    for _ in range(1000):
        shared = draw.normal()
        measured = {str(number): measurement((shared + draw.normal()) / 2**0.5, 1) for number in range(2)}
        alarms += differences("FID", measured)[0].p < LEVEL
    assert alarms < 20


def test_a_difference_is_the_first_less_the_second():
    (found,) = differences("FID", {"a": measurement(5, 0.3), "b": measurement(3, 0.4)})
    assert (found.metric, found.first, found.second, found.value) == ("FID", "a", "b", 2)
    assert (found.low, found.high) == pytest.approx((2 - 1.96 * 0.5, 2 + 1.96 * 0.5))
    assert len(differences("FID", dict.fromkeys("abcd", measurement(1, 1)))) == 6


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_best_and_those_that_do_not_differ_from_it(better: str):
    sign = 1 if better == "lower" else -1
    values = {"best": 1.0, "near": 1.2, "far": 3.0, "farther": 3.1}
    measured = {name: measurement(sign * value, 0.1, better=better) for name, value in values.items()}
    assert marks(measured, differences("m", measured)) == {"best": "best", "near": "tied", "far": "", "farther": ""}


def test_equals_are_best_together_and_one_alone_is_nothing():
    twins = {"a": measurement(1, 0.1), "b": measurement(1, 0.1), "c": measurement(9, 0.1)}
    assert marks(twins, differences("m", twins)) == {"a": "best", "b": "best", "c": ""}
    assert marks({"a": measurement(1, 0.1)}, []) == {} and marks({}, []) == {}
