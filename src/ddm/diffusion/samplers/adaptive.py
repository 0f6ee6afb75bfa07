"""A solver that finds its own steps: each picture takes as many as its error asks for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, samplers
from ddm.diffusion.tasks import per_picture
from ddm.errors import DdmError

FIRST = 0.1
"""The first step, as a share of the whole way in log sigma."""
CAUTION, SHORTEST, LONGEST = 0.9, 0.2, 2.0
"""The next step is made for this share of what would be just allowed, and changes by these factors at most. Growth by 5
instead of 2 let the first long steps jump where the flow bends, unseen by the estimate: up to 8 times the error."""
ADVICE = "the sampling or the training went wrong; try --clip static, less guidance or an earlier checkpoint"


@dataclass(frozen=True)
class _Trial:
    x: Tensor
    x0: Tensor
    error: Tensor  # like x


@samplers.register
def adaptive(
    denoise: Denoise,
    x: Tensor,
    grid: Tensor,
    noise: Noise,
    *,
    tolerance: Annotated[float, Gt(0)] = 0.01,
    iterations: Annotated[int, Ge(1)] = 1000,
) -> Iterator[Step]:
    """Adaptive DPM-Solver-23; Lu et al. 2022 (arXiv 2206.00927, appendix C). Order 3, three evaluations an iteration.

    As DPM-Solver++(3S) (arXiv 2211.01095): x0 is a polynomial in log sigma and its integral exact. Then no step is
    limited by the size of x, which follows sigma, but only by how fast x0 changes. On exact denoisers Bogacki-Shampine
    3(2), in sigma (as Song et al. 2020, arXiv 2011.13456, use Runge-Kutta), its powers or its logarithm, and Heun 2(1)
    in sigma (as Jolicoeur-Martineau et al. 2021, arXiv 2105.14080, use it) took more evaluations for the same error.

    A picture accepts or rejects its own steps and is at its own level: ``denoise`` is given sigma ``[b]``. It never
    depends on its neighbours, but all are evaluated until the last is done. Only the first level of the grid counts and
    its lowest above 0; from there the step to 0 is of order 1 and costs nothing, as x0 is known. One iteration waits
    once for the device; it yields one :class:`Step`, as often as not of pictures at different levels.

    Args:
        denoise: the model.
        x: starting noise, standard deviation ``grid[0]``.
        grid: descending sigmas; those between the first and the lowest are ignored.
        noise: not used.
        tolerance: error allowed in a step, root mean square over the picture, in units of x at sigma 0, i.e. of pixels
            in [-1, 1]; times sqrt(1 + sigma^2) elsewhere, since the flow shrinks errors as it shrinks x. The
            finished picture's is mostly smaller, and larger where the flow parts. 0.01 takes about 40 evaluations,
            0.001 about 75.
        iterations: at most.

    Raises:
        DdmError: a picture is not finite, or not done after so many iterations.
    """
    lowest = grid[-1] if grid[-1] > 0 else grid[-2]
    sigma = grid[0].to(x).expand(len(x))
    x0 = denoise(x, sigma)
    if lowest < grid[0]:
        for step in _descend(denoise, x, x0, sigma, lowest.to(x).expand(len(x)), tolerance, iterations):
            x0 = step.x0
            yield step
    if grid[-1] == 0:
        yield Step(x0, x0)


def _descend(
    denoise: Denoise, x: Tensor, x0: Tensor, sigma: Tensor, end: Tensor, tolerance: float, iterations: int
) -> Iterator[Step]:
    stride = FIRST * (sigma / end).log()
    for _ in range(iterations):
        under_way = sigma > end
        following = torch.where(stride < (sigma / end).log(), sigma * (-stride).exp(), end)
        trial = _try(denoise, x, x0, sigma, following)
        error = trial.error.square().flatten(1).mean(1).sqrt() / (tolerance * (1 + following**2).sqrt())
        finite = error.isfinite() & trial.x0.isfinite().flatten(1).all(1)
        accepted = under_way & (error <= 1)
        stride = (sigma / following).log() * (CAUTION * error ** (-1 / 3)).clamp(SHORTEST, LONGEST)
        sigma = torch.where(accepted, following, sigma)
        whole = accepted.reshape(-1, 1, 1, 1)
        x, x0 = torch.where(whole, trial.x, x), torch.where(whole, trial.x0, x0)
        broken, more = torch.stack(((under_way & ~finite).any(), (sigma > end).any())).tolist()
        if broken:
            number = int((under_way & ~finite).nonzero()[0])
            raise DdmError(
                f"adaptive: picture {number} of the batch is not finite near sigma {sigma[number]:.3g}; {ADVICE}"
            )
        yield Step(x, x0)
        if not more:
            return
    raise DdmError(
        f"adaptive: {int((sigma > end).sum())} of {len(x)} pictures are not done after {iterations} iterations, one is "
        f"still at sigma {sigma.max():.3g}; raise tolerance ({tolerance:g}) or iterations"
    )


def _try(denoise: Denoise, x: Tensor, x0: Tensor, sigma: Tensor, following: Tensor) -> _Trial:
    """One step of third order for every picture, and how far one of second order would have been from it."""

    def moved(to: Tensor, change: Tensor | float = 0.0) -> Tensor:
        kept = per_picture(to / sigma, x)
        return kept * x + (1 - kept) * x0 + change

    def weight(to: Tensor) -> Tensor:
        """Of a change of x0 that grows linearly over the whole way to ``to``."""
        # A picture that is done goes nowhere: it is evaluated where it is, and the clamp keeps 0 / 0 from it.
        length = (sigma / to).log().clamp(min=torch.finfo(x.dtype).tiny)
        return per_picture(1 - (1 - to / sigma) / length, x)

    third, two_thirds = (sigma * (following / sigma) ** share for share in (1 / 3, 2 / 3))
    first = denoise(moved(third), third) - x0
    second = denoise(moved(two_thirds, 2 * weight(two_thirds) * first), two_thirds) - x0
    change = 3 / 2 * weight(following) * second
    reached = moved(following, change)
    of_second_order = 3 / 2 * per_picture(1 - following / sigma, x) * first
    return _Trial(reached, denoise(reached, following), change - of_second_order)
