"""How much each suspect moves a number, and which of the movements are more than noise."""

import math
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddm.errors import DdmError, RequestError
from ddm.metrics import Embedded, Measurement, metrics
from ddm.metrics.frechet import Moments, frechet_distance, moments
from ddm.metrics.intervals import Z, jackknife_error
from ddm.metrics.protocols import label
from ddm.metrics.remembering import remember
from ddm.runs.case import Case, Kind, Outcome, Unsuitable, Variant
from ddm.runs.evaluation import Evaluated
from ddm.runs.progress import Progress
from ddm.runs.suspects import suspects
from ddm.runs.tables import Cell, Column, Table
from ddm.seeding import generator

GROUPS = 10
"""Of pictures that are left out in turn, to see how far a difference varies."""

STUDENT = 2.262
"""Standard errors on either side of a difference whose error comes from :data:`GROUPS` groups (t, 9 degrees)."""

ASSUMED = (
    "Intervals are of 95 % over other pictures, the reference being given, each for itself: of twenty, one misses. "
    "Where the same seeds stand on both sides, pictures are left out of both together (a jackknife over 10 groups), so "
    "that what they share does not count as noise. Differences marked * have no such pairs: their two errors are taken "
    "as independent, which makes the interval wide rather than narrow."
)


@dataclass(frozen=True)
class Effect:
    """What one change does to one metric.

    Args:
        suspect: whose change it is.
        change: in a few words.
        kind: what it tells about the number.
        metric: the choice of metric.
        measurement: after the change.
        before: the number without it, on the same part of the reference.
        error: standard error of the difference.
        paired: whether the error counts only what the two sides do not share.
        seconds: that it took.
    """

    suspect: str
    change: str
    kind: Kind
    metric: str
    measurement: Measurement
    before: float
    error: float
    paired: bool
    seconds: float

    @property
    def difference(self) -> float:
        """The number after the change less that before it."""
        return self.measurement.value - self.before

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference."""
        half = (STUDENT if self.paired else Z) * self.error
        return self.difference - half, self.difference + half

    @property
    def seen(self) -> bool:
        """Whether the difference is more than noise."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def better(self) -> bool:
        """Whether the change is in the direction that a model wants."""
        return (self.difference < 0) == (self.measurement.better == "lower")


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Args:
        variants: cheap ones first.
        left_out: why, by suspect.
    """

    variants: list[Variant]
    left_out: dict[str, str]

    @property
    def pictures(self) -> int:
        """Pictures to be made at most, besides the baseline's."""
        return sum(each.pictures for each in self.variants)

    def seconds(self, each: float) -> float:
        """The time for them where the baseline's take ``each`` seconds."""
        return each * sum(variant.pictures * variant.effort for variant in self.variants)


def plan(case: Case, names: Iterable[str]) -> Plan:
    """The changes of some suspects; raises :class:`RequestError` for a name that is none."""
    variants: list[Variant] = []
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(names):
        make = suspects.bind(name, field="suspects")
        try:
            for variant in make(case):
                variants.append(variant)  # one by one: what came before a refusal stays
        except (Unsuitable, RequestError) as reason:
            left_out[name] = str(reason)
    return Plan(sorted(variants, key=lambda each: (each.pictures * each.effort, each.embedded)), left_out)


