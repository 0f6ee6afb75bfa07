"""Multi-step sampling of consistency models: guess the picture, add fresh noise, guess again."""

from collections.abc import Iterator

from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, samplers


@samplers.register
def consistency(denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Step]:
    """Consistency models' own; Song et al. 2023 (arXiv 2303.01469, algorithm 1). Stochastic, one evaluation a step.

    Only for networks trained to consistency, whose x0 is the end of the flow through x; that of any other is the mean
    of all pictures behind x, and the result is blurred. A grid of one step takes no fresh noise.

    The paper's network is the identity at its lowest level sigma_min, so its x0 still holds that much noise, and
    sqrt(following^2 - sigma_min^2) is added. Our denoisers are the identity at 0, so all of ``following`` is. The
    two are the same once levels are counted from sigma_min: our sigma is their sqrt(sigma^2 - sigma_min^2).
    """
    for sigma, following in zip(grid[:-1], grid[1:]):
        x = x0 = denoise(x, sigma)
        if following > 0:
            x = x + following * noise()
        yield Step(x, x0)
