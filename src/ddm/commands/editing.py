"""What ``ddm sample`` does to pictures and between seeds: the options of a request as one record that does it."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ddm.commands.sources import read_mask, read_pictures
from ddm.diffusion import Step
from ddm.diffusion.editing import spherical
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, editing
from ddm.images import to_float, to_uint8
from ddm.runs.model import Model
from ddm.storage import digest_of_tensors

BETWEEN = 10
"""Pictures between two seeds where the request does not say."""


class Edit(Protocol):
    """What is done instead of starting from noise alone; one entry a picture in all that it holds."""

    groups: int
    """Pictures side by side for one result, itself among them."""

    def stream(
        self, generator: DiffusionGenerator, seeds: Sequence[int], labels: Sequence[int] | None
    ) -> Iterator[Step]:
        """The sampler at work."""
        ...

    def steps(self, generator: DiffusionGenerator) -> int:
        """How many steps that gives."""
        ...

    def start(self, generator: DiffusionGenerator, seeds: Sequence[int]) -> Tensor:
        """What a film begins with, floats ``[n, c, h, w]``."""
        ...

    def shown(self, generator: DiffusionGenerator, seeds: Sequence[int], turn: Tensor | None) -> list[Tensor]:
        """What is shown before each result, uint8 ``[n, c, h, w]``; ``turn`` is x where the way turned downward."""
        ...

    def part(self, numbers: slice) -> "Edit":
        """The same for some of the pictures."""
        ...

    def facts(self) -> dict[str, Any]:
        """For the metadata: all that decides the result; pictures by the SHA-256 of their pixels, never by name."""
        ...


@dataclass(frozen=True)
class FromPictures:
    """Image to image and inpainting.

    Args:
        pictures: uint8 ``[n, c, h, w]``.
        sigma: the noise that is put on them; None begins with noise alone where they are unknown.
        unknown: bool ``[1, h, w]``, True where they are made anew; everywhere by default.
    """

    pictures: Tensor
    sigma: float | None = None
    unknown: Tensor | None = None
    groups = 3

    def stream(
        self, generator: DiffusionGenerator, seeds: Sequence[int], labels: Sequence[int] | None
    ) -> Iterator[Step]:
        """The sampler at work."""
        known = to_float(self.pictures)
        if self.unknown is None:
            assert self.sigma is not None, "an edit without a mask has a noise level"
            return editing.from_pictures(generator, known, self.sigma, seeds, labels)
        return editing.inpaint(generator, known, self.unknown, seeds, labels, sigma=self.sigma)

    def steps(self, generator: DiffusionGenerator) -> int:
        """Those of the grid from the noise level down."""
        return len(editing.grid_from(generator, self.sigma)) - 1

    def start(self, generator: DiffusionGenerator, seeds: Sequence[int]) -> Tensor:
        """The pictures with their noise, which keeps within the range; where all is to be made, the noise alone."""
        known, noise = to_float(self.pictures), generator.noise(seeds)().cpu().float()
        noisy = visible(known + self.sigma * noise, self.sigma) if self.sigma is not None else noise / 2
        return noisy if self.unknown is None else torch.where(self.unknown, noisy, known)

    def shown(self, generator: DiffusionGenerator, seeds: Sequence[int], turn: Tensor | None) -> list[Tensor]:
        """The pictures, and what the model was given of them."""
        return [self.pictures, to_uint8(self.start(generator, seeds))]

    def part(self, numbers: slice) -> "FromPictures":
        """The same for some of the pictures."""
        return replace(self, pictures=self.pictures[numbers])

    def facts(self) -> dict[str, Any]:
        """Noise level, and the digests of pictures and mask."""
        mask = None if self.unknown is None else digest_of(self.unknown)
        return {"way": "from", "noise": self.sigma, "mask": mask, "sources": in_turn(self.pictures)}


@dataclass(frozen=True)
class Inverted:
    """To noise and back.

    Args:
        pictures: uint8 ``[n, c, h, w]``.
        shows: the class of all of them on the way up; None for none.
    """

    pictures: Tensor
    shows: int | None = None
    groups = 3

    def stream(
        self, generator: DiffusionGenerator, seeds: Sequence[int], labels: Sequence[int] | None
    ) -> Iterator[Step]:
        """The way up and the way down."""
        upward = None if self.shows is None else [self.shows] * len(seeds)
        return editing.reconstruct(generator, to_float(self.pictures), seeds, labels, shown=upward)

    def steps(self, generator: DiffusionGenerator) -> int:
        """The levels but one upward, all of them downward."""
        return 2 * len(generator.grid) - 3

    def start(self, generator: DiffusionGenerator, seeds: Sequence[int]) -> Tensor:
        """The pictures themselves."""
        return to_float(self.pictures)

    def shown(self, generator: DiffusionGenerator, seeds: Sequence[int], turn: Tensor | None) -> list[Tensor]:
        """The pictures and their noise."""
        assert turn is not None, "the way was watched"
        top = float(generator.grid[0])
        return [self.pictures, to_uint8(visible(turn.cpu().float(), top))]

    def part(self, numbers: slice) -> "Inverted":
        """The same for some of the pictures."""
        return replace(self, pictures=self.pictures[numbers])

    def facts(self) -> dict[str, Any]:
        """The class upward and the digests of the pictures."""
        return {"way": "invert", "shows": self.shows, "sources": in_turn(self.pictures)}


@dataclass(frozen=True)
class Between:
    """Between two seeds.

    Args:
        first: the seed at share 0.
        last: the seed at share 1.
        shares: one a picture.
    """

    first: int
    last: int
    shares: tuple[float, ...]
    groups = 1

    def stream(
        self, generator: DiffusionGenerator, seeds: Sequence[int], labels: Sequence[int] | None
    ) -> Iterator[Step]:
        """The sampler at work."""
        return editing.between(generator, self.first, self.last, self.shares, labels)

    def steps(self, generator: DiffusionGenerator) -> int:
        """Those of the grid."""
        return len(generator.grid) - 1

    def start(self, generator: DiffusionGenerator, seeds: Sequence[int]) -> Tensor:
        """The noise between those of the seeds."""
        a, b = (generator.noise([seed] * len(self.shares))().cpu().float() for seed in (self.first, self.last))
        return spherical(a, b, torch.tensor(self.shares)) / 2

    def shown(self, generator: DiffusionGenerator, seeds: Sequence[int], turn: Tensor | None) -> list[Tensor]:
        """Nothing: the first and the last are the ends."""
        return []

    def part(self, numbers: slice) -> "Between":
        """The same for some of the pictures."""
        return replace(self, shares=self.shares[numbers])

    def facts(self) -> dict[str, Any]:
        """The seeds and the shares."""
        return {"way": "between", "last": self.last, "shares": list(self.shares)}


def make_edit(model: Model, arguments: argparse.Namespace) -> FromPictures | Inverted | Between | None:
    """What the request wants done; None where pictures are just made.

    Raises:
        RequestError: files that are no pictures, a mask of another size or of nothing, an unknown label, a noise level
            that the model has not, or a sampler that does not lead back.
    """
    generator = model.generator
    if not isinstance(generator, DiffusionGenerator):
        return None
    if "to_seed" in arguments:
        count = getattr(arguments, "count", None) or BETWEEN
        shares = tuple(number / max(1, count - 1) for number in range(count))
        return Between(arguments.seed, arguments.to_seed, shares)
    if "pictures" not in arguments:
        return None
    pictures, files = read_pictures(arguments.pictures, generator.shape, getattr(arguments, "count", None))
    if "invert" in arguments:
        _check_invertible(generator)
        shows = model.labels(arguments.invert or None, 1)
        return Inverted(pictures, None if shows is None else shows[0])
    sigma = getattr(arguments, "noise", None)
    editing.grid_from(generator, sigma)
    unknown = read_mask(arguments.mask, files, generator.shape) if "mask" in arguments else None
    return FromPictures(pictures, sigma, unknown)


def visible(x: Tensor, sigma: float) -> Tensor:
    """Noisy pictures as floats of which most are within [-1, 1]; those with little noise stay as they are."""
    return x / max(1.0, 2 * sigma)


def digest_of(picture: Tensor) -> str:
    """SHA-256 of a picture's or a mask's own pixels, at the model's size: its file and its name do not count."""
    return digest_of_tensors({"pixels": picture})


def in_turn(pictures: Tensor) -> list[str]:
    """The digests of pictures; where they were taken in turn, of each only once."""
    digests = [digest_of(picture) for picture in pictures]
    distinct = list(dict.fromkeys(digests))
    once = all(each == distinct[number % len(distinct)] for number, each in enumerate(digests))
    return distinct if once else digests


def _check_invertible(generator: DiffusionGenerator) -> None:
    if editing.draws_noise(generator):
        raise RequestError(
            f"sampler: {generator.settings()['sampler']!r} is not allowed with --invert, since it draws noise on its "
            "way and does not lead back; allowed: one that draws none, e.g. --sampler heun"
        )
