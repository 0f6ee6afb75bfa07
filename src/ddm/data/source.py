"""What every source of pictures is: a digest of its content and a way to read it, used where the cache lacks it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from ddm.registry import Registry

sources = Registry("data set")

Share = Annotated[float, Ge(0), Le(1)]
"""A part of the whole, 0 to 1."""


@dataclass(frozen=True)
class BadPicture:
    """A picture that could not be read.

    Args:
        name: the file's name relative to its folder, or ``row 17`` of a table.
        reason: why, in a few words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """The pictures of a source at one size, in their stored order.

    Args:
        pictures: each a uint8 array ``[c, h, w]``, or what was wrong with it.
        labels: the number of its class for each of ``pictures``, the bad ones included; ``None`` without labels.
        classes: names of the labels.
    """

    pictures: Iterable[np.ndarray | BadPicture]
    labels: Sequence[int] | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set that was found but not read yet.

    A source is a function ``(options) -> Source`` registered under its own name. It raises
    :class:`~ddm.errors.RequestError` with what is wrong and what to do; the caller puts the choice in front of it.

    Args:
        digest: of the content and of every option that changes a pixel, a label or their order.
        read: from the side of the square pictures that are wanted, in pixels, and a folder for temporary files (used
            until the last picture was taken) to the pictures.
        max_bad: the share of unreadable pictures above which the set is refused.
    """

    digest: str
    read: Callable[[int, Path], Reading]
    max_bad: float = 0.0
