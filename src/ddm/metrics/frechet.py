"""The Frechet distance between two sets of features: FID, and FID extrapolated to infinitely many pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddm.metrics.checks import check_features, exact, pieces
from ddm.metrics.intervals import around, jackknife_error, random_groups
from ddm.metrics.measurement import Embedded, Measurement, metrics
from ddm.metrics.remembering import remember

GROUPS = 20
"""Of the jackknife where the covariance is singular."""

PARTS = 12
"""Of the extrapolation: 15 distances, and the square root of the reference."""


@dataclass(frozen=True, eq=False)
class Moments:
    """All the Frechet distance knows of a set of pictures.

    Args:
        count: how many pictures.
        mean: float64 ``[d]``.
        covariance: float64 ``[d, d]``, divided by ``count - 1`` as in all FID tools.
    """

    count: int
    mean: Tensor
    covariance: Tensor


def moments(features: Tensor) -> Moments:
    """Mean and covariance of features ``[n, d]`` of at least 2 pictures, in two passes of float64."""
    mean = torch.stack([piece.sum(0) for piece in pieces(features)]).sum(0) / len(features)
    covariance = mean.new_zeros(len(mean), len(mean))
    for piece in pieces(features):
        centred = piece - mean
        covariance.addmm_(centred.T, centred, alpha=1 / (len(features) - 1))
    return Moments(len(features), mean, covariance)


def merge(parts: Sequence[Moments]) -> Moments:
    """The moments of all pictures of disjoint sets together, exactly."""
    count = sum(part.count for part in parts)
    mean = sum((part.count * part.mean for part in parts), torch.zeros_like(parts[0].mean)) / count
    covariance = torch.zeros_like(parts[0].covariance)
    for part in parts:
        covariance.add_(part.covariance, alpha=(part.count - 1) / (count - 1))
    shifts = torch.stack([(part.mean - mean) * (part.count / (count - 1)) ** 0.5 for part in parts])
    return Moments(count, mean, covariance.addmm_(shifts.T, shifts))


def frechet_distance(a: Moments, b: Moments) -> float:
    """``|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^.5 S2 S1^.5)^.5``; Heusel et al. 2017 (arXiv 1706.08500).

    By eigenvalues of symmetric matrices, which singular covariances do not disturb and which are never complex.
    """
    return _distance(a, _root(a), b)


def bias(a: Moments, b: Moments) -> float:
    """How far above the distance of the distributions that of the samples lies on average, for Gaussian features.

    ``(1/n + 1/m) [tr S + sum_ij li lj (1 + d_ij) / (2 (li + lj))]`` with ``li`` the eigenvalues of the mean covariance
    ``S``: the second order of the distance in the error of means and covariances. It holds where the covariances are
    close and both ``n`` and ``m`` are several times the dimension.
    """
    values = torch.linalg.eigvalsh((a.covariance + b.covariance) / 2).clamp(min=0)
    sums = values[:, None] + values
    pairs = (values[:, None] * values / sums.where(sums > 0, 1.0)).sum()
    return float((values.sum() + pairs / 2 + values.sum() / 4) * (1 / a.count + 1 / b.count))


@metrics.register
def fid(real: Embedded, fake: Embedded) -> Measurement:
    """Frechet distance between Gaussians fitted to the features; Heusel et al. 2017 (arXiv 1706.08500).

    The value is the traditional one, with its bias: the fewer pictures, the larger. The interval is that of the delta
    method, from the influence of each generated picture on the distance: right where the distance is well above its
    bias, up to 1.5 times too wide where it is nearly all bias. With no more pictures than dimensions, where the
    distance has no derivative, it is a jackknife's over 20 groups.

    Raises:
        RequestError: fewer than 2 real or 3 generated pictures.
        DdmError: a feature is not finite.
    """
    check_features(real, fake, fake_least=3)
    a, b = _moments(real), _moments(fake)
    root = _root(a)
    value, biased = _distance(a, root, b), bias(a, b)
    warnings = []
    if b.count > len(b.mean):
        error = _influence_error(fake.features, a, root, b)
    else:
        parts = _parts(fake.features, min(GROUPS, b.count))
        error = jackknife_error(_distances_without(a, root, parts))
        warnings.append(
            f"{b.count} generated pictures in {len(b.mean)} dimensions (n smaller than the dimension: the covariance "
            "is singular): the value is mostly bias, and its interval is a jackknife's, good to a factor of 2"
        )
    if biased > value / 5:
        warnings.append(_say_bias(biased, value))
    details = {**_sizes(a, b), "bias_closed_form": biased}
    return Measurement(value, *around(value, error), details=details, warnings=tuple(warnings))


@metrics.register
def fid_infinity(real: Embedded, fake: Embedded) -> Measurement:
    """Frechet distance extrapolated to infinitely many generated pictures; Chong & Forsyth 2020 (arXiv 1911.07023).

    The bias of the distance falls as 1/n, so a line through the distances of n and of 11/12 n pictures (12 subsets,
    each without another twelfth) meets 1/n = 0 at the value. The paper fits random subsets of many sizes; with sizes
    from n/2 to n such a line was found to spread by a sixth to a third more where there is much bias, and to suffer
    twice as much from its curvature. What is left of that makes the value low: by 6 % of the bias that was removed at
    n = 3 times the dimension, by 2 % at 6 times.

    The interval is that of ``fid``: what the line adds to the spread is less than the delta method exaggerates. Whether
    the bias is linear is seen from ``line_at_half`` beside the distance of n/2 pictures, the last of ``distances``. The
    bias from the finite reference remains; ``bias_of_the_reference`` is its closed form.

    Raises:
        RequestError: fewer than 2 real or 48 generated pictures.
        DdmError: a feature is not finite.
    """
    check_features(real, fake, fake_least=4 * PARTS)
    parts = _parts(fake.features, PARTS)
    a, b = _moments(real), merge(parts)
    root = _root(a)
    halves = [_distance(a, root, merge(half)) for half in (parts[::2], parts[1::2])]
    without = _distances_without(a, root, parts)
    distances = [_distance(a, root, b), float(without.mean()), sum(halves) / 2]
    slope = (distances[1] - distances[0]) * (PARTS - 1) * b.count
    value = distances[0] - slope / b.count
    regular = b.count > len(b.mean)
    error = _influence_error(fake.features, a, root, b) if regular else jackknife_error(without)
    details = {
        **_sizes(a, b),
        "sizes": [b.count, b.count * (PARTS - 1) / PARTS, b.count / 2],
        "distances": distances,
        "line_at_half": value + 2 * slope / b.count,
        "bias_of_the_reference": bias(a, b) * b.count / (a.count + b.count),
    }
    return Measurement(value, *around(value, error), details=details, warnings=_say_few(b))


@remember
def _moments(pictures: Embedded) -> Moments:
    return moments(pictures.features)


def _root(a: Moments) -> Tensor:
    """R ``[d, r]`` with R R' the covariance, r its rank: what rounding leaves of the other eigenvalues is dropped."""
    values, vectors = torch.linalg.eigh(a.covariance)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()


