"""A number that is to be explained, and a change that may explain it."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ddm.data import ImageSet, get_data, sources
from ddm.metrics import Embedded, Measurement
from ddm.registry import Choice
from ddm.runs.config import Evaluation
from ddm.runs.evaluation import Evaluated, Evaluator
from ddm.runs.model import Model
from ddm.runs.progress import Progress
from ddm.seeding import drawn

Kind = Literal["limit", "floor", "size", "making", "measuring"]
"""Infinitely many pictures, a perfect model, fewer pictures, other pictures, another way to measure them."""


class Unsuitable(Exception):
    """There is nothing this suspect could change; says why."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a change led to.

    Args:
        real: the reference after the change.
        fake: the pictures measured against it.
        real_before: the reference with nothing changed: the baseline's, or a part of it.
        fake_before: the pictures with nothing changed.
        measurements: by metric, where they are known already or not simply those of the two sets.
        paired: whether the pictures at one place of ``fake`` and ``fake_before`` are of one seed.
    """

    real: Embedded
    fake: Embedded
    real_before: Embedded
    fake_before: Embedded
    measurements: dict[str, Measurement] = field(default_factory=dict)
    paired: bool = True


Work = Generator[Progress, None, Outcome]


@dataclass(frozen=True, eq=False)
class Variant:
    """One change.

    Args:
        suspect: whose it is.
        change: in a few words.
        kind: what it tells about the number.
        work: carries it out, from the baseline.
        pictures: to be made, at most: those that were kept are not made again.
        effort: the time of one, in those of the baseline.
        embedded: further pictures that go through the feature network.
        only: the metric that it is about; every metric without it.
    """

    suspect: str
    change: str
    kind: Kind
    work: Callable[[Evaluated], Work]
    pictures: int = 0
    effort: float = 1.0
    embedded: int = 0
    only: str | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """What is diagnosed, and how to have it otherwise.

    Args:
        model: whose pictures are measured.
        settings: metrics, features, number of pictures.
        reference: the real pictures.
        evaluator: measures with these settings against this reference.
        seed: of the first picture.
        reload: the same source with other weights, by their name.
    """

    model: Model
    settings: Evaluation
    reference: ImageSet
    evaluator: Evaluator
    seed: int
    reload: Callable[[str], Model]

    @cached_property
    def other_split(self) -> ImageSet | None:
        """The split of the reference's data set that the reference is not; None where there is none."""
        choice = sources.check(self.reference.name)
        if "split" not in sources.options(choice.name):
            return None
        option = sources.options(choice.name)["split"]
        now = choice.options.get("split", option.default)
        other = next((each for each in get_args(option.annotation) or ("train", "test") if each != now), None)
        name = str(Choice(choice.name, {**choice.options, "split": other}))
        return get_data(name, image_size=self.reference.image_size[0])

    def measuring(self, reference: ImageSet, **changes: Any) -> Evaluator:
        """An evaluator against another reference, or with other settings."""
        evaluator = self.evaluator
        return Evaluator(
            self.settings.model_copy(update=changes),
            reference,
            team=evaluator.team,
            batch=evaluator.batch,
            say=evaluator.say,
        )


def spread_set(data: ImageSet, kept: int) -> ImageSet:
    """At most ``kept`` pictures of a set, the same ones as :meth:`Embedded.spread` takes."""
    if kept >= data.count:
        return data
    index = drawn(data.count, kept)
    labels = None if data.labels is None else data.labels[index]
    return replace(data, pixels=data.pixels[index], labels=labels, digest="")


def joined(one: Embedded, other: Embedded) -> Embedded:
    """Two sets as one."""

    def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat((a, b))

    return Embedded(
        torch.cat((one.features, other.features)),
        torch.cat((one.pixels, other.pixels)),
        both(one.logits, other.logits),
        both(one.labels, other.labels),
        one.classes,
    )