class Diagnosis:
    """Measures changes against a baseline.

    Args:
        baseline: the number that is to be explained, with its pictures.
    """

    def __init__(self, baseline: Evaluated):
        self.baseline = baseline
        self._without: dict[str, Tensor] = {}

    def effects(self, variant: Variant) -> Generator[Progress, None, list[Effect]]:
        """Carry out a change and see what it does to every metric it is about.

        Raises:
            DdmError: it cannot be carried out.
        """
        started = time.monotonic()
        outcome = yield from variant.work(self.baseline)
        names = [name for name in self.baseline.measurements if variant.only in (None, name)]
        found = []
        for number, name in enumerate(names):
            yield Progress(f"difference in {name}", number, len(names))
            found.append((name, *self._compare(name, outcome)))
        seconds = time.monotonic() - started
        return [
            Effect(variant.suspect, variant.change, variant.kind, name, after, before, error, paired, seconds)
            for name, after, before, error, paired in found
        ]

    def _compare(self, metric: str, outcome: Outcome) -> tuple[Measurement, float, float, bool]:
        """The number after and before, the error of their difference, and whether that is of pairs."""
        measure = metrics.bind(metric)
        after = outcome.measurements.get(metric) or measure(real=outcome.real, fake=outcome.fake)
        if outcome.paired and len(outcome.fake) >= 2 * GROUPS:
            before = self._value_before(metric, outcome)
            without = values_without(metric, outcome.real, outcome.fake) - self._without_before(metric, outcome)
            return after, before, jackknife_error(without), True
        if self._is_baseline(outcome):
            whole = self.baseline.measurements[metric]
        else:
            whole = measure(real=outcome.real_before, fake=outcome.fake_before)
        return after, whole.value, math.hypot(after.error, whole.error), False

    def _value_before(self, metric: str, outcome: Outcome) -> float:
        if self._is_baseline(outcome):
            return self.baseline.measurements[metric].value
        return _values(metric, outcome.real_before, [outcome.fake_before])[0]

    def _without_before(self, metric: str, outcome: Outcome) -> Tensor:
        if not self._is_baseline(outcome):
            return values_without(metric, outcome.real_before, outcome.fake_before)
        if metric not in self._without:
            self._without[metric] = values_without(metric, self.baseline.real, self.baseline.fake)
        return self._without[metric]

    def _is_baseline(self, outcome: Outcome) -> bool:
        return outcome.real_before is self.baseline.real and outcome.fake_before is self.baseline.fake


def values_without(metric: str, real: Embedded, fake: Embedded) -> Tensor:
    """The metric without each of :data:`GROUPS` groups of generated pictures, float64 ``[GROUPS]``.

    The group of a picture depends on its place alone, so that a set and its first half leave out the same ones.
    """
    rows = torch.rand(-(-len(fake) // GROUPS), GROUPS, generator=generator("diagnosis", "groups"))
    dealt = rows.argsort(1).flatten()[: len(fake)].to(fake.features.device)
    kept = [fake.take(dealt != group) for group in range(GROUPS)]
    return torch.tensor(_values(metric, real, kept), dtype=torch.float64)


def _values(metric: str, real: Embedded, fakes: Sequence[Embedded]) -> list[float]:
    if metric == "fid":  # without the intervals, which take most of its time
        ours = _moments(real)
        return [frechet_distance(ours, moments(fake.features)) for fake in fakes]
    measure = metrics.bind(metric)
    return [measure(real=real, fake=fake).value for fake in fakes]


@remember
def _moments(pictures: Embedded) -> Moments:
    return moments(pictures.features)


def attempt(work: Generator[Progress, None, list[Effect]]) -> Generator[Progress, None, list[Effect] | str]:
    """The effects of a change, or why it could not be carried out: one that fails does not take the others along."""
    try:
        return (yield from work)
    except DdmError as error:
        return str(error)


def effects_table(metric: str, baseline: Evaluated, effects: Iterable[Effect]) -> Table:
    """One row a change, the largest difference first."""
    found = baseline.measurements[metric]
    protocol = baseline.protocol
    columns = [Column("suspect"), Column("change"), Column(label(metric, protocol.features), found.better)]
    columns += [Column("difference"), Column(""), Column("seconds")]
    what = f"{protocol.n_fake:,} pictures against {protocol.n_real:,} of {protocol.reference}"
    seconds = baseline.seconds["pictures"] + baseline.seconds["features"] + baseline.seconds[metric]
    first = [Cell("baseline"), Cell(what), _cell(found), Cell(), Cell(""), Cell(f"{seconds:.0f}")]
    ordered = sorted(effects, key=lambda each: -abs(each.difference))
    return Table(columns, [first, *(_row(each) for each in ordered)], notes=[ASSUMED])


def _row(effect: Effect) -> list[Cell]:
    low, high = effect.interval
    remark = "none at all" if effect.difference == effect.error == 0 else "" if effect.seen else "inside the noise"
    return [
        Cell(effect.suspect),
        Cell(effect.change),
        _cell(effect.measurement),
        Cell(effect.difference, low, high),
        Cell(remark if effect.paired else f"* {remark}".strip()),
        Cell(f"{effect.seconds:.0f}"),
    ]


def _cell(found: Measurement) -> Cell:
    return Cell(found.value, found.low, found.high)
