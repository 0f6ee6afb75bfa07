"""A made-up data set that a small network learns in minutes: one vivid shape on a pale ground."""

import colorsys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge
from PIL import Image, ImageDraw

from ddm.data.source import Reading, Source, sources
from ddm.seeding import derive
from ddm.storage import digest_of

VERSION = 1
"""Increase it when any picture changes, so that caches are made anew."""

Outline = np.ndarray
"""Corners of a polygon, ``[k, 2]``: x to the right and y down, within about 1 of the origin."""


def _around(count: int) -> np.ndarray:
    """Angles of a full turn, the first pointing up."""
    return np.linspace(0, 2 * np.pi, count, endpoint=False) - np.pi / 2


def _polar(radius: np.ndarray | float, angle: np.ndarray) -> Outline:
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1)


def _heart() -> Outline:
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack((16 * np.sin(t) ** 3, -y - 2.5), axis=-1) / 15.5


def _moon() -> Outline:
    """A disc less another one of the same size further right."""
    shift = 0.72
    tip = np.arccos(shift / 2)
    outer = np.linspace(tip, 2 * np.pi - tip, 64)
    inner = np.linspace(np.pi + tip, np.pi - tip, 64)
    return np.concatenate((_polar(1.05, outer), _polar(1.05, inner) + np.array((shift * 1.05, 0)))) + np.array((0.3, 0))


def _cross() -> Outline:
    a = 0.34
    return np.array(
        [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    )


SHAPES: dict[str, list[Outline]] = {
    "circle": [_polar(0.95, _around(96))],
    "cross": [_cross()],
    "heart": [_heart()],
    "moon": [_moon()],
    "ring": [_polar(1.0, _around(96)), _polar(0.52, _around(96))],
    "square": [_polar(1.2, _around(4) + np.pi / 4)],
    "star": [_polar(np.tile((1.2, 0.5), 5), _around(10)) + np.array((0, 0.06))],
    "triangle": [_polar(1.2, _around(3)) + np.array((0, 0.2))],
}
"""The outline of each shape, and of its hole where it has one."""


@sources.register
def shapes(*, count: Annotated[int, Ge(1)] = 8192, seed: int = 0) -> Source:
    """Synthetic RGB pictures of eight shapes in vivid colours, made here: no download, easy to learn.

    Each picture has one shape of random hue, size, position and slight rotation on a plain pale ground. Picture ``i``
    has label ``i % 8`` and depends on the seed and ``i`` alone, so that a smaller set is the start of a larger one.

    Args:
        count: number of pictures.
        seed: another seed, other pictures.
    """

    def read(size: int, scratch: Path) -> Reading:
        labels = [index % len(SHAPES) for index in range(count)]
        return Reading(_pictures(count, seed, size), labels, tuple(SHAPES))

    return Source(digest_of("shapes", VERSION, count, seed), read)


def _pictures(count: int, seed: int, size: int) -> Iterator[np.ndarray]:
    outlines = list(SHAPES.values())
    for index in range(count):
        yield draw(outlines[index % len(outlines)], size, np.random.default_rng(derive(seed, "shape", index)))


def draw(outline: list[Outline], size: int, random: np.random.Generator) -> np.ndarray:
    """One picture, uint8 ``[3, size, size]``; everything random is drawn before the size matters."""
    hue, saturation, value, pale_hue, pale, radius, angle, x, y = random.random(9)
    radius, angle = 0.24 + 0.11 * radius, np.deg2rad(15) * (2 * angle - 1)
    margin = 1.2 * radius + 0.04
    centre = margin + (1 - 2 * margin) * np.array((x, y))
    turn = np.array(((np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))))
    cover = _cover([centre + radius * corners @ turn for corners in outline], size)
    ink = _colour(hue, 0.7 + 0.25 * saturation, 0.75 + 0.2 * value)
    ground = _colour(pale_hue, 0.02 + 0.1 * pale, 1.0)
    return np.rint(ground + (ink - ground) * cover).astype(np.uint8)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))[:, None, None]


def _cover(polygons: list[Outline], size: int) -> np.ndarray:
    """How much of each pixel lies inside the first polygon and outside the others, ``[size, size]`` in [0, 1]."""
    fine = 8 if size <= 64 else 4
    mask = Image.new("L", (size * fine, size * fine))
    pen = ImageDraw.Draw(mask)
    for number, corners in enumerate(polygons):
        pen.polygon([tuple(corner) for corner in (corners * size * fine - 0.5).tolist()], fill=0 if number else 255)
    return np.asarray(mask.reduce(fine)) / 255
