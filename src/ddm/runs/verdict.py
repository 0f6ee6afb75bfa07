"""What the effects say, in plain words: every sentence is made from the numbers."""

from collections.abc import Iterator, Sequence

from ddm.metrics import Measurement
from ddm.runs.diagnosis import Effect

NAMED = 4
"""So many changes are named in a sentence."""


def verdict(label: str, baseline: Measurement, images: int, effects: Sequence[Effect]) -> list[str]:
    """Sentences about one metric.

    Args:
        label: of the metric.
        baseline: the number that is to be explained.
        images: generated pictures it was measured with.
        effects: of all changes on this metric.
    """
    return [
        *_sample_size(label, baseline, images, effects),
        *_floor(effects, baseline),
        *_changes("making", "made", effects, baseline),
        *_changes("measuring", "measured", effects, baseline),
        *_noise(effects),
    ]


ENOUGH = 3
"""Pictures a dimension from which on the bias falls as 1/n, so that it can be extrapolated away."""


def _sample_size(label: str, baseline: Measurement, images: int, effects: Sequence[Effect]) -> Iterator[str]:
    for limit in (each for each in effects if each.kind == "limit"):
        value, added = baseline.value, -limit.difference
        dimension = baseline.details.get("dimension", 0)
        if images < ENOUGH * dimension:
            least = f"at least about {shown(added)}" if limit.seen and added > 0 else "an unknown part"
            yield (
                f"Of the {label} of {shown(value)}, {least} is sample size; how much more cannot be told from "
                f"{images:,} pictures in {dimension:,} dimensions, but the rows above say how it falls with the count."
            )
            continue
        if not limit.seen or value <= 0:
            yield f"Of the {label} of {shown(value)}, no part can be told to be sample size."
            continue
        share = added / value
        what = "Most" if share >= 0.5 else "Some" if share >= 0.1 else "Little"
        numbers = f"{images:,} pictures add about {shown(added)} of the {shown(value)}"
        yield f"{what} of it is sample size: {numbers}; infinitely many would give about {shown(value - added)}."


def _floor(effects: Sequence[Effect], baseline: Measurement) -> Iterator[str]:
    for floor in (each for each in effects if each.kind == "floor"):
        value = shown(floor.measurement.value)
        if floor.seen and floor.better:
            own = shown(abs(floor.difference))
            yield f"A perfect model would get about {value} (real pictures, as many): about {own} is the model's own."
        else:
            yield f"Real pictures in the same number get {value}: by this number the model is as good as they are."


def _changes(kind: str, verb: str, effects: Sequence[Effect], baseline: Measurement) -> Iterator[str]:
    tried = [each for each in effects if each.kind == kind]
    wanted, other = ("lower", "higher") if baseline.better == "lower" else ("higher", "lower")
    better = [each for each in tried if each.seen and each.better]
    worse = [each for each in tried if each.seen and not each.better]
    if better:
        yield f"The same model's pictures {verb} otherwise would be {wanted}: {_list(better)}."
    elif tried:
        yield f"Nothing that was tried in how the pictures are {verb} would make it {wanted}."
    if worse:
        yield f"It would be {other}, {verb} otherwise: {_list(worse)}."


def _noise(effects: Sequence[Effect]) -> Iterator[str]:
    quiet = [each.change for each in effects if not each.seen and each.kind in ("making", "measuring", "size")]
    if quiet:
        yield f"Inside the noise: {'; '.join(quiet)}."


def _list(effects: Sequence[Effect]) -> str:
    ordered = sorted(effects, key=lambda each: -abs(each.difference))
    named = [f"{each.change} ({each.difference:+.3g})" for each in ordered[:NAMED]]
    return "; ".join(named) + (f"; and {len(ordered) - NAMED} more" if len(ordered) > NAMED else "")


def shown(value: float) -> str:
    """Two or three digits: these are sentences, the table has the rest."""
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.2g}"
