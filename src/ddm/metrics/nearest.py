"""Nearest neighbours by matrix products, in chunks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddm.metrics.checks import exact

ENTRIES = 2**24
"""Of a chunk of the distance matrix: 128 MB of float64."""

CACHED = 2**19
"""Of a chunk of differences: 4 MB, which a processor's cache holds; three times as fast as chunks that it does not."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest neighbours of some vectors, the nearest first.

    Args:
        distances: squared and Euclidean, float64 ``[n, count]``, from the differences: exactly 0 for a copy.
        indices: where they are, int64 ``[n, count]``.
    """

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, pool: Tensor, count: int, *, among_themselves: bool = False) -> Nearest:
    """The ``count`` vectors of ``pool`` that are nearest to each query.

    A matrix product in the type of the vectors finds them (so pixels may come as float32, at twice the speed, and
    features should be float64), and float64 differences measure them.

    Args:
        queries: ``[n, d]``.
        pool: ``[m, d]``, of the same type.
        count: from 1 to ``m`` (``m - 1`` among themselves).
        among_themselves: ``pool`` is ``queries``, and nothing is its own neighbour.
    """
    rows = max(1, ENTRIES // len(pool))
    norms = pool.square().sum(1)
    distances, indices = [], []
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        # The query's own norm does not change the order.
        rough = torch.addmm(norms, part, pool.T, alpha=-2)
        if among_themselves:
            rough.diagonal(start).fill_(float("inf"))
        candidates = rough.topk(count, largest=False).indices
        measured, order = _measure(part, pool, candidates).sort(stable=True)
        distances.append(measured)
        indices.append(candidates.gather(1, order.to(candidates.device)))
    return Nearest(torch.cat(distances), torch.cat(indices))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """All squared distances of float64 vectors, ``[len(a), len(b)]``, lowered by what rounding may have added.

    So the copy of a neighbour is never further away than the neighbour itself, and a tie counts as inside.
    """
    slack = 1 - 1e-12
    norms = slack * a.square().sum(1)[:, None] + slack * b.square().sum(1)
    return torch.addmm(norms, a, b.T, alpha=-2).clamp_(min=0)


def _measure(queries: Tensor, pool: Tensor, candidates: Tensor) -> Tensor:
    rows = max(1, CACHED // (candidates.shape[1] * pool.shape[1]))
    found = []
    for query, chosen in zip(queries.split(rows), candidates.split(rows)):
        difference = exact(pool[chosen])
        difference -= exact(query)[:, None]
        found.append(difference.square_().sum(2))
    return torch.cat(found)
