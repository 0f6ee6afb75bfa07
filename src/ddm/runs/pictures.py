"""Many pictures of a generator, made by all processes of a team and kept as they are made."""

import functools
import hashlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import ddm
from ddm.generators import Generator as PictureGenerator
from ddm.runs.progress import Progress
from ddm.storage import Damaged, cache_folder, digest_of, read_tensors, trim, write_tensors
from ddm.training import Team

PICTURES_KEPT = 4 * 2**30
"""Bytes of pictures on disk: some 25 sets of 50,000 of 32x32."""


class Kept:
    """Pictures on disk by seed, keyed by everything that decides them: model, settings, code and kind of device.

    Args:
        identity: SHA-256 of the model.
        generator: makes the pictures.
        device: kind of the device it works on, which changes the last digits.
        say: told about damaged files.
    """

    def __init__(self, identity: str, generator: PictureGenerator, device: str, say: Callable[[str], None]):
        key = digest_of(identity, generator.settings(), list(generator.shape), device, code_digest(), torch.__version__)
        self.folder, self._say = cache_folder("pictures") / key[:32], say

    def read(self, seeds: range) -> Tensor | None:
        """The pictures of these seeds if they were kept, uint8 ``[n, c, h, w]``."""
        try:
            found = read_tensors(self._path(seeds))
        except Damaged as damage:
            self._say(f"a kept file is damaged and is made again: {damage}")
            return None
        return None if found is None else found["pixels"]

    def write(self, seeds: range, pixels: Tensor) -> None:
        """Keep them."""
        write_tensors(self._path(seeds), {"pixels": pixels})

    def _path(self, seeds: range) -> Path:
        return self.folder / f"{seeds.start:09d}-{len(seeds)}.safetensors"


def make(
    generator: PictureGenerator, seeds: Sequence[int], *, team: Team, batch: int, kept: Kept | None
) -> Generator[Progress, None, tuple[Tensor, int]]:
    """The pictures of all seeds, uint8 ``[n, c, h, w]`` on the CPU of every process, and how many were made now.

    Args:
        generator: makes them.
        seeds: one a picture; one after the other where they are kept.
        team: each process makes its part of every portion.
        batch: pictures at a time on each.
        kept: where portions are kept as soon as they are made; None keeps nothing.
    """
    portions, made, size = [], 0, batch * team.count
    for start in range(0, len(seeds), size):
        yield Progress("pictures", start, len(seeds))
        portion = seeds[start : start + size]
        pixels = team.agree(kept.read(_range(portion)) if kept and team.rank == 0 else None)
        if pixels is None:
            mine = [portion[number] for number in team.part(len(portion))]
            pixels = team.gather(team.together(partial(generator.generate, mine)), len(portion))
            made += len(portion)
            if kept:
                team.first(partial(kept.write, _range(portion), pixels))
        portions.append(pixels)
    if kept and made and team.rank == 0:
        trim(cache_folder("pictures"), PICTURES_KEPT)
    yield Progress("pictures", len(seeds), len(seeds))
    return torch.cat(portions), made


def _range(seeds: Sequence[int]) -> range:
    found = range(seeds[0], seeds[-1] + 1)
    assert len(found) == len(seeds), "kept pictures are found by their first seed and their number"
    return found


@functools.cache
def code_digest() -> str:
    """SHA-256 of the code that decides a picture, so that a change of a sampler never shows pictures of the old one."""
    root, digest = Path(ddm.__file__).parent, hashlib.sha256()
    for part in ("diffusion", "networks", "generators", "images.py", "seeding.py"):
        files = sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()