def _distance(a: Moments, root: Tensor, b: Moments) -> float:
    values = torch.linalg.eigvalsh(root.T @ b.covariance @ root).clamp(min=0)  # rounding makes zeros negative
    # Of n pictures only n - 1 eigenvalues are not 0; the square root would blow up what rounding left of the others.
    fidelity = values[max(len(values) - (b.count - 1), 0) :].sqrt().sum()
    squared = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * fidelity
    return max(float(squared), 0.0)  # a distance; rounding may leave -1e-13 of equal sets


def _influence_error(features: Tensor, a: Moments, root: Tensor, b: Moments) -> float:
    """Standard error of the distance over generated pictures, from the influence function.

    ``2 (m2 - m1).(x - m2) + (x - m2)'(I - T)(x - m2)`` up to a constant, with T the linear map that carries the
    generated Gaussian to the real one, which is the derivative of ``2 tr (S1^.5 S2 S1^.5)^.5`` in S2.
    """
    values, vectors = torch.linalg.eigh(root.T @ b.covariance @ root)
    kept = values > values[-1:] * len(values) * torch.finfo(values.dtype).eps
    transport = root @ (vectors[:, kept] * values[kept] ** -0.25)  # T = transport transport'
    influences = []
    for piece in pieces(features):
        centred = piece - b.mean
        quadratic = centred.square().sum(1) - (centred @ transport).square().sum(1)
        influences.append(2 * centred @ (b.mean - a.mean) + quadratic)
    return float(torch.cat(influences).std() / b.count**0.5)


def _parts(features: Tensor, count: int) -> list[Moments]:
    groups = random_groups(features, count)
    return [_moments_of_few(features[groups == group]) for group in range(count)]


def _moments_of_few(features: Tensor) -> Moments:
    if len(features) > 1:
        return moments(features)
    mean = exact(features[0])  # one picture has no spread, but merged with others it counts
    return Moments(1, mean, mean.new_zeros(len(mean), len(mean)))


def _distances_without(a: Moments, root: Tensor, parts: list[Moments]) -> Tensor:
    rest = ([*parts[:number], *parts[number + 1 :]] for number in range(len(parts)))
    return torch.tensor([_distance(a, root, merge(each)) for each in rest], dtype=torch.float64)


def _sizes(a: Moments, b: Moments) -> dict[str, int]:
    return {"n_real": a.count, "n_fake": b.count, "dimension": len(a.mean)}


def _say_bias(biased: float, value: float) -> str:
    if biased >= value:
        return (
            f"the bias from the finite number of pictures (about {biased:.3g}) is as large as the value: "
            "more pictures are needed to tell it from 0"
        )
    return (
        f"about {biased / value:.0%} of the value is bias from the finite number of pictures ({biased:.3g}); "
        "fid_infinity removes the part of it that comes from the generated ones"
    )


def _say_few(b: Moments) -> tuple[str, ...]:
    if b.count >= 3 * len(b.mean):
        return ()
    return (
        f"{b.count} generated pictures in {len(b.mean)} dimensions: with fewer than 3 pictures a dimension the bias "
        "does not fall as 1/n yet, and the extrapolated value is too low",
    )
