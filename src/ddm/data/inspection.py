"""What is in a data set and what may be wrong with it; nothing is printed here."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddm.data.imageset import ImageSet
from ddm.data.source import BadPicture

CHUNK = 1024
FLAT = 8
"""A picture whose channels all span fewer levels than this shows next to nothing."""

TINY = 1000
UNEVEN = 10
MANY = 0.01


@dataclass(frozen=True)
class Inspection:
    """What was found in a data set.

    Args:
        name: the choice it was made from.
        digest: of its content.
        count: number of pictures.
        image_size: height and width in pixels.
        channels: 1, 3 or 4.
        classes: pictures in each class, in the order of the labels; empty without labels.
        mean: of each channel in [-1, 1].
        std: of each channel in [-1, 1].
        duplicates: pictures that equal an earlier one, pixel by pixel.
        flat: pictures of nearly one colour.
        gray: pictures of several channels that have no colour.
        bad: pictures that could not be read.
        warnings: sentences on what may spoil a training, with what to do.
    """

    name: str
    digest: str
    count: int
    image_size: tuple[int, int]
    channels: int
    classes: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    duplicates: int
    flat: int
    gray: int
    bad: tuple[BadPicture, ...]
    warnings: tuple[str, ...]


def inspect(data: ImageSet) -> Inspection:
    """Look at every picture of a set once, a thousand at a time."""
    counted = Counter([] if data.labels is None else data.labels.tolist())
    classes = {name: counted[number] for number, name in enumerate(data.classes)}
    histogram = torch.zeros(data.channels, 256, dtype=torch.int64)
    seen: set[bytes] = set()
    flat = gray = 0
    for pixels in _chunks(data):
        for channel in range(data.channels):
            histogram[channel] += torch.bincount(pixels[:, channel].flatten(), minlength=256)
        spans = pixels.flatten(2).amax(-1).int() - pixels.flatten(2).amin(-1).int()
        flat += int((spans.amax(1) < FLAT).sum())
        gray += int((pixels[:, :3] == pixels[:, :1]).flatten(1).all(1).sum()) if data.channels > 1 else 0
        seen.update(hashlib.blake2b(row, digest_size=16).digest() for row in pixels.numpy())
    levels, share = torch.arange(256).double() / 127.5 - 1, histogram.double() / max(histogram[0].sum().item(), 1)
    mean = share @ levels
    std = ((levels - mean[:, None]) ** 2 * share).sum(1).sqrt()
    duplicates = data.count - len(seen)
    return Inspection(
        name=data.name,
        digest=data.digest,
        count=data.count,
        image_size=data.image_size,
        channels=data.channels,
        classes=classes,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        duplicates=duplicates,
        flat=flat,
        gray=gray,
        bad=data.bad,
        warnings=tuple(_warnings(data, classes, duplicates, flat, gray)),
    )


def _chunks(data: ImageSet) -> Iterator[Tensor]:
    for pixels in data.pixels.split(CHUNK):
        yield pixels.cpu().contiguous()


def _warnings(data: ImageSet, classes: dict[str, int], duplicates: int, flat: int, gray: int) -> Iterator[str]:
    if data.count < TINY:
        yield (
            f"Only {data.count} pictures: a network learns so few by heart; compare samples with their nearest "
            "pictures, and expect distances such as FID to mean little."
        )
    if classes and max(classes.values()) > UNEVEN * max(min(classes.values()), 1):
        most, least = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
        yield (
            f"Labels are very uneven: {classes[most]} of {most!r} and {classes[least]} of {least!r}; "
            "rare ones will look worse."
        )
    if duplicates > MANY * data.count:
        yield f"{duplicates} pictures equal an earlier one: they count several times and are learnt by heart first."
    if flat > MANY * data.count:
        yield f"{flat} pictures are of nearly one colour: are they broken or empty?"
    if data.channels > 1 and gray == data.count:
        yield f'All pictures are gray but stored in {data.channels} channels; mode="L" trains faster on one.'
    if data.bad:
        yield f"{len(data.bad)} pictures could not be read and were left out, first {data.bad[0].name}."
