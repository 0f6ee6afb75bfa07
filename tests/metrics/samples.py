"""Features whose answers are known, and how the spread of a metric over repetitions compares with its interval."""

import torch
from torch import Tensor

from ddm.metrics import Embedded, Measurement

DRAW = torch.float64


def embedded(features: Tensor, **more: Tensor | tuple[str, ...] | None) -> Embedded:
    """Features as a metric gets them; black pictures where it does not matter which."""
    black = torch.zeros(len(features), 3, 4, 4, dtype=torch.uint8)
    return Embedded(features=features, **{"pixels": black, **more})


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, random: torch.Generator) -> Tensor:
    return torch.randn(n, d, generator=random, dtype=DRAW)


def lognormal(n: int, d: int, random: torch.Generator) -> Tensor:
    """Skewed, with heavy tails."""
    return (0.5 * normal(n, d, random)).exp()


def everything(n: int, seed: int, d: int = 6) -> Embedded:
    """A set with all that any metric asks for."""
    random = source(seed)
    return Embedded(
        features=normal(n, d, random).float(),
        pixels=torch.randint(0, 256, (n, 3, 4, 4), generator=random, dtype=torch.uint8),
        logits=normal(n, 5, random).float(),
        labels=torch.arange(n) % 2,
        classes=("cat", "dog"),
    )


def calibration(found: list[Measurement]) -> float:
    """Root mean square of the standard errors that were reported over the spread of the values."""
    errors = torch.tensor([each.error for each in found], dtype=DRAW)
    spread = torch.tensor([each.value for each in found], dtype=DRAW).std()
    return float(errors.square().mean().sqrt() / spread)
