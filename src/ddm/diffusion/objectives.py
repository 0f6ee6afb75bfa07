"""An objective: what the network's output means. A weighting: how much each noise level counts.

With ``x = x0 + sigma * noise`` every objective is three functions of sigma,

    x0 = skip * x + out * network(in_ * x, t)

so noise prediction, velocity, EDM's preconditioning, ... are rows of one table and nothing ever branches on them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from ddm.registry import Registry

objectives = Registry("objective", given=("sigma",))
weightings = Registry("weighting", given=("sigma", "out"))


@dataclass(frozen=True)
class Scales:
    """The three coefficients at given sigmas; each of sigma's shape and dtype."""

    skip: Tensor
    out: Tensor
    in_: Tensor


Objective = Callable[[Tensor], Scales]
Weighting = Callable[[Tensor, Tensor], Tensor]


@objectives.register
def eps(sigma: Tensor) -> Scales:
    """The noise itself; Ho et al. 2020 (arXiv 2006.11239)."""
    return Scales(torch.ones_like(sigma), -sigma, (1 + sigma**2).rsqrt())


@objectives.register
def x0(sigma: Tensor) -> Scales:
    """The clean picture."""
    return Scales(torch.zeros_like(sigma), torch.ones_like(sigma), (1 + sigma**2).rsqrt())


@objectives.register
def v(sigma: Tensor) -> Scales:
    """v = alpha noise - sqrt(1 - alpha^2) x0; Salimans & Ho 2022 (arXiv 2202.00512)."""
    in_ = (1 + sigma**2).rsqrt()
    return Scales(in_**2, -sigma * in_, in_)


@objectives.register
def velocity(sigma: Tensor) -> Scales:
    """noise - x0 along a straight path; Lipman et al. 2022 (arXiv 2210.02747)."""
    in_ = 1 / (1 + sigma)
    return Scales(in_, -sigma * in_, in_)


@objectives.register
def edm(sigma: Tensor, *, sigma_data: Annotated[float, Gt(0)] = 0.5) -> Scales:
    """Unit-variance inputs and targets; Karras et al. 2022 (arXiv 2206.00364, table 1).

    ``sigma_data`` is the standard deviation of the pictures' pixels in [-1, 1].
    """
    in_ = (sigma**2 + sigma_data**2).rsqrt()
    return Scales((sigma_data * in_) ** 2, sigma * sigma_data * in_, in_)


# A weighting multiplies the squared error of the network's own output. The error of x0 is `out` times that, so a weight
# that a paper gives for the error of x0 is written here as that weight times out^2: right for every objective at once.


@weightings.register
def one(sigma: Tensor, out: Tensor) -> Tensor:
    """Plain squared error of the network's output (L_simple with eps)."""
    return torch.ones_like(sigma)


@weightings.register
def snr(sigma: Tensor, out: Tensor) -> Tensor:
    """The error of the noise, whatever the network predicts: 1 for eps, SNR for x0, SNR / (SNR + 1) for v."""
    return (out / sigma) ** 2


@weightings.register
def min_snr(sigma: Tensor, out: Tensor, *, gamma: Annotated[float, Gt(0)] = 5.0) -> Tensor:
    """min(SNR, gamma) on the error of x0; Hang et al. 2023 (arXiv 2303.09556). SNR is 1 / sigma^2."""
    return (1 / sigma**2).clamp(max=gamma) * out**2


@weightings.register
def edm_lambda(sigma: Tensor, out: Tensor, *, sigma_data: Annotated[float, Gt(0)] = 0.5) -> Tensor:
    """(sigma^2 + s^2) / (sigma s)^2 on the error of x0; Karras et al. 2022. Exactly 1 with the edm objective."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2 * out**2
