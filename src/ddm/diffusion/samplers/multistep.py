"""What multistep samplers share: values known at earlier levels, and the integral of the polynomial through them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """A picture that was evaluated at a noise level: x0, or the direction."""

    sigma: Tensor
    value: Tensor


def integrate(start: Tensor, known: Sequence[Known], sigma: Tensor, following: Tensor, moments: Tensor) -> Tensor:
    """Add to ``start`` the integral, over one step, of the polynomial in log sigma through all ``known`` values.

    Args:
        start: ``[b, c, h, w]``.
        known: the values it passes through, one a moment.
        sigma: where the step begins; there u = 0.
        following: where it ends; there u = 1, and u is linear in log sigma.
        moments: the integrals of 1, u, u^2, ... on the CPU.
    """
    nodes = torch.stack([(sigma / each.sigma).log() for each in known]) / (sigma / following).log()
    weights = torch.linalg.solve(nodes ** torch.arange(len(known))[:, None], moments)
    for weight, each in zip(weights, known):
        start = start + weight * each.value
    return start


def decaying_moments(kept: Tensor, count: int) -> Tensor:
    """Moments of x0 over a step that keeps ``kept`` of x: x0 counts as exp(h * u), h = -log(kept); ``[count]``.

    Two of them are the mid-point rule of the papers, half of the first for the second, and not the exact integral.
    """
    found = [1 - kept]
    if count == 2:
        return torch.stack((found[0], found[0] / 2))
    for power in range(1, count):
        found.append(1 + power / kept.log() * found[-1])
    return torch.stack(found)
