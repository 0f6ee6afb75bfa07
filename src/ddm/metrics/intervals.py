"""95 % intervals over other pictures from the same generator, the reference being fixed."""

import torch
from torch import Tensor

from ddm.metrics.checks import pieces
from ddm.seeding import generator

Z = 1.96
"""Standard errors on either side of a normal estimate."""


def around(value: float, error: float) -> tuple[float, float]:
    """Value minus and plus :data:`Z` standard errors; it may leave the metric's range, so that its width stays true."""
    return value - Z * error, value + Z * error


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's interval (1927) for a share of ``count`` independent pictures: it stays in [0, 1], and at 0 % it is
    not empty."""
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * (share * (1 - share) / count + Z**2 / (4 * count**2)) ** 0.5
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def jackknife_error(without: Tensor) -> float:
    """Standard error of an estimate by the delete-a-group jackknife; Shao & Wu 1989.

    Args:
        without: the estimate without each group, ``[groups]``.
    """
    return float(((len(without) - 1) * without.var(correction=0)).sqrt())


def random_groups(features: Tensor, count: int) -> Tensor:
    """Deal pictures into ``count`` groups whose sizes differ by at most one.

    Args:
        features: ``[n, d]``.
        count: from 1 to ``n``.

    Returns:
        The group of each picture, int64 ``[n]`` on the features' device, in ``[0, count)``. The same picture gets the
        same group wherever it stands (equal pictures may change places).
    """
    direction = torch.randn(features.shape[1], generator=generator("groups", "direction"), dtype=torch.float64)
    position = torch.cat([piece @ direction.to(piece.device) for piece in pieces(features)])
    # Sorting makes the order of the pictures irrelevant; the permutation makes the groups random again.
    shuffled = torch.randperm(len(features), generator=generator("groups", "order")) % count
    found = torch.empty(len(features), dtype=torch.int64)
    found[position.cpu().argsort(stable=True)] = shuffled
    return found.to(features.device)
