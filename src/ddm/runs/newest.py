"""What the newest checkpoint of a run makes, for its report: samples, how they come about, what they are close to."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddm.data import get_data
from ddm.errors import DdmError, RequestError
from ddm.generators import DiffusionGenerator
from ddm.generators.base import finished
from ddm.generators.ours import ADVICE
from ddm.images import to_uint8
from ddm.runs import checkpoints
from ddm.runs.closest import Close, closest
from ddm.runs.cost import parameters_of
from ddm.runs.folder import Run
from ddm.runs.inline import Picture, film, picture, sheet
from ddm.runs.manifest import read_manifest
from ddm.runs.model import Model
from ddm.runs.progress import Progress
from ddm.runs.sources import load
from ddm.runs.training_film import evenly
from ddm.seeding import PictureNoise

SAMPLES = 64
"""Pictures of the seeds from 0, none left out."""

COLUMNS = 8
"""Of the grid of samples."""

FOLLOWED = 4
"""Seeds of which every step is shown."""

STEPS = 19
"""Steps shown at most besides the noise, evenly spaced."""

COMPARED = 8
"""Samples that are shown with their nearest training pictures."""


@dataclass(frozen=True)
class Guess:
    """What the sampler takes the finished pictures for.

    Args:
        when: at which step.
        noise: that the model saw there, as a sigma.
        picture: the guesses of all followed seeds, one under the other.
    """

    when: str
    noise: str
    picture: Picture


@dataclass(frozen=True)
class Shown:
    """A training picture; see :class:`ddm.runs.closest.Neighbour`."""

    picture: Picture
    number: int
    levels: float
    mirrored: bool


@dataclass(frozen=True)
class Copied:
    """A sample between its nearest training pictures.

    Args:
        seed: of the sample.
        ratio: see :class:`ddm.runs.closest.Close`.
        sample: the picture.
        neighbours: training pictures, the nearest first.
    """

    seed: int
    ratio: float
    sample: Picture
    neighbours: list[Shown]


@dataclass(frozen=True)
class Newest:
    """All that a report shows of a checkpoint.

    Args:
        step: of the training.
        weights: the average that was used.
        parameters: numbers in the network.
        generation: the settings of the sampler.
        classes: of which the samples are in turn; empty without labels.
        samples: in rows of eight.
        guesses: from noise to picture.
        moving: the same as a film.
        steps: of the sampler, of which ``guesses`` has some or all.
        copied: the samples that are nearest to a training picture; None where the training pictures cannot be read.
        digests: SHA-256 by what it is of.
    """

    step: int
    weights: str
    parameters: int
    generation: dict[str, object]
    classes: tuple[str, ...]
    samples: Picture
    guesses: list[Guess]
    moving: Picture
    steps: int
    copied: list[Copied] | None
    digests: dict[str, str]


def show_newest(run: Run, *, device: str, say: Callable[[str], None]) -> Generator[Progress, None, Newest | None]:
    """Sample from the newest sound checkpoint; None where there is none that can be used, with the reason said.

    Args:
        run: the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        say: told what could not be done, and why.
    """
    try:
        model = load(run.path, device=device, say=say)
        pixels, seen = yield from _sample(model)
    except DdmError as error:
        say(f"no pictures of the newest checkpoint: {error}")
        return None
    copied = yield from _copied(run, model, pixels, say)
    return Newest(
        step=int(_path(model).name),
        weights=str(model.weights),
        parameters=parameters_of(model.generator) or 0,
        generation=model.generator.settings(),
        classes=model.classes,
        samples=picture(sheet(pixels, columns=COLUMNS), f"samples of seeds 0 to {SAMPLES - 1}, eight in a row"),
        guesses=[_guess(each) for each in seen],
        moving=film([sheet(each.pixels, columns=FOLLOWED) for each in seen], f"{FOLLOWED} pictures emerge from noise"),
        steps=_ours(model).settings()["steps"],
        copied=copied,
        digests=_digests(model),
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was seen of the followed seeds: uint8 ``[n, c, h, w]``, and when."""

    when: str
    noise: str
    pixels: Tensor


def _guess(seen: _Seen) -> Guess:
    alt = f"{FOLLOWED} pictures, {seen.when}"
    return Guess(seen.when, seen.noise, picture(sheet(seen.pixels, columns=1), alt))


def _ours(model: Model) -> DiffusionGenerator:
    assert isinstance(model.generator, DiffusionGenerator), "a run of ours"
    return model.generator


def _sample(model: Model) -> Generator[Progress, None, tuple[Tensor, list[_Seen]]]:
    """All samples, uint8 ``[n, c, h, w]``, and what is guessed at each step that is shown."""
    generator, seeds = _ours(model), range(SAMPLES)
    noise = to_uint8(PictureNoise(seeds[:FOLLOWED], generator.shape)() / 2)  # half: a pixel of it fits into the range
    seen, levels = [_Seen("noise", "", noise)], generator.grid.tolist()
    wanted = set(evenly(list(range(1, len(levels))), STEPS))
    x = torch.empty(0)
    yield Progress("denoising", 0, SAMPLES * (len(levels) - 1))
    for number, step in enumerate(generator.stream(seeds), 1):
        yield Progress("denoising", SAMPLES * number, SAMPLES * (len(levels) - 1))
        x = step.x
        if number in wanted:
            guess = finished(step.x0[:FOLLOWED], seeds[:FOLLOWED], advice=ADVICE)
            seen.append(_Seen(f"step {number}", f"{levels[number - 1]:.3g}", guess))
    return finished(x, seeds, advice=ADVICE), seen


def _copied(
    run: Run, model: Model, pixels: Tensor, say: Callable[[str], None]
) -> Generator[Progress, None, list[Copied] | None]:
    config = run.config
    try:
        data = get_data(config.data, image_size=config.image_size)
        if data.digest != _pictures(model)["digest"]:
            raise RequestError(f"{config.data} no longer holds the pictures of the training")
    except (DdmError, OSError) as error:
        say(f"no nearest training pictures: {error}")
        return None
    found = yield from closest(pixels, data, mirror=config.train.flip, count=COMPARED)
    return [_shown(each, pixels[each.place]) for each in found]


def _shown(close: Close, sample: Tensor) -> Copied:
    near = [
        Shown(picture(each.pixels, f"training picture {each.number:,}"), each.number, each.levels, each.mirrored)
        for each in close.neighbours
    ]
    return Copied(close.place, close.ratio, picture(sample, f"sample of seed {close.place}"), near)


def _digests(model: Model) -> dict[str, str]:
    """SHA-256 of the training pictures and of every file of tensors in the checkpoint."""
    files = read_manifest(_path(model)).files
    tensors = {name: entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}
    return {"training pictures": _pictures(model)["digest"], **tensors}


def _pictures(model: Model) -> dict[str, str]:
    return checkpoints.load(_path(model), groups=[]).state["pictures"]


def _path(model: Model) -> Path:
    assert model.path is not None, "a run of ours"
    return model.path
