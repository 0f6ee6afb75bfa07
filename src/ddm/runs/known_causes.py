"""Known causes of bad numbers that can be seen in a run without making a picture."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddm.data import ImageSet
from ddm.generators import DiffusionGenerator
from ddm.networks import networks
from ddm.networks.residual_unet import attentive_levels
from ddm.registry import Registry
from ddm.runs import checkpoints, log
from ddm.runs.checkpoints import Loaded
from ddm.runs.config import Config
from ddm.runs.finding import Finding
from ddm.runs.folder import Run
from ddm.runs.model import Model
from ddm.training import averages

known_causes = Registry("known cause", given=("trained",))
"""Functions ``(trained: Trained) -> Iterator[Finding]``."""

LAW = 3.7, 50.0, 6.4
"""FID about 3.7 + 50 / (million images), from 6.4 million on. A fit to the public curve of mini_edm
(github.com/yuanzhi-zhu/mini_edm, figs/fid.png): EDM's objective, 15.7 M parameters, no labels, Adam at 2e-4, averaged
weights, 50,000 pictures against the training set of CIFAR-10. Another network or recipe has other numbers."""

LEAST_NOISE = 31.0
"""Sigma at which the pictures' share in the variance is 0.1 %: sampling has to start at pure noise."""

AVERAGED = 0.001, 0.2
"""Mean age of the averaged weights, as a share of the steps, that is found in models with good numbers: 0.004 in EDM,
0.0125 in DDPM, 0.05 to 0.1 in EDM2's best (arXiv 2312.02696)."""

YOUNGEST = 20
"""Steps that an average should reach back at least."""

APART = 0.1
"""Distance of the raw weights from their average, as a share of its length, above which they have not settled."""

UNEVEN = 0.01
"""Share of the left-right difference of pictures that is the same in all of them: CIFAR-10 has 0.0001, digits 0.04."""

LOOKED_AT = 5000
"""Real pictures at most that are compared with their mirror images."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A run as far as it is known without sampling.

    Args:
        config: what it is a run of.
        step: of the checkpoint.
        weights: those sampled from: ``ema``, ``ema-1``, ... or ``raw``.
        generation: how it is sampled.
        start: the first noise level of the sampler.
        data: the real pictures.
        records: of metrics.jsonl, up to the step.
        evaluations: of evaluations.jsonl.
        checkpoint: the tensors of the weights.
    """

    config: Config
    step: int
    weights: str
    generation: Mapping[str, Any]
    start: float
    data: ImageSet
    records: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Mapping[str, Any]] = ()
    checkpoint: Loaded = field(default_factory=lambda: Loaded(0, {}, {}))


def trained(model: Model, data: ImageSet) -> Trained | None:
    """What is known of a model; None where it is not a run.

    Raises:
        DdmError: a file of the run cannot be read.
    """
    generator = model.generator
    if model.config is None or model.path is None or not isinstance(generator, DiffusionGenerator):
        return None
    step = model.step or 0
    run = None if model.run is None else Run.open(model.run)
    records = [] if run is None else [each for each in log.read(run.metrics) if each.get("step", 0) <= step]
    groups = {"weights", "ema" if model.weights in (None, "raw") else model.weights}
    return Trained(
        model.config,
        step,
        model.weights or "ema",
        generator.settings(),
        float(generator.grid[0]),
        data,
        records,
        [] if run is None else log.read(run.evaluations),
        checkpoints.load(model.path, groups=groups),
    )


def findings(run: Trained) -> list[Finding]:
    """What all known causes say of a run."""
    return [finding for name in known_causes for finding in known_causes[name](run)]


@known_causes.register
def attention(trained: Trained) -> Iterator[Finding]:
    """Full attention at 16x16, in networks for pictures of 32x32."""
    sides = attentive_sides(trained.config)
    if sides is None or trained.config.image_size != 32:
        return
    seen = f"full attention at {', '.join(f'{side}x{side}' for side in sides)}"
    if 16 in sides:
        yield Finding("ok", "attention", seen)
        return
    cure = "networks with published CIFAR-10 FIDs below 4 have it at 16x16: residual_unet(attention=(16,))"
    yield Finding("warn", "attention", seen, cure)


