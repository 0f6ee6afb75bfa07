"""DPM-Solver-2, a single-step solver: nothing is remembered from one step to the next."""

from collections.abc import Iterator
from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, direction, samplers


@samplers.register
def dpm_solver_2(
    denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise, *, r: Annotated[float, Gt(0), Le(1)] = 0.5
) -> Iterator[Step]:
    """DPM-Solver-2; Lu et al. 2022 (arXiv 2206.00927, algorithms 1 and 4). Order 2, two evaluations a step.

    The direction is a line in log sigma through the start of the step and a point ``r`` of the way to its end. As in
    the paper, half a step stands for the exact weight of that line; so ``r=1`` is ``heun``. The last step, to
    sigma = 0, is of first order with one evaluation, since 0 has no logarithm: 2 * steps - 1 in all. The paper ends
    above 0; diffusers' KDPM2 is ``r=0.5`` and ends as this does, its single-step DPM-Solver has any ``r`` but no step
    to 0.
    """
    for sigma, following in zip(grid[:-1], grid[1:]):
        x0 = denoise(x, sigma)
        slope = direction(x, x0, sigma)
        if following > 0:
            between = sigma ** (1 - r) * following**r
            reached = x + (between - sigma) * slope
            x0 = denoise(reached, between)
            slope = slope + (direction(reached, x0, between) - slope) / (2 * r)
        x = x + (following - sigma) * slope
        yield Step(x, x0)
