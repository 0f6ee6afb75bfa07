"""A task: what the network is to learn from a noisy picture, as an error a picture."""

import math
from collections.abc import Callable
from typing import Annotated, Protocol

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from ddm.diffusion.objectives import Objective, Weighting
from ddm.registry import Registry

tasks = Registry("task", given=("diffusion", "x0", "label", "position", "noise", "share"))

Task = Callable[..., Tensor]


class Diffusion(Protocol):
    """What a task uses of :class:`ddm.diffusion.GaussianDiffusion`."""

    model: nn.Module
    sigmas: Tensor
    objective: Objective
    weighting: Weighting

    def sigma_at(self, position: Tensor) -> Tensor: ...
    def timestep(self, sigma: Tensor) -> Tensor: ...
    def guess(self, x0: Tensor, noise: Tensor, sigma: Tensor, position: Tensor, label: Tensor | None) -> Tensor: ...


def wide(device: torch.device) -> torch.dtype:
    """The type in which coefficients and the sampler's state are kept: float64, but Apple's GPUs have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def per_picture(values: Tensor, like: Tensor) -> Tensor:
    """``[b]`` (or a scalar) reshaped to multiply ``[b, c, h, w]``, in the type of ``like``."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1)) if values.ndim else values.to(like.dtype)


@tasks.register
def denoising(
    diffusion: Diffusion, x0: Tensor, label: Tensor | None, position: Tensor, noise: Tensor, share: float
) -> Tensor:
    """The mean of all pictures behind a noisy one: the weighted squared error of the network's output."""
    sigma = diffusion.sigma_at(position)
    scales = diffusion.objective(sigma)
    # The target (x0 - skip * x) / out, sorted by x0 and noise: no small difference of large numbers is ever formed.
    target = per_picture((1 - scales.skip) / scales.out, x0) * x0
    target = target - per_picture(scales.skip * sigma / scales.out, x0) * noise
    x = per_picture(scales.in_, x0) * x0 + per_picture(scales.in_ * sigma, x0) * noise
    output = diffusion.model(x, position.to(x.dtype), label)
    error = (output.to(target.dtype) - target).square().flatten(1).mean(1)
    return error * diffusion.weighting(sigma, scales.out).to(error.dtype)


@tasks.register
def consistency(
    diffusion: Diffusion,
    x0: Tensor,
    label: Tensor | None,
    position: Tensor,
    noise: Tensor,
    share: float,
    *,
    factor: Annotated[float, Gt(1)] = 2.0,
    stages: Annotated[int, Ge(1)] = 8,
    near: Annotated[float, Ge(0)] = 8.0,
    smooth: Annotated[float, Ge(0)] = 0.0,
    even: Annotated[float, Ge(0), Le(1)] = 0.5,
) -> Tensor:
    """The end of the flow through a noisy picture, for the sampler ``consistency``; Geng et al. 2024 (2406.14548).

    The guess at sigma is to be the network's own guess at a lower level r with the same noise. At first r is 0 for most
    sigmas, which is denoising; it comes closer to sigma in ``stages``, each over as many steps:
    ``r = sigma (1 - (1 + near / (1 + e^sigma)) / factor^stage)``. Begin with the weights of a trained model
    (``init``). The error of a picture is its root mean square (not squared: large ones would drown the others) over
    ``sigma - r``; the weighting of the settings is not used.

    ``smooth`` rounds the root's corner at 0, in the units of pixels. ``even`` is the share of sigmas that are drawn
    evenly in log sigma instead of by the schedule: one step starts at the highest, which a schedule for denoising
    hardly ever draws.
    """
    position = partly_even(diffusion, position, even)
    sigma = diffusion.sigma_at(position)
    lower = (sigma * (1 - (1 + near * torch.sigmoid(-sigma)) / factor ** stage_at(share, stages))).clamp(min=0)
    guess = diffusion.guess(x0, noise, sigma, position, label)
    with torch.no_grad():
        levels = diffusion.timestep(lower.clamp(min=float(diffusion.sigmas[0])))
        found = diffusion.guess(x0, noise, lower, levels, label)
        target = torch.where(per_picture(lower, x0) > 0, found, x0)
    error = (guess - target).square().flatten(1).mean(1)
    # The square is divided by a root that is left out of the gradient's way: at 0 the root has none.
    root = (error.detach() + smooth**2).sqrt().clamp(min=torch.finfo(error.dtype).tiny ** 0.5)
    return error / root / (sigma - lower).to(error.dtype)


def partly_even(diffusion: Diffusion, position: Tensor, even: float) -> Tensor:
    """Positions of which a share is spread evenly over log sigma, made of positions that are uniform."""
    last = len(diffusion.sigmas) - 1
    uniform = position / last
    low, high = (float(diffusion.sigmas[end].log()) for end in (0, -1))
    spread = diffusion.timestep((low + (high - low) * (uniform / max(even, 1e-9)).clamp(max=1)).exp())
    rest = last * ((uniform - even) / max(1 - even, 1e-9)).clamp(min=0)
    return torch.where(uniform < even, spread.to(position.dtype), rest)


def stage_at(share: float, stages: int) -> int:
    """1 to ``stages``, for the share of the training that is over, in [0, 1]."""
    return min(stages, 1 + math.floor(share * stages))
