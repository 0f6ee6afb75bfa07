"""What the Generate tab does, without the page: pictures of seeds, and pictures near a seed, step by step."""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddm.commands.editing import Between
from ddm.commands.sampling import labels_of
from ddm.commands.studio import costing, denoising
from ddm.commands.studio.shared import Studio, number, whole, word
from ddm.commands.studio.shown import png
from ddm.commands.work import Made, Work
from ddm.errors import RequestError
from ddm.registry import Choice
from ddm.runs.model import Model
from ddm.seeding import derive

PACE = 0.06
"""Seconds between two looks at the work, at least: more are not seen."""

NEAR = 16
"""Pictures near a seed at most."""

BLANK = 128
"""The level of gray of a picture that is not yet begun."""


@dataclass(frozen=True)
class Request:
    """What is wanted; no word, None and 0 leave what the model has.

    Args:
        model: its name.
        label: the class; all in turn by default.
        count: pictures.
        seed: of the first picture, the next has the next.
        sampler: a choice such as heun(churn=40).
        grid: a choice such as karras(rho=5).
        evaluations: of the network for a picture; as many steps as they allow.
        guidance: how far towards the class, 1 for none.
    """

    model: str
    label: str = ""
    count: int = 4
    seed: int = 0
    sampler: str = ""
    grid: str = ""
    evaluations: int | None = None
    guidance: float | None = None

    def checked(self, *, most: int) -> "Request":
        """The same with values that are what they ought to be; raises :class:`RequestError` where they are not."""
        return Request(
            word("model", self.model),
            word("label", self.label or ""),
            whole("count", self.count, 1, most),
            whole("seed", self.seed, 0, denoising.SEEDS - most),
            word("sampler", self.sampler or ""),
            word("grid", self.grid or ""),
            whole("evaluations", self.evaluations, 0, costing.MOST) if self.evaluations else None,
            number("guidance", self.guidance, -100, 100) if self.guidance is not None else None,
        )


@dataclass(frozen=True, eq=False)
class Picture:
    """One of those that are made.

    Args:
        pixels: uint8 ``[c, h, w]``: finished, or what the model sees in the noise.
        seed: of its noise.
        label: the name of its class; empty without.
        file: the PNG with all that is needed to make it again, once it is finished.
        towards: the other seed, where it is near one.
    """

    pixels: Tensor
    seed: int
    label: str
    file: bytes = b""
    towards: int | None = None


@dataclass(frozen=True, eq=False)
class Moment:
    """Work that goes on.

    Args:
        done: steps so far.
        steps: of all.
        pictures: as they are now.
        model: that makes them, as it does.
        sheet: all pictures as one PNG, once they are finished and if they can be made again as one.
    """

    done: int
    steps: int
    pictures: list[Picture]
    model: Model
    sheet: bytes = b""

    @property
    def finished(self) -> bool:
        """Whether there is no more to come."""
        return all(each.file for each in self.pictures)


def generate(studio: Studio, request: Request) -> Iterator[Moment]:
    """Pictures of seeds; stop iterating to stop the work.

    Raises:
        RequestError: what is asked for is not there, or more than one request may ask for.
        DdmError: a picture is not finite.
    """
    request = request.checked(most=studio.limits.pictures)
    work = denoising.of_seeds(_model(studio, request), request.seed, request.count, request.label or None)
    studio.check(work)
    names = _classes(work)
    for seen in paced(studio.bounded(denoising.watched(work), work)):
        if seen.made is None:
            pictures = [Picture(*each) for each in zip(seen.x0, work.numbers, names)]
            yield Moment(seen.done, seen.steps, pictures, work.model)
        else:
            yield Moment(seen.done, seen.steps, _finished(seen.made, names), work.model, _sheet(seen.made))


