"""Pictures in memory and batches of them, each a pure function of a seed and a number."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ddm.data.source import BadPicture
from ddm.images import to_float
from ddm.seeding import generator

SHARE = 0.4
"""Of the free memory of a GPU that pictures may take by default; the rest is for training."""

SMALL = 2**30
"""Bytes that may go to a device that does not tell its free memory."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pictures of a set; ``x0, label = batch`` unpacks it.

    Args:
        x0: float32 ``[b, c, h, w]`` in [-1, 1].
        label: int64 ``[b]``, or ``None`` where the set has no labels.
        index: int64 ``[b]``, the numbers of the pictures in the set.
    """

    x0: Tensor
    label: Tensor | None
    index: Tensor

    def __iter__(self) -> Iterator[Any]:
        yield self.x0
        yield self.label


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set of square pictures; ``len`` is the number of pictures, iterating gives one epoch of batches.

    Args:
        pixels: uint8 ``[n, c, h, w]``.
        labels: int64 ``[n]`` in [0, len(classes)), or ``None``.
        classes: names of the labels.
        name: the choice it was made from.
        digest: SHA-256 of pixels, labels and classes; the same pictures have the same, whatever file they came from.
        bad: pictures of the source that could not be read and are not here.
        batch_size: pictures in a batch of ``__iter__``.
        mean: of the pixels in [-1, 1], where known.
        std: of the pixels in [-1, 1], where known.
        device: where batches are wanted; set by :meth:`to`.
    """

    pixels: Tensor = field(repr=False)
    labels: Tensor | None = field(default=None, repr=False)
    classes: tuple[str, ...] = ()
    name: str = ""
    digest: str = ""
    bad: tuple[BadPicture, ...] = ()
    batch_size: int = 32
    mean: float | None = None
    std: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def count(self) -> int:
        """Number of pictures."""
        return self.pixels.shape[0]

    @property
    def channels(self) -> int:
        """1 (gray), 3 (RGB) or 4 (RGBA)."""
        return self.pixels.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        """One epoch in a fixed shuffled order, ``batch_size`` pictures at a time, the last batch being what is left."""
        for start in range(0, self.count, self.batch_size):
            yield self._take(_order(self.count, 0, 0, self.pixels.device)[start : start + self.batch_size])

    def ordered(self, size: int) -> Iterator[Tensor]:
        """All pictures in their stored order, never mirrored: uint8 ``[<=size, c, h, w]`` on ``device``."""
        for pixels in self.pixels.split(size):
            yield self._send(pixels)

    def to(self, device: torch.device | str, *, budget_bytes: int | None = None) -> "ImageSet":
        """The same set, giving its batches on ``device``.

        The pictures move there where they fit, so that batches cost no transfer; otherwise they stay memory-mapped.

        Args:
            device: any torch device.
            budget_bytes: what they may take there; 40 % of the free memory of a CUDA device by default.
        """
        device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0", as tensors there call it
        budget = _budget(device) if budget_bytes is None else budget_bytes
        if device.type != "cpu" and self.pixels.nbytes > budget:
            return replace(self, device=device)
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=labels, device=device)

    def batch(
        self, number: int, size: int, *, seed: int, flip: bool = False, part: slice | range | None = None
    ) -> Batch:
        """Batch ``number`` of an endless stream: a function of its arguments alone, whatever was asked before.

        The stream is one permutation of the set after the other, cut into batches of ``size``; a batch may reach
        across the border of two epochs, and nothing is dropped or repeated inside one.

        Args:
            number: of the batch, from 0.
            size: pictures in the batch over all processes.
            seed: of the order and of the mirroring.
            flip: mirror each picture with probability 1/2.
            part: the positions of the batch that this process wants; the parts of all processes put together are
                the batch of one process.

        Returns:
            The pictures of ``part`` on ``device``. Nothing here waits for a CUDA device.
        """
        if number < 0 or size < 1:
            raise ValueError(f"batch number {number} of size {size}; number must be >= 0 and size >= 1")
        rows = part if isinstance(part, slice) else slice(None) if part is None else _slice(part, size)
        mirrored = torch.rand(size, generator=generator(seed, "flip", number))[rows] < 0.5 if flip else None
        return self._take(self._positions(number * size, size, seed)[rows], mirrored)

    def _positions(self, first: int, size: int, seed: int) -> Tensor:
        """The pictures at ``size`` positions of the stream from ``first`` on."""
        pieces, end = [], first + size
        while first < end:
            epoch, start = divmod(first, self.count)
            order = _order(self.count, seed, epoch, self.pixels.device)
            pieces.append(order[start : start + end - first])
            first += len(pieces[-1])
        return torch.cat(pieces)

    def _take(self, index: Tensor, mirrored: Tensor | None = None) -> Batch:
        pixels = self._send(self.pixels[index])
        if mirrored is not None:
            pixels = torch.where(self._send(mirrored)[:, None, None, None], pixels.flip(-1), pixels)
        label = None if self.labels is None else self._send(self.labels[index])
        return Batch(to_float(pixels), label, self._send(index))

    def _send(self, tensor: Tensor) -> Tensor:
        if tensor.device == self.device:
            return tensor
        if (
            self.device.type == "cuda" and tensor.device.type == "cpu"
        ):  # from pageable memory the copy would wait for the device
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """The permutation of an epoch, int64 ``[count]``, kept while it is in use."""
    order = torch.randperm(count, generator=generator(seed, "order", epoch))
    return order.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else order.to(device)


def _slice(rows: range, size: int) -> slice:
    if len(rows) and not (rows.step > 0 and rows[0] >= 0 and rows[-1] < size):
        raise ValueError(f"part {rows} does not lie in a batch of {size}")
    return slice(rows.start, rows.stop, rows.step) if len(rows) else slice(0, 0)


def _budget(device: torch.device) -> int:
    return int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else SMALL
