"""A grid: the descending noise levels at which a sampler works, ending in an exact 0."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ddm.errors import RequestError
from ddm.registry import Registry

grids = Registry("grid", given=("sigmas", "steps"))


def make_grid(choice: str, sigmas: Tensor, steps: int) -> Tensor:
    """The grid of a choice such as ``"karras(rho=7)"``.

    Args:
        choice: name and options.
        sigmas: the model's levels, ascending ``[timesteps]``.
        steps: sampler steps, at least 1.

    Returns:
        float64 ``[steps + 1]`` on the CPU, strictly descending, the last exactly 0.

    Raises:
        RequestError: unknown choice, or a number of steps it cannot make.
    """
    if steps < 1:
        raise RequestError(f"sample.steps: {steps} is not allowed; allowed: 1 or more")
    levels = grids.bind(choice, field="sample.grid")(sigmas.double().cpu(), steps)
    grid = torch.cat((levels, levels.new_zeros(1)))
    if not (grid.diff() < 0).all():
        raise RequestError(f"sample.grid: {choice!r} does not descend between {sigmas[-1]:.3g} and {sigmas[0]:.3g}")
    return grid


def check_discrete(name: str, sigmas: Tensor, steps: int) -> None:
    """Raise :class:`RequestError` where a grid of whole timesteps would visit one twice."""
    if steps > len(sigmas):
        raise RequestError(f"sample.steps: {steps} is not allowed with the {name} grid; allowed: 1 to {len(sigmas)}")


@grids.register
def trailing(sigmas: Tensor, steps: int) -> Tensor:
    """Every (timesteps / steps)-th level counted from the last; Lin et al. 2023 (arXiv 2305.08891, table 2).

    Raises:
        RequestError: more steps than the schedule has levels.
    """
    check_discrete("trailing", sigmas, steps)
    positions = torch.arange(steps, dtype=torch.float64) * (-len(sigmas) / steps) + len(sigmas)
    return sigmas[positions.round().long() - 1]


@grids.register
def linspace(sigmas: Tensor, steps: int) -> Tensor:
    """Even in the timestep, from the last level to the first, both included; Nichol & Dhariwal 2021 (arXiv 2102.09672).

    Raises:
        RequestError: more steps than the schedule has levels.
    """
    check_discrete("linspace", sigmas, steps)
    return sigmas[torch.linspace(len(sigmas) - 1, 0, steps, dtype=torch.float64).round().long()]


@grids.register
def leading(sigmas: Tensor, steps: int) -> Tensor:
    """Every (timesteps / steps)-th level counted from the first, as DDPM's and DDIM's own code did.

    Only to repeat numbers of others: it starts below the highest level, where the start is not yet all noise (Lin et
    al. 2023, arXiv 2305.08891).

    Raises:
        RequestError: more steps than the schedule has levels.
    """
    check_discrete("leading", sigmas, steps)
    return sigmas[torch.arange(steps).flip(0) * (len(sigmas) // steps)]


@grids.register
def karras(
    sigmas: Tensor,
    steps: int,
    *,
    rho: Annotated[float, Ge(0.1)] = 7.0,
    low: Annotated[float, Gt(0)] = 0.002,
    high: Annotated[float, Gt(0)] = 80.0,
) -> Tensor:
    """Even in sigma^(1/rho) from ``high`` to ``low``; Karras et al. 2022 (arXiv 2206.00364, equation 5).

    ``low`` and ``high`` are kept within the levels the network was trained on.
    """
    top, bottom = min(high, float(sigmas[-1])), max(low, float(sigmas[0]))
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return (top ** (1 / rho) + ramp * (bottom ** (1 / rho) - top ** (1 / rho))) ** rho


@grids.register
def log_snr(
    sigmas: Tensor,
    steps: int,
    *,
    low: Annotated[float, Gt(0)] = 0.002,
    high: Annotated[float, Gt(0)] = 80.0,
) -> Tensor:
    """Even in log(sigma), i.e. in the signal-to-noise ratio; Lu et al. 2022 (arXiv 2206.00927, section 3.4).

    ``low`` and ``high`` are kept within the levels the network was trained on.
    """
    top, bottom = min(high, float(sigmas[-1])), max(low, float(sigmas[0]))
    return torch.linspace(math.log(top), math.log(bottom), steps, dtype=torch.float64).exp()


@grids.register
def levels(sigmas: Tensor, steps: int, *, at: tuple[Annotated[float, Gt(0)], ...]) -> Tensor:
    """The noise levels themselves, e.g. ``levels(at=(80, 11, 3.9, 1.6, 0.57, 0.17))``; the 0 at the end is added.

    Raises:
        RequestError: another number of steps than levels.
    """
    if steps != len(at):
        raise RequestError(f"sample.steps: {steps} is not allowed with a grid of {len(at)} levels; allowed: {len(at)}")
    return torch.tensor(at, dtype=torch.float64)


@grids.register
def searched(sigmas: Tensor, steps: int) -> Tensor:
    """Found on the model's own trajectories and kept in its run; Chen et al. 2024 (GITS, arXiv 2405.11326).

    It becomes ``levels(at=...)`` where a run is loaded, as by ``ddm sample RUN --grid searched``
    (:mod:`ddm.runs.searched`).

    Raises:
        RequestError: always, since here no model is known.
    """
    raise RequestError(
        "sample.grid: searched is not allowed here, it needs the trained model of a run; allowed: "
        "--grid searched once it is trained, and here karras, log_snr, trailing or levels(at=(80, ...))"
    )
