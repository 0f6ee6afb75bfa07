"""The kernel distance: unbiased at any number of pictures."""

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from ddm.metrics.checks import check_features, exact
from ddm.metrics.intervals import around
from ddm.metrics.measurement import Embedded, Measurement, metrics

ROWS = 512
"""Pictures that are compared with all others at a time."""


@metrics.register
def kid(real: Embedded, fake: Embedded, *, pictures: Annotated[int, Ge(2)] = 10_000) -> Measurement:
    """Squared maximum mean discrepancy, kernel (x.y / d + 1)^3; Binkowski et al. 2018 (arXiv 1801.01401).

    The exact U-statistic over at most ``pictures`` of each set, in place of the paper's mean over random
    subsets: it has no bias, and for good generators it is slightly negative half of the time. The interval is that of
    the U-statistic's Hoeffding decomposition: the influence of each generated picture, and the variance of its pairs.

    Raises:
        RequestError: fewer than 2 pictures of either kind.
        DdmError: a feature is not finite.
    """
    check_features(real, fake)
    value, error = kernel_distance(real.spread(pictures).features, fake.spread(pictures).features)
    details = {"n_real": min(len(real), pictures), "n_fake": min(len(fake), pictures)}
    return Measurement(value, *around(value, error), details=details)


def kernel_distance(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """The distance and its standard error over generated pictures.

    Args:
        real: features ``[m, d]``, m at least 2.
        fake: features ``[n, d]``, n at least 2.
    """
    real, fake = exact(real), exact(fake)
    m, n = len(real), len(fake)
    among_real = sum(float(rows.sum()) for rows in _kernel(real, real, diagonal=False)) / (m * (m - 1))
    cross = torch.cat([rows.sum(1) / m for rows in _kernel(fake, real)])
    sums, squares = [], 0.0
    for rows in _kernel(fake, fake, diagonal=False):
        sums.append(rows.sum(1) / (n - 1))
        squares += float(rows.square().sum()) / (n * (n - 1))
    among = torch.cat(sums)
    value = among_real + float(among.mean()) - 2 * float(cross.mean())
    first = 4 / n * float((among - cross).var())
    pairs = squares - 2 * float(among.square().mean()) + float(among.mean()) ** 2
    # The noise of the row means has put the variance of the pairs into the first term twice.
    variance = max(first - 2 * pairs / n**2, first / 2)
    return value, variance**0.5


def _kernel(a: Tensor, b: Tensor, *, diagonal: bool = True) -> Iterator[Tensor]:
    """The kernel's rows ``[<= ROWS, len(b)]``; without the diagonal, where ``a`` is ``b``, it is 0."""
    start = 0
    for part in a.split(ROWS):
        rows = (part @ b.T).div_(a.shape[1]).add_(1)
        rows = rows * rows * rows
        if not diagonal:
            rows.diagonal(start).zero_()
        start += len(part)
        yield rows
