"""Randomness as a function of what it is for, so that it depends on no history: resuming needs no generator state."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive(*parts: int | str) -> int:
    """A 63-bit seed from the parts, e.g. ``derive(seed, "noise", step)``; equal parts give equal seeds anywhere."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh torch generator on ``device``, seeded by :func:`derive`."""
    return torch.Generator(device=device).manual_seed(derive(*parts))


def shuffled(total: int) -> Tensor:
    """The numbers 0 to ``total - 1``, int64, always in the same random order."""
    return torch.randperm(total, generator=generator("shuffled", total))


def drawn(total: int, count: int) -> Tensor:
    """At most ``count`` of the numbers 0 to ``total - 1``, int64, ascending: always the same ones.

    Drawn at random, since every n-th of something that takes turns, as classes do, is one of its kinds alone.
    """
    return shuffled(total)[:count].sort().values


class PictureNoise:
    """Standard normal noise for a batch of pictures, each from its own seed.

    A picture's noise depends on its seed and on how often noise was drawn, never on its neighbours, the batch size or
    the device: it is always drawn on the CPU in float32.

    Args:
        seeds: one integer a picture.
        shape: of one picture, ``(channels, height, width)``.
        device: where the noise is wanted.
        dtype: as which type the noise is wanted.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self._generators = [generator(int(seed), "picture") for seed in seeds]
        self._shape = tuple(shape)
        self._device, self._dtype = torch.device(device), dtype

    def __call__(self) -> Tensor:
        """The next draw, ``[len(seeds), *shape]``."""
        drawn = [torch.randn(self._shape, generator=each) for each in self._generators]
        return torch.stack(drawn).to(self._device, self._dtype)