def _others(seed: int, count: int) -> list[int]:
    """Seeds to go towards, always the same ones: none twice, nor the seed itself."""
    drawn = (derive(seed, "near", place) % 10_000 for place in itertools.count(1))
    found: dict[int, None] = {}
    while len(found) < count:
        other = next(drawn)
        if other != seed:
            found[other] = None
    return list(found)


def near(studio: Studio, request: Request, *, share: float = 0.15) -> Iterator[Moment]:
    """Pictures near that of a seed: its noise goes a share of the way towards that of other seeds, on the arc.

    They are made one after the other, so that each is in every pixel what ``ddm sample --again`` makes of its file.

    Args:
        studio: its models and limits.
        request: whose seed it is; ``count`` is how many.
        share: of the way, above 0 and up to 1.

    Raises:
        RequestError: as :func:`generate` does.
        DdmError: a picture is not finite.
    """
    request = request.checked(most=NEAR)
    share = number("share", share, 0.01, 1)
    model = _model(studio, request)
    label = request.label or None
    model.labels(label, 1)
    others = _others(request.seed, request.count)
    works = [_between(model, label, request.seed, other, share) for other in others]
    studio.check(replace(works[0], numbers=range(len(works))))
    blank = torch.full(model.generator.shape, BLANK, dtype=torch.uint8)
    (name,) = _classes(works[0])
    shown = [Picture(blank, request.seed, name, towards=other) for other in others]
    steps = sum(work.steps for work in works)
    for place, work in enumerate(works):
        done = sum(each.steps for each in works[:place])
        for seen in paced(studio.bounded(denoising.watched(work), work, share=len(works))):
            shown[place] = replace(shown[place], pixels=seen.x0[0])
            if seen.made is not None:
                text = denoising.texts(seen.made)[0]
                shown[place] = replace(
                    shown[place], pixels=seen.made.pictures[0], file=png(seen.made.pictures[0], text)
                )
            yield Moment(min(done + seen.done, steps), steps, list(shown), model)


def paced(steps: Iterator[denoising.Seen]) -> Iterator[denoising.Seen]:
    """Those steps that can be seen: none that comes too soon after another, but the last one always."""
    last = -math.inf
    for seen in steps:
        now = time.monotonic()
        if seen.made is not None or now - last >= PACE:
            last = now
            yield seen


def settings_in_words(model: Model) -> str:
    """How its pictures are made, short: the sampler, its steps, where they lie, guidance."""
    settings = model.generator.settings()
    grid = Choice.parse(settings["grid"]).name
    words = [settings["sampler"], f"{settings['steps']} steps", {"levels": "searched"}.get(grid, grid)]
    if settings["guidance"] != 1:
        words.append(f"guidance {settings['guidance']:g}")
    return ", ".join(words)


def _model(studio: Studio, request: Request) -> Model:
    model = studio.models.get(request.model)
    if not model.classes and request.guidance not in (None, 0, 1) and getattr(model.generator, "guide", None) is None:
        raise RequestError(f"guidance: {request.guidance:g} is not allowed for a model without classes; allowed: 1")
    return costing.adjusted(
        model,
        sampler=request.sampler,
        grid=request.grid,
        wanted=request.evaluations,
        guidance=request.guidance,
    )


def _between(model: Model, label: str | None, seed: int, other: int, share: float) -> Work:
    edit = Between(seed, other, (share,))
    return Work(model, range(1), labels_of(model, label, edit, range(1)), label, 1, edit)


def _classes(work: Work) -> list[str]:
    """The name of each picture's class."""
    if work.labels is None:
        return [""] * len(work.numbers)
    return [work.model.classes[each] for each in work.labels]


def _finished(made: Made, names: list[str]) -> list[Picture]:
    files = [png(pixels, text) for pixels, text in zip(made.pictures, denoising.texts(made))]
    return [Picture(*each) for each in zip(made.pictures, made.work.numbers, names, files)]


def _sheet(made: Made) -> bytes:
    return png(*denoising.whole(made))
