"""A feature space and a metric that need no weights, and a generator whose pictures are known."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from ddm.images import to_uint8
from ddm.metrics import Embedded, Extractor, Measurement, features, metrics
from ddm.seeding import PictureNoise


class ToyFeatures(Extractor):
    """The mean of each quarter of each channel, and half of each as logits; counts the pictures it sees."""

    digest = "toy"
    resize = "none"
    dimension = 12

    def __init__(self, *, version: int = 0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.digest = f"{'toy':0<16}{version}"
        self.seen = 0

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        self.seen += len(pixels)
        means = torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1)
        return means, means / 2


def mean_gap(real: Embedded, fake: Embedded) -> Measurement:
    """The distance of the mean features."""
    value = (real.features.double().mean(0) - fake.features.double().mean(0)).norm().item()
    return Measurement(value, 0.9 * value, 1.1 * value, details={"n": len(fake)}, warnings=("a toy",))


@pytest.fixture
def toys() -> Iterator[None]:
    """``toy_features`` and ``mean_gap`` may be chosen while the test runs."""
    features.register(ToyFeatures)
    metrics.register(mean_gap)
    yield
    del features._parts["toy_features"], metrics._parts["mean_gap"]


class ToyGenerator:
    """Coloured noise of its seeds; counts what it makes."""

    def __init__(
        self, *, level: float = 0.0, classes: int = 0, limit: int | None = None, dies_after: int | None = None
    ):
        self.shape, self.classes, self.limit, self.level = (3, 8, 8), classes, limit, level
        self.made: list[int] = []
        self.dies_after = dies_after

    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        if self.dies_after is not None and len(self.made) >= self.dies_after:
            raise KeyboardInterrupt
        self.made += seeds
        return to_uint8(PictureNoise(seeds, self.shape)() * 0.3 + self.level)

    def labels_of(self, seeds: Sequence[int]) -> list[int] | None:
        return [seed % self.classes for seed in seeds] if self.classes else None

    def settings(self) -> dict:
        return {"level": self.level}
