"""What the Learn tab shows of one picture: how noise takes it away, and what a network can be asked to find in it."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddm.commands.studio.uploads import check_header, decoded, picture_from
from ddm.data.shapes import SHAPES, draw
from ddm.diffusion import objectives, schedules
from ddm.errors import RequestError, unknown
from ddm.images import to_float, to_uint8
from ddm.seeding import generator

TIMESTEPS = 1000
"""Of every schedule: those of the paper."""

SIDE = 32
"""Pixels of a built-in picture."""

LARGEST = 64
"""Pixels of a side that are shown; larger pictures are resized."""

TARGETS = ("eps", "x0", "v")
"""What networks are asked for in the papers."""


def shape(name: str) -> Tensor:
    """A built-in picture, uint8 ``[3, 32, 32]``; raises :class:`RequestError` for one that there is not."""
    if not isinstance(name, str) or name not in SHAPES:
        raise unknown("shape", name, SHAPES)
    return torch.from_numpy(draw(SHAPES[name], SIDE, np.random.default_rng(list(SHAPES).index(name))))


def picture_of(text: str, *, most_bytes: int, most_pixels: int) -> Tensor:
    """A picture from a page.

    Args:
        text: the name of a built-in shape, or a PNG, JPEG or WebP file in base64.
        most_bytes: of a file.
        most_pixels: of a file.

    Returns:
        uint8 ``[3, side, side]``.

    Raises:
        RequestError: neither, or too large.
    """
    if isinstance(text, str) and len(text) < 20 and not text.startswith("data:"):
        return shape(text)
    data = decoded(text, most_bytes)
    check_header(data, most_pixels)
    with Image.open(io.BytesIO(data)) as image:
        side = min(LARGEST, *image.size)
    return picture_from(text, (3, side, side), most_bytes=most_bytes, most_pixels=most_pixels)


@functools.lru_cache(maxsize=64)
def levels(schedule: str) -> Tensor:
    """The noise levels of a choice such as ``cosine(offset=0.01)``: float64 ``[1000]``, ascending.

    Raises:
        RequestError: an unknown choice, or one whose levels do not ascend.
    """
    found = schedules.bind(schedule)(TIMESTEPS)
    if not (found.diff() > 0).all() or not found.isfinite().all() or not found[0] > 0:
        raise RequestError(f"schedule: {schedule!r} is not allowed; its noise levels do not ascend")
    return found


def nearby(schedule: str) -> dict[str, Tensor]:
    """The levels of all schedules by name, and of the chosen one where it has options."""
    return {name: levels(name) for name in dict.fromkeys((*schedules, schedule))}


@dataclass(frozen=True)
class Share:
    """How a target is put together: ``picture * x0 + noise * eps``, at one or many levels."""

    picture: Tensor
    noise: Tensor


def share(objective: str, sigma: Tensor) -> Share:
    """What the network has to answer for an objective of the registry."""
    scales = objectives[objective](sigma)
    return Share((1 - scales.skip) / scales.out, -scales.skip * sigma / scales.out)


def carried(objective: str, sigma: Tensor) -> Tensor:
    """How large an error of x0 becomes of an error of 1 in the network's answer."""
    return objectives[objective](sigma).out.abs()


@dataclass(frozen=True, eq=False)
class Moment:
    """A picture at a timestep.

    Args:
        x0: float64 ``[c, h, w]`` in [-1, 1].
        noise: standard normal, as large.
        schedule: a choice.
        timestep: 1 to 1000.
    """

    x0: Tensor
    noise: Tensor
    schedule: str
    timestep: int

    @classmethod
    def of(cls, pixels: Tensor, schedule: str, timestep: int, seed: int = 0) -> "Moment":
        """Put the noise of a seed on a picture, uint8 ``[c, h, w]``; raises RequestError for a wrong schedule."""
        levels(schedule)
        noise = torch.randn(pixels.shape, generator=generator("learn", seed), dtype=torch.float64)
        return cls(to_float(pixels).double(), noise, schedule, timestep)

    @property
    def sigma(self) -> Tensor:
        """The noise level, a scalar."""
        return levels(self.schedule)[self.timestep - 1]

    @property
    def alpha_bar(self) -> float:
        """The paper's cumulative product of alphas: the share of the picture in the variance of x_t."""
        return float(1 / (1 + self.sigma**2))

    @property
    def noisy(self) -> Tensor:
        """The paper's x_t."""
        return self.at(self.timestep)

    def at(self, timestep: int) -> Tensor:
        """The paper's x_t at another timestep."""
        sigma = levels(self.schedule)[timestep - 1]
        return (self.x0 + sigma * self.noise) * (1 + sigma**2).rsqrt()

    def target(self, objective: str) -> Tensor:
        """What the network has to answer."""
        found = share(objective, self.sigma)
        return found.picture * self.x0 + found.noise * self.noise

    def given_away(self, objective: str, sigmas: Tensor | None = None) -> Tensor:
        """The share of the target's variance that a straight line from x explains, over this picture's pixels.

        1 where the target is the network's input but for a factor, so that there is nothing to learn.

        Args:
            objective: of the registry.
            sigmas: noise levels ``[k]``; that of the timestep by default.

        Returns:
            Like ``sigmas``; 0 for a target that has but one colour.
        """
        sigma = self.sigma if sigmas is None else sigmas
        found = share(objective, sigma)
        (picture, both), (_, noise) = torch.cov(torch.stack((self.x0.flatten(), self.noise.flatten()))).tolist()

        def product(a: Share, b: Share) -> Tensor:
            crossed = a.picture * b.noise + a.noise * b.picture
            return a.picture * b.picture * picture + crossed * both + a.noise * b.noise * noise

        x = Share(torch.ones_like(sigma), sigma)
        explained = product(x, found) ** 2 / (product(x, x) * product(found, found))
        return explained.nan_to_num(0.0, posinf=0.0)


def visible(x: Tensor) -> Tensor:
    """Pixels of anything: 0 is the middle, -1 and below black, 1 and above white."""
    return to_uint8(x.float())


def stops(count: int) -> Sequence[int]:
    """Timesteps from the first to the last, evenly."""
    return [round(1 + number * (TIMESTEPS - 1) / (count - 1)) for number in range(count)]
