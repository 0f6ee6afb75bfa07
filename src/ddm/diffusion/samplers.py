"""Samplers: noise to picture. Each is a generator over a descending grid of noise levels and sees only a denoiser.

All work in x = x0 + sigma * noise, where the deterministic flow is dx/dsigma = (x - x0) / sigma. Noise is passed in, so
a picture depends on its seed and not on its batch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.registry import Registry

samplers = Registry("sampler", given=("denoise", "x", "grid", "noise"))

Noise = Callable[[], Tensor]
"""Fresh standard normal noise of x's shape, type and device at every call."""


@dataclass(frozen=True)
class Step:
    """Where a sampler is: ``x`` at the next level of the grid, and the ``x0`` it is heading for; ``[b, c, h, w]``."""

    x: Tensor
    x0: Tensor


def _direction(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The noise in x, which is also dx/dsigma."""
    return (x - x0) / sigma


@samplers.register
def ddim(
    denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise, *, eta: Annotated[float, Ge(0), Le(1)] = 0.0
) -> Iterator[Step]:
    """DDIM; Song et al. 2020 (arXiv 2010.02502). Order 1, one evaluation a step.

    Args:
        denoise: the model.
        x: starting noise, standard deviation ``grid[0]``.
        grid: descending sigmas ``[steps + 1]`` ending in 0.
        noise: fresh noise at every call; used only when ``eta`` > 0.
        eta: share of the noise that is drawn anew at each step; 0 is deterministic, 1 is DDPM.
    """
    for sigma, following in zip(grid[:-1], grid[1:]):
        x0 = denoise(x, sigma)
        drawn = eta * following * (1 - (following / sigma) ** 2).sqrt()
        x = x0 + (following**2 - drawn**2).sqrt() * _direction(x, x0, sigma)
        if drawn > 0:
            x = x + drawn * noise()
        yield Step(x, x0)


@samplers.register
def ddpm(
    denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise, *, variance: Literal["small", "large"] = "small"
) -> Iterator[Step]:
    """Ancestral sampling; Ho et al. 2020 (arXiv 2006.11239). One evaluation a step; no noise in the last.

    ``variance`` is the posterior's own (small, the paper's beta-tilde) or the forward step's (large, its beta).
    """
    for sigma, following in zip(grid[:-1], grid[1:]):
        x0 = denoise(x, sigma)
        ratio = (following / sigma) ** 2
        x = x0 + ratio * (x - x0)
        if following > 0:
            spread = (1 + following**2) / (1 + sigma**2) * sigma**2 if variance == "large" else following**2
            x = x + (spread * (1 - ratio)).sqrt() * noise()
        yield Step(x, x0)


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
        slope = _direction(x, x0, sigma)
        euler = x + (following - sigma) * slope
        if following > 0:
            x0 = denoise(euler, following)
            slope = (slope + _direction(euler, x0, following)) / 2
        x = x + (following - sigma) * slope
        yield Step(x, x0)


@samplers.register
def dpmpp(denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Step]:
    """DPM-Solver++(2M); Lu et al. 2022 (arXiv 2211.01095, algorithm 2). Order 2, one evaluation a step.

    The last step, to sigma = 0, is of first order, as in every public implementation.
    """
    previous: tuple[Tensor, Tensor] | None = None
    for sigma, following in zip(grid[:-1], grid[1:]):
        x0 = denoise(x, sigma)
        estimate = x0
        if previous is not None and following > 0:
            ratio = (previous[0] / sigma).log() / (sigma / following).log()
            estimate = x0 + (x0 - previous[1]) * ratio.reciprocal() / 2
        x = estimate + (following / sigma) * (x - estimate)
        previous = sigma, x0
        yield Step(x, x0)
