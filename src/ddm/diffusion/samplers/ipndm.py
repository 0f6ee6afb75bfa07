"""Improved PNDM: an Adams-Bashforth method that takes all steps for equally long."""

from collections import deque
from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, direction, samplers

ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Weights of the direction here and of those before it, by how many are known."""


@samplers.register
def ipndm(
    denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise, *, order: Annotated[int, Ge(1), Le(4)] = 4
) -> Iterator[Step]:
    """iPNDM; Liu et al. 2022 (arXiv 2202.09778), Zhang & Chen 2022 (arXiv 2204.13902). One evaluation a step.

    Adams-Bashforth on dx/dsigma with constant coefficients: of order ``order`` on a grid even in sigma, of order 2 at
    most on any other, and good at few steps in spite of it. The first steps are of lower order, as directions become
    known; 1 is ``ddim``. The last step, to sigma = 0, is of order 1: it ends at x0 to the last bit. Diffusers keeps the
    order there. On exact denoisers that mostly changed the error by less than 3 % on the karras grid, whose lowest
    level is near 0 anyway; on ``trailing`` ones of 6 to 20 steps it was now up to 16 times better, now 2.6 times worse.
    """
    known: deque[Tensor] = deque(maxlen=order)
    for sigma, following in zip(grid[:-1], grid[1:]):
        x0 = denoise(x, sigma)
        known.appendleft(direction(x, x0, sigma))
        if following > 0:
            for weight, slope in zip(ADAMS_BASHFORTH[len(known) - 1], known):
                x = x + (following - sigma) * weight * slope
        else:
            x = x0
        yield Step(x, x0)