def attentive_sides(config: Config) -> list[int] | None:
    """Sides of the maps with full attention, in positions; None for networks that are not known here."""
    choice = networks.check(config.network)
    defaults = {name: option.default for name, option in networks.options(choice.name).items()}
    options = {**defaults, **choice.options}
    if choice.name == "unet":  # at the other levels its attention is linear
        return [config.image_size // 2 ** (len(options["dim_mults"]) - 1)]
    if choice.name != "residual_unet":
        return None
    side, depth = config.image_size // options["patch"], len(options["mults"])
    here = attentive_levels(tuple(options["attention"]), side, depth)
    return [side // 2**level for level, attentive in enumerate(here) if attentive or level == depth - 1]


@known_causes.register
def average(trained: Trained) -> Iterator[Finding]:
    """How far back the average of the weights reaches."""
    if trained.weights == "raw":
        yield Finding("warn", "average", "the raw weights are sampled from", "--weights ema")
        return
    rule = trained.config.train.ema[int(trained.weights.partition("-")[2] or 0)]
    age, rest = reach(rule, trained.step)
    share = age / max(trained.step, 1)
    seen = f"{rule} is {age:,.0f} steps old on average, {share:.1%} of {trained.step:,}"
    shortest, longest = AVERAGED
    if rest > 0.01:
        yield Finding("warn", "average", f"{rest:.0%} of it are the random first weights", "a shorter average")
    elif share > longest:
        yield Finding("warn", "average", f"{seen}: it lags behind", "a shorter average, e.g. power(width=0.1)")
    elif share < shortest or age < YOUNGEST:
        cure = "a longer average, e.g. power(width=0.05)"
        yield Finding("warn", "average", f"{seen}: hardly more than the raw weights", cure)
    else:
        yield Finding("ok", "average", seen)


def reach(rule: str, step: int) -> tuple[float, float]:
    """Mean age in steps of the weights in an average, and the share of the random first ones in it."""
    survives = averages.bind(rule)
    age, left, back = 0.0, 1.0, 0
    while back < step and left > 1e-5:  # what is older than that cannot change the answer
        kept = survives(step - back)
        age += left * (1 - kept) * back
        left, back = left * kept, back + 1
    return age + left * back, left


@known_causes.register
def images(trained: Trained) -> Iterator[Finding]:
    """Pictures seen, and what a public curve leads to expect of so many."""
    train = trained.config.train
    seen = trained.step * train.batch * train.accumulate
    said = f"{seen / 1e6:.3g} million, each picture {seen / max(trained.data.count, 1):.1f} times"
    if not trained.config.data.startswith("cifar10"):
        yield Finding("ok", "images seen", said)
        return
    limit, slope, least = LAW
    millions = seen / 1e6
    law = (
        f"the public law FID ~ {limit} + {slope:g} / million images (mini_edm, 15.7 M parameters, EDM, 50,000 pictures"
    )
    if millions >= least:
        about = f") leads to expect about {limit + slope / millions:.1f} at best of this many"
    elif millions >= 1:
        about = f", fitted from {least} million on) would go on to about {limit + slope / millions:.0f} here"
    else:
        about = f") begins at {least} million: too few to say more"
    enough = millions >= 50
    yield Finding("ok" if enough else "warn", "images seen", f"{said}; {law}{about}", "" if enough else "train longer")


@known_causes.register
def guidance(trained: Trained) -> Iterator[Finding]:
    """Classifier-free guidance, which gives up variety for clearer pictures."""
    now = trained.generation.get("guidance", 1.0)
    if now != 1 and trained.generation.get("guide") is None:
        cure = "--guidance 1, or the value between 1 and 2 that measures best"
        yield Finding("warn", "guidance", f"{now:g}: variety is lost, which distances of whole sets count", cure)


@known_causes.register
def start(trained: Trained) -> Iterator[Finding]:
    """What is left of the pictures in the noise that sampling starts from (terminal signal-to-noise ratio)."""
    left = 1 / (1 + trained.start**2)
    seen = f"sampling starts at sigma {trained.start:.3g}, where {left:.2g} of the variance is picture"
    if trained.start < LEAST_NOISE:
        yield Finding("warn", "start", f"{seen}: it is not pure noise there", "a schedule and a grid that go further")
    else:
        yield Finding("ok", "start", seen)


@known_causes.register
def memorisation(trained: Trained) -> Iterator[Finding]:
    """Copies of training pictures, where they were counted."""
    found = [each for each in trained.evaluations if str(each.get("metric", "")).startswith("memorisation")]
    if found and found[-1]["low"] > 0.01:
        seen = f"{found[-1]['value']:.1%} of the pictures are copies of training pictures"
        yield Finding("warn", "memorisation", seen, "more data, flips, dropout or fewer steps; no distance shows it")


@known_causes.register
def skipped(trained: Trained) -> Iterator[Finding]:
    """Steps that were not applied."""
    count = trained.records[-1].get("skipped", 0) if trained.records else 0
    if count:
        cure = "a lower train.lr, more train.warmup, or train.precision bf16 or fp32"
        yield Finding("warn", "skipped steps", f"{count:,} had a loss or gradient that is not finite", cure)


@known_causes.register
def decay(trained: Trained) -> Iterator[Finding]:
    """Whether the learning rate falls at the end."""
    train = trained.config.train
    if trained.step < train.steps and train.decay:
        left = f"step {trained.step:,} of {train.steps:,}: the learning rate has not fallen to its end yet"
        yield Finding("warn", "learning rate", left, "train to the end")
    elif not train.decay and trained.step < 200_000:
        seen = f"constant for {trained.step:,} steps: only the average takes the noise out of the weights"
        yield Finding("warn", "learning rate", seen, "train.decay 0.25")
    else:
        yield Finding("ok", "learning rate", f"falls over the last {train.decay:.0%}" if train.decay else "constant")


@known_causes.register
def mirrored(trained: Trained) -> Iterator[Finding]:
    """Training with flips where mirror images are other pictures."""
    if not trained.config.train.flip:
        return
    share, noise = unevenness(trained.data)
    if share > UNEVEN + 3 * noise:
        seen = f"trained with flips, but {share:.1%} of the difference of left and right is the same in all pictures"
        yield Finding("warn", "flips", seen, "train.flip false, unless mirror images are as good")
    else:
        yield Finding("ok", "flips", "the pictures have no side of their own")


def unevenness(data: ImageSet) -> tuple[float, float]:
    """Share of the left-right difference that pictures have in common, the largest of all classes, and its noise.

    0 where mirrored pictures are as likely as the pictures; the noise of ``n`` pictures is 1 / n.
    """
    index = torch.arange(min(LOOKED_AT, data.count)) * data.count // min(LOOKED_AT, data.count)
    pixels = data.pixels[index]
    groups = [pixels]
    if data.labels is not None:
        labels = data.labels[index]
        groups += [pixels[labels == number] for number in range(len(data.classes))]
    found = [(_common(group), 1 / len(group)) for group in groups if len(group) > 1]
    return max(found, key=lambda each: each[0] - 3 * each[1])


def _common(pixels: Tensor) -> float:
    difference = pixels.float() - pixels.float().flip(-1)
    whole = difference.square().sum((1, 2, 3)).mean()
    return float(difference.mean(0).square().sum() / whole) if whole > 0 else 0.0


@known_causes.register
def slope(trained: Trained) -> Iterator[Finding]:
    """Whether the loss still falls at the end."""
    points = [each for each in trained.records if math.isfinite(each.get("loss", math.nan))]
    last = [each for each in points if each["step"] > 0.8 * trained.step]
    if len(last) < 5:
        return
    steps, losses = (np.array([each[name] for each in last], dtype=float) for name in ("step", "loss"))
    (line, _), spread = np.polyfit(steps, losses, 1, cov=True)
    fall, error = -line * np.ptp(steps) / losses.mean(), spread[0, 0] ** 0.5 * np.ptp(steps) / losses.mean()
    seen = f"over the last fifth it fell by {fall:.1%} (± {2 * error:.1%})"
    if fall > 2 * error and fall > 0.005:
        yield Finding("warn", "loss", f"{seen}: it still falls", "train longer: train.steps")
    else:
        yield Finding("ok", "loss", seen)


@known_causes.register
def settled(trained: Trained) -> Iterator[Finding]:
    """How far the raw weights are from their average."""
    groups = dict(trained.checkpoint.tensors)
    raw = groups.pop("weights", None)
    for name, averaged in groups.items():
        if raw is None:
            return
        squares = [(each.double(), averaged[key].double()) for key, each in raw.items() if each.is_floating_point()]
        apart = sum(float((ours - theirs).square().sum()) for ours, theirs in squares)
        share = math.sqrt(apart / max(sum(float(theirs.square().sum()) for _, theirs in squares), 1e-30))
        seen = f"the raw weights are {share:.1%} of its length away from {name}"
        if share > APART:
            yield Finding("warn", "weights", f"{seen}: they have not settled", "train.decay 0.25, or a lower train.lr")
        else:
            yield Finding("ok", "weights", seen)
