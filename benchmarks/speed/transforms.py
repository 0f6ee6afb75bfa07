"""What the peers use of torchvision, for machines that have none: the same operations on the same Pillow pictures."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor


class Compose:
    """One after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = transforms

    def __call__(self, picture: Any) -> Any:
        for transform in self.transforms:
            picture = transform(picture)
        return picture


class Lambda:
    """Any function."""

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def __call__(self, picture: Any) -> Any:
        return self.function(picture)


class Resize:
    """To (height, width), bilinear; a picture of that size stays as it is."""

    def __init__(self, size: Sequence[int]):
        self.size = (size[1], size[0])

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture if picture.size == self.size else picture.resize(self.size, Image.Resampling.BILINEAR)


class RandomHorizontalFlip:
    """Mirrors every other picture."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else picture


class CenterCrop:
    """The middle (height, width)."""

    def __init__(self, size: Sequence[int]):
        self.height, self.width = size

    def __call__(self, picture: Image.Image) -> Image.Image:
        left, top = (picture.width - self.width) // 2, (picture.height - self.height) // 2
        return picture.crop((left, top, left + self.width, top + self.height))


class ToTensor:
    """Pillow to float32 ``[c, h, w]`` in [0, 1]."""

    def __call__(self, picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255)


def has_torchvision() -> bool:
    """Whether there is one that fits the torch beside it."""
    try:
        return find_spec("torchvision") is not None and bool(__import__("torchvision.transforms"))
    except (ImportError, RuntimeError, ValueError):
        return False


@contextmanager
def instead_of_torchvision() -> Iterator[None]:
    """While it lasts, ``from torchvision import transforms, utils`` finds the transforms of this file.

    Left in place it would break packages that ask whether there is a torchvision.
    """
    package = ModuleType("torchvision")
    parts = {"transforms": sys.modules[__name__], "utils": ModuleType("torchvision.utils")}
    vars(package).update(parts)
    pretended = {"torchvision": package} | {f"torchvision.{name}": part for name, part in parts.items()}
    sys.modules.update(pretended)
    try:
        yield
    finally:
        for name in pretended:
            del sys.modules[name]
