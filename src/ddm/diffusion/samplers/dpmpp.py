"""DPM-Solver++: multistep solvers that predict x0 linearly in the logarithm of sigma, which they integrate exactly."""

from collections.abc import Iterator

from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, samplers


@samplers.register
def dpmpp_2m(denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Step]:
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
