"""The pictures that everything is trained on: CIFAR-10 where ``DDM_DATA`` names it, else smooth noise like it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ddm.data import ImageSet, get_data
from ddm.images import to_pil
from ddm.seeding import generator


def pictures(count: int, side: int) -> tuple[Tensor, str]:
    """uint8 ``[count, 3, side, side]`` and where they are from."""
    if os.environ.get("DDM_DATA") and side == 32:
        return get_data("cifar10").pixels[:count].clone(), "CIFAR-10"
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=generator("coarse"))
    fine = torch.rand(count, 3, side, side, generator=generator("fine"))
    smooth = F.interpolate(coarse, scale_factor=4.0, mode="bilinear")
    return ((0.9 * smooth + 0.1 * fine) * 255).to(torch.uint8), "smooth noise"


def image_set(count: int, side: int, batch: int) -> ImageSet:
    """The pictures as our Trainer takes them."""
    return ImageSet(pictures(count, side)[0], batch_size=batch)


@contextmanager
def folder(count: int, side: int) -> Iterator[Path]:
    """A folder with the same pictures as PNG files, as other people's trainers take them; gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="throughput-"))
    try:
        for number, pixels in enumerate(pictures(count, side)[0]):
            to_pil(pixels).save(path / f"{number:05d}.png")
        yield path
    finally:
        shutil.rmtree(path)
