"""Data whose exact denoiser is known, so that a sampler's error is the sampler's alone."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Every pixel of every picture is N(mean, std^2)."""

    mean: float = 0.3
    std: float = 0.4

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x]: precision-weighted mean of the prior and the observation."""
        return (self.std**2 * x + sigma**2 * self.mean) / (self.std**2 + sigma**2)

    def flow(self, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """The probability flow from sigma ``start`` to ``end``, solved in closed form."""
        ratio = (self.std**2 + end**2) / (self.std**2 + start**2)
        return self.mean + (x - self.mean) * ratio.sqrt()


@dataclass(frozen=True)
class Mixture:
    """Every pixel is one of two narrow Gaussians with equal odds: a denoiser that is far from linear."""

    centres: tuple[float, float] = (-0.6, 0.7)
    std: float = 0.2

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Responsibility-weighted mean of the two exact Gaussian denoisers."""
        variance = self.std**2 + sigma**2
        logits = torch.stack([-((x - centre) ** 2) / (2 * variance) for centre in self.centres])
        guesses = torch.stack([Gaussian(centre, self.std).denoise(x, sigma) for centre in self.centres])
        return (torch.softmax(logits, dim=0) * guesses).sum(0)
