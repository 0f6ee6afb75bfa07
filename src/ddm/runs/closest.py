"""The training pictures that are nearest to generated ones, in pixels: a look at whether anything was copied."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddm.data import ImageSet
from ddm.metrics import metrics
from ddm.metrics.nearest import nearest
from ddm.runs.progress import Progress

COPY: float = metrics.options("memorisation")["ratio"].default
"""Below this ratio the metric ``memorisation`` calls a picture a copy."""

SCALE: int = metrics.options("memorisation")["neighbours"].default
"""Nearest pictures whose mean distance is the scale of the ratio."""

SHOWN = 3
"""Neighbours of a picture."""

ENTRIES = 2**24
"""Of a chunk of training pictures as float32: 64 MB."""


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training picture.

    Args:
        number: in the data set.
        pixels: uint8 ``[c, h, w]``, mirrored where it is nearer so.
        mirrored: whether it is.
        levels: distance: the root of the mean squared difference, in levels of 0 to 255.
    """

    number: int
    pixels: Tensor
    mirrored: bool
    levels: float


@dataclass(frozen=True, eq=False)
class Close:
    """A generated picture and its surroundings.

    Args:
        place: among the generated pictures.
        ratio: its distance from the nearest training picture over the mean of the 50 nearest; 0 for a copy.
        neighbours: the nearest first.
    """

    place: int
    ratio: float
    neighbours: list[Neighbour]


def closest(pixels: Tensor, data: ImageSet, *, mirror: bool, count: int) -> Generator[Progress, None, list[Close]]:
    """Those of the pictures that are most suspicious of being copies, the worst first.

    Args:
        pixels: uint8 ``[n, c, h, w]``.
        data: the training pictures, of the same shape.
        mirror: the training saw mirrored pictures, too: they are compared as well.
        count: how many of the pictures.
    """
    ways = [pixels, pixels.flip(-1)] if mirror else [pixels]
    queries = _vectors(torch.cat(ways))
    kept = min(SCALE, data.count)
    squares = torch.empty(len(queries), 0, dtype=torch.float64)
    numbers = torch.empty(len(queries), 0, dtype=torch.int64)
    rows = max(1, ENTRIES // queries.shape[1])
    for start in range(0, data.count, rows):
        yield Progress("neighbours", start, data.count)
        part = _vectors(data.pixels[start : start + rows])
        found = nearest(queries, part, min(kept, len(part)))
        squares, order = torch.cat((squares, found.distances), 1).sort(stable=True)
        numbers = torch.cat((numbers, found.indices + start), 1).gather(1, order)[:, :kept]
        squares = squares[:, :kept]
    yield Progress("neighbours", data.count, data.count)
    levels = (squares / queries.shape[1]).sqrt() * 255
    every = [
        _close(place, levels[place :: len(pixels)], numbers[place :: len(pixels)], data) for place in range(len(pixels))
    ]
    return sorted(every, key=lambda each: each.ratio)[:count]


def _close(place: int, levels: Tensor, numbers: Tensor, data: ImageSet) -> Close:
    """A picture from its nearest training pictures in each way, ``[ways, kept]``: each counts once, as it is nearer."""
    found: dict[int, tuple[float, bool]] = {}
    for level, order in zip(*(each.tolist() for each in levels.flatten().sort(stable=True))):
        way, position = divmod(order, levels.shape[1])
        found.setdefault(int(numbers[way, position]), (level, way == 1))
    nearest_ones = [level for level, _ in found.values()][: levels.shape[1]]
    scale = sum(nearest_ones) / len(nearest_ones)
    ratio = nearest_ones[0] / scale if nearest_ones[0] else 0.0
    return Close(place, ratio, [_neighbour(data, number, *found[number]) for number in list(found)[:SHOWN]])


def _neighbour(data: ImageSet, number: int, levels: float, mirrored: bool) -> Neighbour:
    pixels = data.pixels[number]
    return Neighbour(number, pixels.flip(-1) if mirrored else pixels, mirrored, levels)


def _vectors(pixels: Tensor) -> Tensor:
    """Float32 ``[n, c * h * w]`` in steps of 1/255; the middle is 0, for more digits of the product."""
    return pixels.flatten(1).float().sub_(127.5).div_(255)
