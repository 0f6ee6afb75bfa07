"""Ancestral sampling as k-diffusion does it, under the name people know it by."""

from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, samplers
from ddm.diffusion.samplers.ddim import ddim


@samplers.register
def euler_ancestral(
    denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise, *, eta: Annotated[float, Ge(0), Le(1)] = 1.0
) -> Iterator[Step]:
    """Euler ancestral; Crowson 2022 (k-diffusion). Stochastic, one evaluation a step.

    An Euler step to a level below the next, then noise up to it: in x = x0 + sigma * noise that is ``ddim(eta=eta)``
    (Song et al. 2020, arXiv 2010.02502) and with ``eta=1``, the default here and in diffusers, ``ddpm``. The name is
    for those who look for it; the last step, to sigma = 0, draws no noise, where diffusers draws some times 0.
    """
    return ddim(denoise, x, grid, noise, eta=eta)
