"""A schedule: how noisy each timestep is, as ascending noise-to-signal ratios sigma (x = x0 + sigma * noise).

The literature's variance-preserving coordinates are the same thing divided by sqrt(1 + sigma^2): its cumulative
product of alphas is 1 / (1 + sigma^2).
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from ddm.registry import Registry

schedules = Registry("schedule", given=("timesteps",))


def _from_betas(betas: Tensor) -> Tensor:
    """sigma^2 = (1 - a) / a with a = prod(1 - beta); the sum of logarithms keeps 1 - a exact for tiny betas."""
    return torch.expm1(-torch.log1p(-betas).cumsum(0)).sqrt()


def _betas_of(alphas_cumprod: Tensor, max_beta: float) -> Tensor:
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(0, max_beta)


@schedules.register
def linear(
    timesteps: int, *, first: Annotated[float, Gt(0), Lt(1)] = 1e-4, last: Annotated[float, Gt(0), Lt(1)] = 0.02
) -> Tensor:
    """Betas rise linearly; Ho et al. 2020 (arXiv 2006.11239). Scaled so that any number of timesteps ends alike.

    Args:
        timesteps: how many levels.
        first: beta of the first of 1000 timesteps.
        last: beta of the last of 1000 timesteps.

    Returns:
        float64 ``[timesteps]``, ascending.
    """
    scale = 1000 / timesteps
    return _from_betas(torch.linspace(first * scale, last * scale, timesteps, dtype=torch.float64).clamp(max=0.999))


@schedules.register
def cosine(
    timesteps: int, *, offset: Annotated[float, Ge(0)] = 0.008, max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999
) -> Tensor:
    """Squared cosine of the signal; Nichol & Dhariwal 2021 (arXiv 2102.09672). Returns float64 ``[timesteps]``."""
    t = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    alphas_cumprod = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return _from_betas(_betas_of(alphas_cumprod, max_beta))


@schedules.register
def sigmoid(
    timesteps: int,
    *,
    start: float = -3.0,
    end: float = 3.0,
    tau: Annotated[float, Gt(0)] = 1.0,
    max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999,
) -> Tensor:
    """Sigmoid of the signal; Jabri et al. 2022 (arXiv 2212.11972, figure 8). Returns float64 ``[timesteps]``."""
    t = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    low, high = 1 / (1 + math.exp(-start / tau)), 1 / (1 + math.exp(-end / tau))
    alphas_cumprod = (high - torch.sigmoid((t * (end - start) + start) / tau)) / (high - low)
    return _from_betas(_betas_of(alphas_cumprod, max_beta))


@schedules.register
def lognormal(
    timesteps: int,
    *,
    mean: float = -1.2,
    std: Annotated[float, Gt(0)] = 1.2,
    low: Annotated[float, Gt(0)] = 0.002,
    high: Annotated[float, Gt(0)] = 80.0,
) -> Tensor:
    """Quantiles of log-normal sigmas, cut to [low, high]; the training noise of Karras et al. 2022 (arXiv 2206.00364).

    Args:
        timesteps: how many quantiles; training draws between them too.
        mean: of ln sigma (P_mean).
        std: of ln sigma (P_std).
        low: the smallest sigma, the first level.
        high: the largest sigma, the last level.

    Returns:
        float64 ``[timesteps]``, ascending from low to high.
    """
    normal = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), std)
    bounds = normal.cdf(torch.tensor([low, high], dtype=torch.float64).log())
    quantiles = torch.lerp(bounds[0], bounds[1], torch.linspace(0, 1, timesteps, dtype=torch.float64))
    return normal.icdf(quantiles).exp()


@schedules.register
def flow(timesteps: int, *, shift: Annotated[float, Gt(0)] = 1.0) -> Tensor:
    """Straight paths (1 - t) x0 + t noise, so sigma = t / (1 - t); Lipman et al. 2022 (arXiv 2210.02747).

    ``shift`` > 1 spends more levels on strong noise (Esser et al. 2024, arXiv 2403.03206). The levels are the middles
    of ``timesteps`` equal intervals of t, since sigma is infinite at t = 1. Returns float64 ``[timesteps]``.
    """
    t = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps
    return shift * t / (1 - t)


CONTINUOUS = (lognormal, flow)
"""Schedules of a continuous time, of which the levels are samples: training draws between the levels as well."""
