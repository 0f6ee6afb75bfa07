"""Copies among the generated pictures: of training pictures, and of each other; in pixels, not in features."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from ddm.errors import RequestError
from ddm.metrics.checks import check_counts
from ddm.metrics.intervals import wilson
from ddm.metrics.measurement import Embedded, Measurement, metrics
from ddm.metrics.nearest import Nearest, nearest
from ddm.metrics.remembering import remember
from ddm.seeding import drawn

MOST = 10_000
"""Generated pictures that are looked at."""

SHOWN = 16
"""Of the most suspicious pictures, in the details."""


@metrics.register
def memorisation(
    real: Embedded,
    fake: Embedded,
    *,
    ratio: Annotated[float, Gt(0), Lt(1)] = 0.5,
    neighbours: Annotated[int, Ge(2)] = 50,
) -> Measurement:
    """Share of generated pictures that are copies of training pictures, which ``real`` must be.

    A copy is no further from its nearest training picture than ``ratio`` times the mean distance (of pixels, Euclidean)
    to its 50 nearest ones: the criterion of Carlini et al. 2023 (arXiv 2301.13188, n = 50, 0.5). Against the second
    nearest alone, as in Yoon et al. 2023 ("Diffusion Probabilistic Models Generalize when They Fail to Memorize", ICML
    workshop SPIGM, 1/3), a picture that is twice in the training set would hide its copies.

    All training pictures are searched, and up to 10,000 generated ones. Mirrored, shifted or recoloured copies are not
    found. Pictures of the test set give the share to expect of a generator that copies nothing: of CIFAR-10's 1.4 % are
    flagged, nearly all of which are true near-duplicates (that set is known to hold 3 %, most of them changed more;
    Barz & Denzler 2019, arXiv 1902.00423). The interval is Wilson's. ``details["nearest"]``: ``[generated picture,
    training picture, ratio]`` of the 16 most suspicious.

    Raises:
        RequestError: fewer than ``neighbours`` training pictures, no generated ones, or pictures of two shapes.
    """
    ratios, found = _ratios(real, fake, neighbours)
    return _share(ratios[:, 0], found.indices[:, 0], ratio, len(fake), len(ratios))


@metrics.register
def duplicates(
    real: Embedded,
    fake: Embedded,
    *,
    ratio: Annotated[float, Gt(0), Lt(1)] = 0.5,
    neighbours: Annotated[int, Ge(2)] = 50,
) -> Measurement:
    """Share of generated pictures with a near-copy among the others: mode collapse.

    The criterion of ``memorisation``, with the nearest other generated picture in place of the nearest training
    picture. The scale is still the mean distance to the 50 nearest training pictures: among the generated ones alone a
    generator that makes ten pictures over and over would have no larger distance to compare with.

    The share grows with the number of pictures, of which up to 10,000 are looked at. The interval is Wilson's for half
    as many, since copies come at least in pairs. ``details["nearest"]``: ``[generated picture, its near-copy, ratio]``.

    Raises:
        RequestError: as for ``memorisation``; fewer than 2 generated pictures.
    """
    check_counts(real, fake, real_least=neighbours, fake_least=2)
    _, found = _ratios(real, fake, neighbours)
    pixels = _vectors(fake.spread(MOST))
    twins = nearest(pixels, pixels, 1, among_themselves=True)
    ratios = _over(twins.distances[:, 0].sqrt(), found.distances.sqrt().mean(1))
    where = _original(twins.indices[:, 0], len(fake), len(ratios))
    return _share(ratios, where, ratio, len(fake), len(ratios) / 2)


def _ratios(real: Embedded, fake: Embedded, neighbours: int) -> tuple[Tensor, Nearest]:
    """Distances to the nearest training pictures over their mean, ``[n, neighbours]``, and the neighbours."""
    check_counts(real, fake, real_least=neighbours, fake_least=1)
    shapes = [tuple(pictures.pixels.shape[1:]) for pictures in (real, fake)]
    if shapes[0] != shapes[1]:
        raise RequestError(f"generated pictures: shape {shapes[1]}; allowed: {shapes[0]}, as of the training pictures")
    found = _neighbours(real, fake, neighbours)
    distances = found.distances.sqrt()
    return _over(distances, distances.mean(1, keepdim=True)), found


@remember
def _neighbours(real: Embedded, fake: Embedded, count: int) -> Nearest:
    return nearest(_vectors(fake.spread(MOST)), _vectors(real), count)


def _vectors(pictures: Embedded) -> Tensor:
    """Pixels as float32 ``[n, c * h * w]`` in steps of 1/255; their middle is 0, for more digits of the product."""
    return pictures.pixels.flatten(1).float().sub_(127.5).div_(255)


def _over(distance: Tensor, scale: Tensor) -> Tensor:
    """The ratio; 0 for a copy even where everything is a copy and the scale is 0."""
    return torch.where(distance > 0, distance / scale, 0.0)


def _original(position: Tensor, count: int, taken: int) -> Tensor:
    """Where the pictures that :meth:`Embedded.spread` took stand among all."""
    return drawn(count, taken).to(position.device)[position]


def _share(ratios: Tensor, neighbour: Tensor, ratio: float, n_fake: int, independent: float) -> Measurement:
    taken = len(ratios)
    share = float((ratios <= ratio).double().mean())
    worst = ratios.argsort(stable=True)[:SHOWN]
    numbers = _original(worst, n_fake, taken).tolist()
    details = {
        "n_fake": taken,
        "nearest": [list(each) for each in zip(numbers, neighbour[worst].tolist(), ratios[worst].tolist())],
    }
    return Measurement(share, *wilson(share, independent), details=details)
