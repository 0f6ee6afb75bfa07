"""Pictures that are there already, as a generator: seed i is picture i."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ddm.data import ImageSet
from ddm.errors import RequestError
from ddm.generators.base import Generator


class FixedPictures(Generator):
    """The pictures of a set in their stored order, never mirrored.

    Args:
        data: the set.
    """

    def __init__(self, data: ImageSet):
        self.data = data
        self.shape = (data.channels, *data.image_size)
        self.classes = 0 if data.labels is None else len(data.classes)
        self.limit = data.count

    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        """Pictures ``seeds`` of the set, uint8 ``[len(seeds), c, h, w]`` on the CPU.

        Raises:
            RequestError: a seed beyond the last picture, or labels: these pictures are what they are.
        """
        self.check(seeds, labels)
        return self.data.pixels[list(seeds)].cpu()

    def labels_of(self, seeds: Sequence[int]) -> list[int] | None:
        """The stored labels; raises as :meth:`generate` does."""
        self.check(seeds)
        return None if self.data.labels is None else self.data.labels[list(seeds)].tolist()

    def settings(self) -> dict[str, Any]:
        """Nothing: the digest of the set says it all."""
        return {}

    def check(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> None:
        """Raise as :meth:`generate` does, without taking a picture."""
        if labels is not None:
            raise RequestError("label: stored pictures cannot be asked for by class; allowed: none")
        count, ends = self.data.count, (min(seeds, default=0), max(seeds, default=0))
        wrong = [seed for seed in ends if not 0 <= seed < count]
        if wrong:
            raise RequestError(f"seed: {wrong[-1]} is not allowed; there are {count} pictures, 0 to {count - 1}")
