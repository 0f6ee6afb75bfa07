"""What a metric sees and what it says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from ddm.registry import Registry
from ddm.seeding import drawn

metrics = Registry("metric", given=("real", "fake"))
"""Functions ``(real: Embedded, fake: Embedded, *, options) -> Measurement``; they know no model."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """A set of pictures and their place in a feature space.

    Args:
        features: float32 ``[n, d]``.
        pixels: uint8 ``[n, c, h, w]``, the very pictures that the features are of.
        logits: float32 ``[n, k]`` of the feature network's own classifier, where it has one.
        labels: int64 ``[n]``, which class each picture is of (real) or was asked to be of (fake), or ``None``.
        classes: names of the labels.
    """

    features: Tensor
    pixels: Tensor = field(repr=False)
    logits: Tensor | None = field(default=None, repr=False)
    labels: Tensor | None = field(default=None, repr=False)
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.features)

    def take(self, index: Tensor | slice) -> "Embedded":
        """The pictures at these positions."""
        return Embedded(
            features=self.features[index],
            pixels=self.pixels[index],
            logits=None if self.logits is None else self.logits[index],
            labels=None if self.labels is None else self.labels[index],
            classes=self.classes,
        )

    def spread(self, count: int) -> "Embedded":
        """At most ``count`` of the pictures, always the same ones, from all over the set."""
        return self if count >= len(self) else self.take(drawn(len(self), count))


@dataclass(frozen=True)
class Measurement:
    """A number with its interval.

    Args:
        value: the number.
        low: lower end of the 95 % interval over other pictures from the same generator, the reference being fixed.
        high: its upper end.
        better: whether a model wants it lower or higher.
        details: further plain values: numbers, strings, lists and mappings of them.
        warnings: what a reader of the number has to know, a sentence each.
    """

    value: float
    low: float
    high: float
    better: Literal["lower", "higher"] = "lower"
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """The standard error that the interval stands for."""
        return (self.high - self.low) / (2 * 1.96)
