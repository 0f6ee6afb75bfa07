"""Heun's method, with which Karras et al. 2022 sample."""

import math
from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, direction, samplers


@samplers.register
def heun(
    denoise: Denoise,
    x: Tensor,
    grid: Tensor,
    noise: Noise,
    *,
    churn: Annotated[float, Ge(0)] = 0.0,
    churn_low: Annotated[float, Ge(0)] = 0.0,
    churn_high: Annotated[float, Ge(0)] = math.inf,
    churn_noise: Annotated[float, Ge(0)] = 1.0,
) -> Iterator[Step]:
    """Heun's method with optional churn; Karras et al. 2022 (arXiv 2206.00364, algorithm 2). Order 2.

    Two evaluations a step, one in the last: 2 * steps - 1. ``churn`` is their S_churn, ``churn_low`` and ``churn_high``
    their S_min and S_max, ``churn_noise`` their S_noise.
    """
    growth = min(churn / (len(grid) - 1), math.sqrt(2) - 1)
    for sigma, following in zip(grid[:-1], grid[1:]):
        if growth > 0 and churn_low <= sigma <= churn_high:
            raised = sigma * (1 + growth)
            x = x + (raised**2 - sigma**2).sqrt() * churn_noise * noise()
            sigma = raised
        x0 = denoise(x, sigma)
        slope = direction(x, x0, sigma)
        euler = x + (following - sigma) * slope
        if following > 0:
            x0 = denoise(euler, following)
            slope = (slope + direction(euler, x0, following)) / 2
        x = x + (following - sigma) * slope
        yield Step(x, x0)
