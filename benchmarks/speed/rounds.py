"""Timing side by side: everything in turns, over several rounds, so that what slows a machine slows all of them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from .device import Device

Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """The median of some numbers, with the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one number or more."""
        low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(median(values), low, high)

    def plain(self, digits: int = 6) -> list[float]:
        """``[median, low, high]``, rounded."""
        return [float(f"{each:.{digits}g}") for each in (self.median, self.low, self.high)]


def seconds_of(work: Work, device: Device, times: int = 1) -> float:
    """Seconds of one call, the mean over so many."""
    device.wait()
    started = time.perf_counter()
    for _ in range(times):
        work()
    device.wait()
    return (time.perf_counter() - started) / times


def times_for(work: Work, device: Device, least: float) -> int:
    """How many calls take ``least`` seconds."""
    if least <= 0:
        return 1
    return max(1, math.ceil(least / max(seconds_of(work, device), 1e-6)))


def interleaved(works: Mapping[str, Work], device: Device, *, rounds: int, least: float) -> dict[str, list[float]]:
    """Seconds of a call of each, a number a round.

    Args:
        works: by name; warm already.
        device: they run on.
        rounds: in each of them everything has its turn, another one first.
        least: seconds that a turn lasts at least.
    """
    times = {name: times_for(work, device, least) for name, work in works.items()}
    found: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            found[name].append(seconds_of(works[name], device, times[name]))
    return found
