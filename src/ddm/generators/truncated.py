"""What many programs save instead of a picture: every level cut down to the one below."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ddm.generators.base import Generator, finished
from ddm.generators.ours import ADVICE, DiffusionGenerator


class TruncatedPictures(Generator):
    """The pictures of a model with ``floor`` in the place of rounding: half a level darker on average.

    Only for measuring what that costs.

    Args:
        generator: makes the floats.
    """

    def __init__(self, generator: DiffusionGenerator):
        self.generator = generator
        self.shape, self.classes, self.limit = generator.shape, generator.classes, generator.limit

    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        """Finished pictures, uint8 ``[len(seeds), c, h, w]`` on the CPU; raises as the model's own do."""
        levels = ((self.generator.floats(seeds, labels) + 1) * 127.5).clamp(0, 255).floor()
        return finished(levels / 127.5 - 1, seeds, advice=ADVICE)

    def labels_of(self, seeds: Sequence[int]) -> list[int] | None:
        """Those of the model."""
        return self.generator.labels_of(seeds)

    def settings(self) -> dict[str, Any]:
        """Those of the model, and what was done to its pictures."""
        return {**self.generator.settings(), "rounding": "truncated to uint8"}
