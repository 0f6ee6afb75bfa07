"""Samplers at other work: pictures to noise, noise between two noises, and pictures of which a part is known."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddm.diffusion.grids import make_grid
from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers import Noise, Step, samplers
from ddm.diffusion.tasks import per_picture
from ddm.errors import RequestError

ROUNDING = 1e-5
"""Of levels as people write them: 80 is meant where a grid begins at 79.9999."""


def invert(denoise: Denoise, x0: Tensor, grid: Tensor) -> Iterator[Step]:
    """Pictures up to noise along the deterministic flow; Song et al. 2020 (arXiv 2011.13456, section 4.3).

    By Heun's method, of order 2: two evaluations a step. Any deterministic sampler leads from there to the pictures
    again, the nearer the finer both grids are.

    Args:
        denoise: the model.
        x0: pictures ``[b, c, h, w]`` in [-1, 1]; taken for x at the lowest positive level, below which the flow moves
            them by no more than that level.
        grid: of the way down: descending sigmas, 0 at the end.

    Yields:
        A step for every level but the lowest; the last ``x`` is at ``grid[0]``.
    """
    rising = grid[grid > 0].flip(0)
    return samplers["heun"](denoise, x0, rising, lambda: torch.zeros_like(x0))


def spherical(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Between two noises on the arc through all pixels of a picture, so that the result is as long as noise.

    Shoemake 1985 (Animating rotation with quaternion curves); on the straight line half way between two noises the
    spread would be 0.71.

    Args:
        a: ``[n, c, h, w]``.
        b: like ``a``.
        share: ``[n]`` in [0, 1]: 0 is exactly ``a``, 1 exactly ``b``.
    """
    angle = F.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1).acos()
    share = share.to(a)
    # Noises that point the same way, or opposite ways, have no one arc.
    straight = angle.sin() < 1e-6
    sine = angle.sin().masked_fill(straight, 1)
    of_a, of_b = (torch.where(straight, part, (part * angle).sin() / sine) for part in (1 - share, share))
    return per_picture(of_a, a) * a + per_picture(of_b, b) * b


def between(a: Noise, b: Noise, share: Tensor) -> Noise:
    """The noise between those of ``a`` and ``b``, draw by draw: samplers that draw on their way are interpolated too.

    ``share`` as in :func:`spherical`.
    """
    return lambda: spherical(a(), b(), share)


def inpainting(denoise: Denoise, known: Tensor, unknown: Tensor) -> Denoise:
    """A model that knows a part of the pictures: there its x0 is what is known.

    Only the denoiser is wrapped, so this works with every sampler, and what is known comes out as it went in. Start
    from ``known + sigma * noise`` there: x is then known pictures with as much noise as the level says, from which the
    model guesses the rest. Song et al. 2020 (arXiv 2011.13456, appendix I.2) overwrite x itself, which samplers that
    remember earlier steps do not survive.

    What is known is exact, and so is the rest where it does not depend on it. Else this is an approximation: the rest
    is guessed from the known part with noise on it, and a guess once made stays. The more noise a sampler draws on its
    way, the more an early guess can be taken back, and the better the two parts agree. RePaint (Lugmayr et al. 2022,
    arXiv 2201.09865) goes up and down again at every level for that; ``heun(churn=...)`` does the same. Of two pixels
    with correlation 0.8 the unknown one goes 0.51 of the way from its own mean to that given the known one with
    deterministic samplers, 0.68 with ``ddim(eta=1)``, 0.83 with ``heun(churn=1000)`` in 100 steps, 0.99 in 1600.

    Args:
        denoise: the model.
        known: pictures ``[b, c, h, w]`` in [-1, 1]; what they are where they are unknown does not matter.
        unknown: bool, True where they are to be made; broadcastable to ``known``.
    """
    return lambda x, sigma: torch.where(unknown, denoise(x, sigma), known)


def grid_below(choice: str, sigmas: Tensor, grid: Tensor, sigma: float) -> Tensor:
    """A grid that begins at ``sigma``, for pictures with so much noise; Meng et al. 2021 (SDEdit, arXiv 2108.01073).

    It has as many steps as the whole grid, of the same kind. Levels that were given one by one, ``levels(at=...)``, are
    stretched: between two of them the logarithm runs evenly. A grid of more steps than there are discrete levels left
    is the part of the whole one below ``sigma``.

    Args:
        choice: of the whole grid.
        sigmas: the model's levels, ascending ``[timesteps]``.
        grid: the whole grid, descending.
        sigma: the first level.

    Raises:
        RequestError: ``sigma`` is not between the lowest of the levels and the highest of the grid.
    """
    lowest, highest = float(sigmas[0]), float(grid[0])
    if not lowest < sigma <= highest * (1 + ROUNDING):
        raise RequestError(f"noise: {sigma:g} is not allowed; allowed: more than {lowest:.3g}, up to {highest:.5g}")
    sigma = min(sigma, highest)
    first = grid.new_tensor([sigma])
    levels = torch.cat((sigmas[sigmas < sigma].to(grid), first))
    try:
        made = make_grid(choice, levels, len(grid) - 1)
    except RequestError:  # the whole grid could be made, so this is for want of levels
        return torch.cat((first, grid[grid < sigma]))
    return made if torch.isclose(made[0], first[0]) else _stretched(grid, sigma)


def _stretched(grid: Tensor, sigma: float) -> Tensor:
    """The part of a grid below ``sigma``, with as many steps as the whole one."""
    levels = np.log(grid[:-1].double().numpy(force=True))
    places = np.arange(len(levels))
    first = np.interp(-math.log(sigma), -levels, places)
    if first == places[-1]:  # all of its levels are higher
        return grid.new_tensor([sigma, 0])
    found = np.exp(np.interp(np.linspace(first, places[-1], len(levels)), places, levels))
    found[0] = sigma
    return grid.new_tensor([*found, 0])
