"""UniPC: DPM-Solver++'s multistep predictor with a corrector that costs no evaluation of its own."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import Noise, Step, samplers
from ddm.diffusion.samplers.multistep import Known, decaying_moments, integrate

Variant = Literal["bh1", "bh2"]


def _move(x: Tensor, known: Sequence[Known], sigma: Tensor, following: Tensor, variant: Variant) -> Tensor:
    kept = following / sigma
    moments = decaying_moments(kept, len(known))
    if variant == "bh1" and len(known) == 2:
        moments = torch.stack((moments[0], -kept.log() / 2))
    return integrate(kept * x, known, sigma, following, moments)


@samplers.register
def unipc(
    denoise: Denoise,
    x: Tensor,
    grid: Tensor,
    noise: Noise,
    *,
    order: Annotated[int, Ge(1), Le(3)] = 3,
    variant: Variant = "bh2",
) -> Iterator[Step]:
    """UniPC; Zhao et al. 2023 (arXiv 2302.04867), predicting x0. Order ``order`` + 1, one evaluation a step.

    x0 at the predicted point first corrects that point and then serves the next prediction; x0 is not evaluated again
    where the correction leads. The first steps are of lower order, as values become known, and the last, to sigma = 0,
    is of order 1: x0 is the picture. Diffusers lowers the steps before it too, whatever their number. On exact
    denoisers that gained 1 % (bh2) or lost 11 % (bh1) on average, and a grid that ends above 0 would lose the order.

    Args:
        denoise: the model.
        x: starting noise, standard deviation ``grid[0]``.
        grid: descending sigmas ``[steps + 1]``.
        noise: not used.
        order: of the predictor.
        variant: the paper's B(h): ``bh1`` is h, ``bh2`` is exp(h) - 1. It matters only where a step knows two values of
            x0 (a predictor of order 2, a corrector of order 1); with more, their weights follow from the order alone.
    """
    known: deque[Known] = deque(maxlen=order)
    corrected = x
    for sigma, following in zip(grid[:-1], grid[1:]):
        x0 = denoise(x, sigma)
        here = Known(sigma, x0)
        if known:
            corrected = _move(corrected, [here, *known], known[0].sigma, sigma, variant)
        known.appendleft(here)
        x = _move(corrected, list(known) if following > 0 else [here], sigma, following, variant)
        yield Step(x, x0)
