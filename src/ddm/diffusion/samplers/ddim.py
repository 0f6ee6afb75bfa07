"""DDIM and its ancestral relatives: one evaluation a step, of first order, any share of the noise drawn anew."""

from collections.abc import Iterator
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, direction, samplers


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
        x = x0 + (following**2 - drawn**2).sqrt() * direction(x, x0, sigma)
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
