"""The grids that a training left behind, as a film: the same seeds at one step after the other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddm.runs.config import Config
from ddm.runs.inline import Picture, picture, sheet

FRAMES = 20
"""At most; more of them are taken evenly, the first and the last among them."""

SIDE, PIXELS = 6, 200
"""Seeds in a row at most, and pixels of a row where pictures are large (but no fewer than two seeds)."""


@dataclass(frozen=True)
class Frame:
    """The pictures of a step.

    Args:
        step: of the training.
        picture: all its seeds.
        key: whether it is among the three that are shown where nothing moves.
    """

    step: int
    picture: Picture
    key: bool


@dataclass(frozen=True)
class TrainingFilm:
    """The frames that were read.

    Args:
        frames: by step.
        seeds: on each of them, from 0.
        unreadable: files that are no grids of this run's pictures.
    """

    frames: list[Frame]
    seeds: int
    unreadable: int


def read_film(folder: Path, config: Config) -> TrainingFilm:
    """The film of a run's folder ``samples``; without frames where it has none."""
    paths = sorted(path for path in folder.glob("*.png") if path.stem.isdecimal())
    count, side = config.sample.count, config.image_size
    across = min(SIDE, max(2, PIXELS // (side + 1)), int(count**0.5))
    found: dict[int, Tensor] = {}
    for path in evenly(paths, FRAMES):
        pixels = _read(path, count, side)
        if pixels is not None:
            found[int(path.stem)] = sheet(pixels[: across**2], columns=across)
    unreadable = min(len(paths), FRAMES) - len(found)
    keys = {step for step in evenly(sorted(found), 3)}
    words = f"pictures of seeds 0 to {across**2 - 1} at step"
    frames = [Frame(step, picture(each, f"{words} {step:,}"), step in keys) for step, each in sorted(found.items())]
    return TrainingFilm(frames, across**2, unreadable)


def evenly(items: list, count: int) -> list:
    """At most ``count`` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[round(number * (len(items) - 1) / (count - 1))] for number in range(count)]


def cut(pixels: Tensor, count: int, side: int) -> Tensor | None:
    """The pictures of a grid that :func:`ddm.images.grid` laid out, at whatever scale.

    Args:
        pixels: uint8 ``[c, H, W]``.
        count: how many pictures.
        side: of one in pixels.

    Returns:
        uint8 ``[count, c, side, side]``; None where this is no such grid.
    """
    columns = int(np.ceil(np.sqrt(count)))
    rows, cell = -(-count // columns), side + 1
    scale = pixels.shape[2] // (columns * cell + 1)
    if not scale or pixels.shape[1:] != (scale * (rows * cell + 1), scale * (columns * cell + 1)):
        return None
    small = pixels[:, ::scale, ::scale][:, 1:, 1:]
    pieces = small.reshape(-1, rows, cell, columns, cell)[:, :, :side, :, :side]
    return pieces.permute(1, 3, 0, 2, 4).reshape(rows * columns, -1, side, side)[:count]


def _read(path: Path, count: int, side: int) -> Tensor | None:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGBA" if "A" in image.mode else "RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises at a damaged file
        return None
    return cut(pixels.permute(2, 0, 1), count, side)
