"""DPM-Solver++: multistep solvers that take x0 for a polynomial in log sigma and integrate it exactly.

In x = x0 + sigma * noise a step from sigma to ``following`` is x * following / sigma plus an integral of x0, weighted
towards the end of the step.
"""

from collections import deque
from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, samplers
from ddm.diffusion.samplers.multistep import Known, decaying_moments, integrate


def _solve(
    denoise: Denoise, x: Tensor, grid: Tensor, *, order: int, curvature: float = 1.0, noise: Noise | None = None
) -> Iterator[Step]:
    known: deque[Known] = deque(maxlen=order)
    shares = torch.tensor([1, 1, curvature], dtype=grid.dtype)
    for sigma, following in zip(grid[:-1], grid[1:]):
        x0 = denoise(x, sigma)
        known.appendleft(Known(sigma, x0))
        used = list(known) if following > 0 else [known[0]]
        # The reverse SDE forgets x twice as fast as the flow does, and noise takes the place of what is forgotten.
        kept = following / sigma if noise is None else (following / sigma) ** 2
        moments = decaying_moments(kept, len(used)) * shares[: len(used)]
        x = integrate(kept * x, used, sigma, following, moments)
        if noise is not None and following > 0:
            x = x + following * (1 - kept).sqrt() * noise()
        yield Step(x, x0)


@samplers.register
def dpmpp_2m(denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Step]:
    """DPM-Solver++(2M); Lu et al. 2022 (arXiv 2211.01095, algorithm 2). Order 2, one evaluation a step.

    The first step and the last, to sigma = 0, are of first order, as in every public implementation.
    """
    return _solve(denoise, x, grid, order=2)


@samplers.register
def dpmpp_3m(
    denoise: Denoise,
    x: Tensor,
    grid: Tensor,
    noise: Noise,
    *,
    curvature: Annotated[float, Ge(0), Le(1)] = 1.0,
) -> Iterator[Step]:
    """DPM-Solver++(3M); Lu et al. 2022 (arXiv 2211.01095). Order 3, one evaluation a step.

    The first two steps are of order 1 and 2, the last, to sigma = 0, of order 1. Below 15 steps diffusers also lowers
    the last but one, to order 2. On exact denoisers that changed the error by 1 % on average (less of it below 9 steps
    of karras, more on log_snr), so here it keeps order 3.

    ``curvature`` is the share of the quadratic term. The authors' code, and diffusers and k-diffusion after it, leave
    out a factor of two: ``curvature=0.5`` is theirs. It converges with order 2 only, but is often closer at few steps.
    """
    return _solve(denoise, x, grid, order=3, curvature=curvature)


@samplers.register
def dpmpp_sde(denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M); Lu et al. 2022 (arXiv 2211.01095, appendix). Stochastic, one evaluation a step.

    The first step is of first order, and so is the last, to sigma = 0, which adds no noise: x0 is the picture. With
    order 1 throughout it is ``ddpm``. A third order is left out; the quadratic term of diffusers' has a wrong sign.
    """
    return _solve(denoise, x, grid, order=2, noise=noise)
