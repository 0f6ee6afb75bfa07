"""Precision and recall, density and coverage: what share of one set lies among the nearest neighbours of the other.

All four need the same three distance matrices. They are gone through once for all (see :mod:`ddm.metrics.remembering`),
in float64, where the matrix product keeps nine digits of the distance even of pictures that are close together.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from ddm.metrics.checks import check_features, exact
from ddm.metrics.intervals import around, jackknife_error, random_groups, wilson
from ddm.metrics.measurement import Embedded, Measurement, metrics
from ddm.metrics.nearest import ENTRIES, Nearest, nearest, squared_distances
from ddm.metrics.remembering import remember
from ddm.seeding import generator

GROUPS = 20
"""Of generated pictures, for the jackknife of recall."""

SPARE = 10
"""Neighbours kept beyond those asked for: without a twentieth of the pictures a neighbour further out takes the place.
That more than 10 of the nearest 13 are in one group has odds of 1e-13."""


@metrics.register
def precision(
    real: Embedded, fake: Embedded, *, k: Annotated[int, Ge(1)] = 3, pictures: Annotated[int, Ge(2)] = 10_000
) -> Measurement:
    """Share of generated pictures within the reach of a real one; Kynkaanniemi et al. 2019 (arXiv 1904.06991).

    The reach of a picture ends at its ``k``-th nearest neighbour among its own kind. At most ``pictures`` of each set
    are used, always the same; the value depends on how many. The interval is Wilson's.

    Raises:
        RequestError: fewer than ``k + 1`` real or ``k + 2`` generated pictures.
        DdmError: a feature is not finite.
    """
    found = _compare(real, fake, k, pictures)
    share = float((found.inside > 0).double().mean())
    return _measurement(found, share, wilson(share, found.n_fake))


@metrics.register
def recall(
    real: Embedded, fake: Embedded, *, k: Annotated[int, Ge(1)] = 3, pictures: Annotated[int, Ge(2)] = 10_000
) -> Measurement:
    """Share of real pictures within the reach of a generated one; Kynkaanniemi et al. 2019 (arXiv 1904.06991).

    As ``precision``, with the sets exchanged. All generated pictures decide about each real one, so the interval is a
    jackknife's, over 20 groups of generated pictures. It is on the safe side: 1.3 to 1.7 times too wide, and 2.5 times
    where nearly everything is recalled.

    Raises:
        RequestError: fewer than ``k + 1`` real or ``k + 2`` generated pictures.
        DdmError: a feature is not finite.
    """
    found = _compare(real, fake, k, pictures)
    share = float(found.recalled) / found.n_real
    return _measurement(found, share, around(share, jackknife_error(found.recalled_without / found.n_real)))


@metrics.register
def density(
    real: Embedded, fake: Embedded, *, k: Annotated[int, Ge(1)] = 5, pictures: Annotated[int, Ge(2)] = 10_000
) -> Measurement:
    """Real pictures in whose reach a generated one lies, on average, over ``k``; Naeem et al. 2020 (arXiv 2002.09797).

    As ``precision``, but real pictures that lie apart count little; may exceed 1. The interval is that of a mean over
    generated pictures.

    Raises:
        RequestError: fewer than ``k + 1`` real or ``k + 2`` generated pictures.
        DdmError: a feature is not finite.
    """
    found = _compare(real, fake, k, pictures)
    each = found.inside.double() / k
    return _measurement(found, float(each.mean()), around(float(each.mean()), float(each.std()) / len(each) ** 0.5))


@metrics.register
def coverage(
    real: Embedded, fake: Embedded, *, k: Annotated[int, Ge(1)] = 5, pictures: Annotated[int, Ge(2)] = 10_000
) -> Measurement:
    """Share of real pictures that have a generated one within their reach; Naeem et al. 2020 (arXiv 2002.09797).

    Unlike ``recall`` it cannot be raised by generated pictures that lie apart. The interval comes from how many real
    pictures are covered by the very same one, two, three or four generated ones (see ``_coverage_variance``).

    Raises:
        RequestError: fewer than ``k + 1`` real or ``k + 2`` generated pictures.
        DdmError: a feature is not finite.
    """
    found = _compare(real, fake, k, pictures)
    share = float(found.covered) / found.n_real
    return _measurement(found, share, around(share, found.coverage_error))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Who lies within whose reach.

    Args:
        n_real: real pictures compared.
        n_fake: generated ones.
        inside: real pictures within whose reach each generated one lies, int64 ``[n_fake]``.
        recalled: real pictures within the reach of a generated one.
        recalled_without: the same without each group of generated pictures, float64 ``[groups]``.
        covered: real pictures with a generated one within their reach.
        coverage_error: standard error of their share.
    """

    n_real: int
    n_fake: int
    inside: Tensor
    recalled: int
    recalled_without: Tensor
    covered: int
    coverage_error: float


