"""What may be behind a number: each suspect changes one thing and leaves everything else as it was."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from ddm.data import ImageSet
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator
from ddm.generators.truncated import TruncatedPictures
from ddm.metrics import features, metrics
from ddm.registry import Choice, Registry
from ddm.runs.case import Case, Kind, Outcome, Unsuitable, Variant, Work, joined, spread_set
from ddm.runs.cost import network_of, with_steps
from ddm.runs.evaluation import Evaluated
from ddm.runs.model import Model
from ddm.seeding import drawn

suspects = Registry("suspect", given=("case",))
"""Functions ``(case: Case) -> Iterator[Variant]``; they raise :class:`Unsuitable` where there is nothing to change."""

OTHERS = 10_000
"""Real pictures at most that are embedded anew for one suspect."""

GUIDANCE = 1.5
"""What is tried where a labelled model was measured without."""


# --- how many


@suspects.register
def count(case: Case) -> Iterator[Variant]:
    """The first half, quarter and eighth of the same pictures, and infinitely many by extrapolation."""
    for share in (2, 4, 8):
        kept = case.settings.images // share
        yield _free("count", f"{kept:,} of the pictures", "size", partial(_first, kept))
    if "fid" in case.settings.metrics:
        yield _free("count", "infinitely many (fid_infinity)", "limit", _extrapolated, only="fid")


def _first(kept: int, baseline: Evaluated) -> Outcome:
    real, fake = baseline.real, baseline.fake
    return Outcome(real, fake.take(slice(kept)), real, fake)


def _extrapolated(baseline: Evaluated) -> Outcome:
    real, fake = baseline.real, baseline.fake
    return Outcome(real, fake, real, fake, {"fid": metrics["fid_infinity"](real=real, fake=fake)}, paired=False)


def _free(
    suspect: str, change: str, kind: Kind, outcome: Callable[[Evaluated], Outcome], *, only: str | None = None
) -> Variant:
    def work(baseline: Evaluated) -> Work:
        yield from ()
        return outcome(baseline)

    return Variant(suspect, change, kind, work, only=only)


# --- other pictures from the same seeds


@suspects.register
def weights(case: Case) -> Iterator[Variant]:
    """The raw weights in the place of their average, or the other way round; other averages."""
    if case.model.path is None:
        raise Unsuitable(f"{case.model.kind}: sources have one set of weights, or none")
    for name in weights_in(case.model.path):
        if name != case.model.weights:
            change = f"{name} weights instead of {case.model.weights}"
            yield _remade(case, "weights", change, partial(case.reload, name))


@suspects.register
def steps(case: Case) -> Iterator[Variant]:
    """Half and twice the steps of the sampler."""
    now, grids = case.model.generator.settings().get("steps"), case.model.grids
    if network_of(case.model.generator) is None or not isinstance(now, int):
        raise Unsuitable("these pictures are there already")
    grids = grids and replace(grids, otherwise=None)  # a grid of another kind would be a second change
    for other in (now // 2, 2 * now):
        if other:
            other_model = replace(case.model, generator=with_steps(case.model.generator, other, grids))
            yield _remade(case, "steps", f"{other} steps instead of {now}", lambda m=other_model: m, effort=other / now)


@suspects.register
def sampler(case: Case) -> Iterator[Variant]:
    """Heun's method in the place of any other sampler, DDIM in the place of Heun's; as many steps."""
    now = _ours(case).settings()["sampler"]
    other, effort = ("ddim", 0.5) if Choice.parse(now).name == "heun" else ("heun", 2.0)
    yield _resampled(case, "sampler", f"{other} instead of {now}", effort=effort, sampler=other)


@suspects.register
def guidance(case: Case) -> Iterator[Variant]:
    """No guidance where there was some, some where there was none; models with labels or a guide only."""
    now, unguided = _ours(case).guidance, _ours(case).guide is None
    if unguided and not _ours(case).classes:
        raise Unsuitable("the model has no labels")
    if now == 1 and unguided and case.model.config is not None and not case.model.config.train.label_drop:
        raise Unsuitable("no label was ever hidden in training (train.label_drop 0)")
    other, effort = (GUIDANCE, 2.0) if now == 1 else (1.0, 0.5)
    yield _resampled(case, "guidance", f"guidance {other:g} instead of {now:g}", effort=effort, guidance=other)


@suspects.register
def clip(case: Case) -> Iterator[Variant]:
    """Each guess of the clean picture kept within [-1, 1], or not."""
    free = _ours(case).settings()["clip"] == "none"
    change, other = ("clipping", "static") if free else ("no clipping", "none")
    yield _resampled(case, "clip", change, clip=other)


@suspects.register
def rounding(case: Case) -> Iterator[Variant]:
    """Levels cut down to the one below, as many programs do, in the place of rounding."""
    model = replace(case.model, generator=TruncatedPictures(_ours(case)))
    yield _remade(case, "rounding", "truncated to uint8 instead of rounded", lambda: model, kind="measuring")


def weights_in(checkpoint: Path) -> list[str]:
    """The names of all weights in a checkpoint: ``raw``, ``ema``, ``ema-1``, ..."""
    there = sorted(each.stem for each in checkpoint.glob("*.safetensors") if each.stem != "state")
    return ["raw" if name == "weights" else name for name in there]


def _ours(case: Case) -> DiffusionGenerator:
    if not isinstance(case.model.generator, DiffusionGenerator):
        raise Unsuitable("only runs of ddm can be sampled otherwise")
    return case.model.generator


def _resampled(case: Case, suspect: str, change: str, *, effort: float = 1.0, **changes: Any) -> Variant:
    model = replace(case.model, generator=_ours(case).with_settings(**changes))
    return _remade(case, suspect, change, lambda: model, effort=effort)


def _remade(
    case: Case,
    suspect: str,
    change: str,
    make: Callable[[], Model],
    *,
    kind: Kind = "making",
    effort: float = 1.0,
) -> Variant:
    def work(baseline: Evaluated) -> Work:
        model = make()
        found = yield from case.evaluator.evaluate(model.generator, identity=model.digest, seed=case.seed)
        return Outcome(found.real, found.fake, baseline.real, baseline.fake, found.measurements)

    return Variant(suspect, change, kind, work, pictures=case.settings.images, effort=effort)


# --- the same pictures, measured otherwise


@suspects.register
def reference(case: Case) -> Iterator[Variant]:
    """A fifth of the real pictures; the other split of their data set, with as many."""
    fifth = case.reference.count // 5
    fewer = f"{fifth:,} real pictures instead of {case.reference.count:,}"
    yield _free("reference", fewer, "size", lambda b: Outcome(b.real.spread(fifth), b.fake, b.real, b.fake))
    other = _split(case)

    def work(baseline: Evaluated) -> Work:
        real = yield from case.measuring(other).embedded_reference()
        kept = min(len(real), len(baseline.real))
        return Outcome(real.spread(kept), baseline.fake, baseline.real.spread(kept), baseline.fake)

    kept = min(other.count, case.reference.count)
    change = f"{kept:,} of {other.name} instead of {kept:,} of {case.reference.name}"
    yield Variant("reference", change, "measuring", work, embedded=other.count)


@suspects.register
def resizing(case: Case) -> Iterator[Variant]:
    """Every other way in which the feature space can give pictures its size."""
    choice = features.check(case.settings.features)
    option = features.options(choice.name).get("resize")
    if option is None or not get_args(option.annotation):
        raise Unsuitable(f"{choice.name} resizes in one way only; another size would be another space")
    some = spread_set(case.reference, OTHERS)
    for other in get_args(option.annotation):
        if other != choice.options.get("resize", option.default):
            space = str(Choice(choice.name, {**choice.options, "resize": other}))
            yield _in_space(case, some, space, f"{space}, {some.count:,} real pictures")


def _in_space(case: Case, some: ImageSet, space: str, change: str) -> Variant:
    def work(baseline: Evaluated) -> Work:
        model, other = case.model, case.measuring(some, features=space)
        found = yield from other.evaluate(model.generator, identity=model.digest, seed=case.seed)
        return Outcome(found.real, found.fake, baseline.real.spread(OTHERS), baseline.fake, found.measurements)

    return Variant("resizing", change, "measuring", work, embedded=some.count + case.settings.images)


@suspects.register
def flips(case: Case) -> Iterator[Variant]:
    """Every second real picture mirrored, as a reference taken from a training loader has them."""
    some = spread_set(case.reference, OTHERS)
    pixels = some.pixels[1::2].flip(-1).contiguous()
    mirrored = replace(some, pixels=pixels, labels=None if some.labels is None else some.labels[1::2], digest="")

    def work(baseline: Evaluated) -> Work:
        real = baseline.real.spread(OTHERS)
        turned = yield from case.measuring(mirrored).embedded_reference()
        return Outcome(joined(real.take(slice(0, None, 2)), turned), baseline.fake, real, baseline.fake)

    change = f"half of {some.count:,} real pictures mirrored"
    yield Variant("flips", change, "measuring", work, embedded=len(pixels))


@suspects.register
def floor(case: Case) -> Iterator[Variant]:
    """Real pictures in the place of generated ones, as many: what a perfect model would get."""
    try:
        other = _split(case)
    except (Unsuitable, RequestError):
        yield _free("floor", "real pictures: one half against the other", "floor", _halves)
        return
    kept = min(case.settings.images, other.count)
    some = spread_set(other, kept)

    def work(baseline: Evaluated) -> Work:
        found = yield from case.measuring(some).embedded_reference()
        real = baseline.real
        return Outcome(real, found, real, baseline.fake.take(slice(kept)), paired=False)

    yield Variant("floor", f"{kept:,} real pictures of {other.name}", "floor", work, embedded=kept)


def _halves(baseline: Evaluated) -> Outcome:
    chosen = torch.zeros(len(baseline.real), dtype=torch.bool)
    chosen[drawn(len(chosen), len(chosen) // 2)] = True
    one, other = baseline.real.take(chosen), baseline.real.take(~chosen)
    fake = baseline.fake.take(slice(len(other)))
    return Outcome(one, other.spread(len(fake)), one, fake, paired=False)


def _split(case: Case) -> ImageSet:
    if case.other_split is None:
        raise Unsuitable(f"{case.reference.name} has no other split")
    return case.other_split
