"""What every sampler is: a generator over a descending grid of noise levels that sees only a denoiser.

All work in x = x0 + sigma * noise, where the deterministic flow is dx/dsigma = (x - x0) / sigma. Noise is passed in, so
a picture depends on its seed and not on its batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ddm.registry import Registry

samplers = Registry("sampler", given=("denoise", "x", "grid", "noise"))

Noise = Callable[[], Tensor]
"""Fresh standard normal noise of x's shape, type and device at every call."""


@dataclass(frozen=True)
class Step:
    """Where a sampler is: ``x`` at the next level of the grid, and the ``x0`` it is heading for; ``[b, c, h, w]``."""

    x: Tensor
    x0: Tensor


def direction(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The noise in x, which is also dx/dsigma."""
    return (x - x0) / sigma