def _measurement(found: Comparison, value: float, interval: tuple[float, float]) -> Measurement:
    details = {"n_real": found.n_real, "n_fake": found.n_fake}
    return Measurement(value, *interval, better="higher", details=details)


def _compare(real: Embedded, fake: Embedded, k: int, pictures: int) -> Comparison:
    check_features(real, fake, real_least=k + 1, fake_least=k + 2)
    return _comparison(real, fake, k, pictures)


@remember
def _comparison(real: Embedded, fake: Embedded, k: int, pictures: int) -> Comparison:
    ours, theirs = real.spread(pictures).features, fake.spread(pictures).features
    our_reach = _neighbours(real, pictures, _kept(k)).distances[:, k - 1, None]
    dealt = random_groups(theirs, min(GROUPS, len(theirs)))
    their_reach = _reach(_neighbours(fake, pictures, _kept(k)), dealt, k)
    centre = exact(ours).mean(0)
    ours, theirs = exact(ours) - centre, exact(theirs) - centre
    # Whole numbers below 2^40 add up exactly: equal sums are equal sets.
    marks = torch.randint(2**40, (len(theirs),), generator=generator("marks")).to(theirs)
    inside = torch.zeros(len(theirs), dtype=torch.int64, device=theirs.device)
    recalled, counts, sums = [], [], []
    rows = max(1, ENTRIES // len(theirs))
    for part, reach in zip(ours.split(rows), our_reach.split(rows)):
        distances = squared_distances(part, theirs)
        recalled.append(torch.stack([(distances <= each).any(1).sum() for each in their_reach]))
        within = distances <= reach
        inside += within.sum(0)
        counts.append(within.sum(1))
        sums.append(within.to(marks) @ marks)
    *without, everybody = torch.stack(recalled).sum(0).tolist()
    count = torch.cat(counts)
    error = _coverage_variance(count, torch.cat(sums), len(theirs)) ** 0.5 / len(ours)
    without = torch.tensor(without, dtype=torch.float64)
    return Comparison(len(ours), len(theirs), inside, everybody, without, int((count > 0).sum()), error)


def _coverage_variance(count: Tensor, mark: Tensor, n_fake: int) -> float:
    """Variance, over generated pictures, of the number of real pictures covered.

    For a Poisson number of generated pictures the covariance of two real ones being covered is
    ``P(neither) - P(one not) P(other not)``, whose unbiased estimate is ``(-1)^(s + 1)`` where both are covered by the
    same ``s`` generated pictures, and else 0 (as Good & Toulmin 1956 count unseen species). The signs of large ``s``
    are noise, so they are faded out after Efron & Thisted 1976. What a Poisson number adds itself is taken off again.

    Args:
        count: how many generated pictures cover each real one, int64 ``[n_real]``.
        mark: equal where the same ones do, ``[n_real]``.
        n_fake: of all.
    """
    fading = torch.tensor([0, 15, -11, 5, -1, 0], dtype=torch.float64, device=count.device) / 16
    _, which, alike = torch.unique(mark, return_inverse=True, return_counts=True)
    size = count.new_zeros(len(alike)).scatter_(0, which, count)
    squares = alike.double().square()
    # Each real picture covered once is one that a generated one more or less adds or takes away.
    drift = float((count == 1).sum()) ** 2 / n_fake
    jackknife = float(squares[size == 1].sum()) - drift
    # The jackknife counts what two generated pictures do together twice; with few such sets the estimate is noise.
    return max(float((squares * fading[size.clamp(max=5)]).sum()) - drift, jackknife / 3, 0.0)


def _kept(k: int) -> int:
    return max(k, 5) + SPARE  # the same for the usual k, so that all four metrics share the search


@remember
def _neighbours(pictures: Embedded, limit: int, count: int) -> Nearest:
    features = exact(pictures.spread(limit).features)
    features = features - features.mean(0)
    return nearest(features, features, min(count, len(features) - 1), among_themselves=True)


def _reach(found: Nearest, dealt: Tensor, k: int) -> Tensor:
    """Squared reach of each picture without each group (-1 for the group itself), and with all: ``[groups + 1, n]``."""
    groups = int(dealt.max()) + 1
    rows = []
    for group in range(groups + 1):
        left = dealt[found.indices] != group
        place = (left.cumsum(1) < k).sum(1, keepdim=True).clamp(max=found.distances.shape[1] - 1)
        rows.append(found.distances.gather(1, place)[:, 0].where(dealt != group, -1.0))
    return torch.stack(rows)
