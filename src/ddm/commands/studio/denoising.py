"""What the Denoise tab does, without the page: noise put on and taken off, holes filled, ways between seeds."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddm.commands.editing import Between, Edit, FromPictures, visible
from ddm.commands.films import write_film
from ddm.commands.sampling import labels_of
from ddm.commands.work import Made, Work
from ddm.commands.writing import metadata, sheet_of
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, editing
from ddm.generators.base import finished
from ddm.generators.ours import ADVICE
from ddm.images import grid, to_uint8
from ddm.runs.model import Model

SEEDS = 2**63
"""Seeds are below it."""

LOWEST = 0.02
"""The slider begins at this noise level: less is not seen in 8 bits, whatever a model's lowest level is."""


SLACK = 0.005
"""Of the highest level."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A sampler at work on several pictures.

    Args:
        done: steps so far.
        steps: of all, as far as that is known before.
        x: where the pictures are, uint8 ``[n, c, h, w]``, dimmed so that the noise fits into the range.
        x0: what the model takes them for, uint8 ``[n, c, h, w]``.
        made: the finished pictures, with the last step.
    """

    done: int
    steps: int
    x: Tensor
    x0: Tensor
    made: Made | None = None


def watched(work: Work) -> Iterator[Seen]:
    """The work, step by step; stop iterating to stop it.

    Raises:
        DdmError: a picture is not finite.
    """
    generator, done, step = ours(work.model), 0, None
    for done, step in enumerate(work.stream(), 1):
        yield Seen(done, max(work.steps, done), dimmed(step.x, step.x0), to_uint8(step.x0).cpu())
    assert step is not None, "a sampler has a step"
    pictures = finished(step.x, work.seeds, advice=ADVICE)
    shown = work.edit.shown(generator, work.seeds, None) if work.edit else []
    yield Seen(done, done, pictures, pictures, Made(work, pictures, shown))


def dimmed(x: Tensor, x0: Tensor) -> Tensor:
    """Noisy pictures, floats ``[n, c, h, w]``, as uint8; the noise in them is what differs from the guess ``x0``."""
    sigma = float((x - x0).flatten(1).square().mean(1).max().sqrt())
    return to_uint8(visible(x, sigma if math.isfinite(sigma) else 1.0)).cpu()


def ours(model: Model) -> DiffusionGenerator:
    """The generator of a model that can be seen at work; raises :class:`RequestError` for any other."""
    if not isinstance(model.generator, DiffusionGenerator):
        raise RequestError(f"model: {model.name!r} is not allowed, its steps are not seen; allowed: runs of ddm train")
    return model.generator


def levels(model: Model) -> tuple[float, float]:
    """The lowest and the highest noise level that the slider offers."""
    generator = ours(model)
    lowest, highest = max(LOWEST, 1.01 * float(generator.diffusion.sigmas[0])), float(generator.grid[0])
    return lowest, highest * (1 - SLACK)  # the page rounds what it sends to so many digits


def check_seed(seed: int, count: int = 1, *, field: str = "seed") -> None:
    """Raise :class:`RequestError` for seeds that there are not."""
    if not 0 <= seed <= SEEDS - count:
        raise RequestError(f"{field}: {seed} is not allowed; allowed: 0 or more")


def from_picture(
    model: Model,
    picture: Tensor,
    *,
    sigma: float | None,
    label: str | None,
    seed: int,
    count: int,
    unknown: Tensor | None = None,
) -> Work:
    """Noise on a picture and off again, ``count`` times with other noise; or a part of it made anew.

    Args:
        model: one of ours.
        picture: uint8 ``[c, h, w]``, of the model's size.
        sigma: the noise; None begins with noise alone, where the picture is unknown.
        label: the class to make; none by default.
        seed: of the first.
        count: how many.
        unknown: bool ``[1, h, w]``, True where it is made anew; everywhere by default.

    Raises:
        RequestError: a noise level that the model has not, or an unknown class.
    """
    check_seed(seed, count)
    if sigma is None and unknown is None:
        raise RequestError("noise: it is missing; allowed: a noise level above 0")
    if sigma is not None:
        editing.grid_from(ours(model), sigma)
    edit = FromPictures(torch.stack([picture] * count), sigma, unknown)
    return _work(model, range(seed, seed + count), label, edit)


def between(model: Model, *, first: int, last: int, count: int, label: str | None) -> Work:
    """Pictures between those of two seeds; raises :class:`RequestError` for wrong seeds or an unknown class."""
    check_seed(first)
    check_seed(last, field="to_seed")
    if first == last:
        raise RequestError(f"to_seed: {last} is not allowed; allowed: another than the first seed")
    shares = tuple(number / (count - 1) for number in range(count))
    return _work(model, range(count), label, Between(first, last, shares))


def _work(model: Model, numbers: range, label: str | None, edit: Edit) -> Work:
    ours(model)
    return Work(model, numbers, labels_of(model, label, edit, numbers), label, len(numbers), edit)


def noisy(model: Model, picture: Tensor, sigma: float, seed: int) -> Tensor:
    """A picture, uint8 ``[c, h, w]``, with noise on it, like it; raises :class:`RequestError` as from_picture does."""
    return given(from_picture(model, picture, sigma=sigma, label=None, seed=seed, count=1))[0]


def of_seeds(model: Model, seed: int, count: int, label: str | None) -> Work:
    """The pictures of seeds from one on; raises :class:`RequestError` for an unknown class."""
    check_seed(seed, count)
    ours(model)
    numbers = range(seed, seed + count)
    return Work(model, numbers, labels_of(model, label, None, numbers), label, count)


def given(work: Work) -> Tensor:
    """What the model is given of pictures that are changed, uint8 ``[n, c, h, w]``."""
    assert work.edit is not None, "it changes pictures"
    return to_uint8(work.edit.start(ours(work.model), work.seeds))


def shares(work: Work) -> tuple[float, ...]:
    """Where on the way between two seeds each picture lies."""
    assert isinstance(work.edit, Between), "it goes from seed to seed"
    return work.edit.shares


def side_by_side(pixels: Tensor, columns: int | None = None) -> Tensor:
    """Several pictures, uint8 ``[n, c, h, w]``, as one without a frame; a single one as it is."""
    return pixels[0] if len(pixels) == 1 else grid(pixels, columns=columns)[:, 1:-1, 1:-1]


def film(pixels: Tensor) -> bytes:
    """Pictures, uint8 ``[n, c, h, w]``, there and back as an endless film: a lossless WebP."""
    frames: Sequence[Tensor] = [*pixels, *pixels[1:-1].flip(0)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.webp"
        write_film(path, frames)
        return path.read_bytes()


def texts(made: Made) -> list[dict[str, str]]:
    """The metadata of each picture, by which ``ddm sample --again`` makes it once more."""
    work = made.work
    parts = (work.part(place, place + 1) for place in range(len(work.numbers)))
    return [metadata(part, "picture", batch=work) for part in parts]


def whole(made: Made) -> tuple[Tensor, dict[str, str]]:
    """All pictures as one, each after what it was made from, uint8 ``[c, H, W]``; and the metadata of that."""
    return sheet_of(made.work, [made]), metadata(made.work, "sheet")
