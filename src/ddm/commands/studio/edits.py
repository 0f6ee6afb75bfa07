"""The actions of the Denoise tab: words, numbers and pictures as text in, pieces of a page out, step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddm.commands.studio import denoising
from ddm.commands.studio.costing import MOST, adjusted
from ddm.commands.studio.generating import paced
from ddm.commands.studio.shared import Studio, number, whole, word
from ddm.commands.studio.shown import data_uri, png
from ddm.commands.studio.stages import SMALL, WIDTH, figure, looked_at, stage, way
from ddm.commands.studio.training_set import training_picture
from ddm.commands.studio.uploads import mask_from, picture_from
from ddm.commands.work import Made, Work
from ddm.runs.model import Model

VARIATIONS, BETWEEN = 8, 16
"""Pictures of one request at most: with other noise, and from one seed to another."""

LOUDEST, LAST = 1e6, 10**9
"""A noise level above that of all models, and a number above that of any training picture; which are there is told."""


@dataclass(frozen=True, eq=False)
class Edits:
    """What can be done on the Denoise tab; every method is an endpoint, and raises DdmError for what cannot be done.

    Args:
        studio: its models and limits.
    """

    studio: Studio

    def upload_picture(self, model: str, upload: str) -> tuple[str, str]:
        """A picture of one's own, cropped and resized for the model.

        Args:
            model: its name.
            upload: a PNG, JPEG or WebP file in base64.

        Returns:
            The picture as a data: address of a PNG, and a piece of a page that shows it.
        """
        return _taken(self._read(self.studio.models.get(model), upload), "your picture")

    def training_picture(self, model: str, number: int = 0) -> tuple[str, str]:
        """One of the pictures that the model learned from, where they are at hand.

        Args:
            model: its name.
            number: of the picture, from 0.

        Returns:
            The picture as a data: address of a PNG, and a piece of a page that shows it.
        """
        place = whole("number", number, 0, LAST)
        pixels, label = training_picture(self.studio.models.get(model), place)
        return _taken(pixels, f"training picture {place:,}{label and f', {label}'}")

    def picture_of_seed(self, model: str, seed: int = 0) -> Iterator[tuple[str, str]]:
        """The picture that the model makes of a seed.

        Args:
            model: its name.
            seed: 0 or more.

        Yields:
            The picture as a data: address of a PNG, empty before it is there; and a piece of a page, one a step.
        """
        work = denoising.of_seeds(self.studio.models.get(model), seed_from(seed), 1, None)
        for seen in watch(work, self.studio):
            if seen.made is None:
                yield "", stage([looked_at("what the model sees", seen.x0)]) + way(seen.done, seen.steps)
            else:
                yield _taken(seen.made.pictures[0], f"the picture of seed {seed}")

    def noisy(self, model: str, picture: str, noise: float, seed: int = 0) -> str:
        """A picture with noise on it, as a piece of a page; the model is not asked.

        Args:
            model: its name.
            picture: a PNG, JPEG or WebP file in base64.
            noise: the level sigma, the noise's standard deviation where the picture goes from -1 to 1.
            seed: of the noise.
        """
        found = self.studio.models.get(model)
        pixels = self._read(found, picture)
        sigma = number("noise", noise, 0, LOUDEST)
        shown = denoising.noisy(found, pixels, sigma, seed_from(seed))
        pairs = [("the picture", pixels), (f"with noise, sigma {sigma:g}", shown)]
        return stage([looked_at(words, each[None]) for words, each in pairs])

    def denoise(
        self,
        model: str,
        picture: str,
        noise: float = 1.0,
        label: str = "",
        count: int = 1,
        seed: int = 0,
        sampler: str = "",
        evaluations: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[str]:
        """Put noise on a picture and let the model take it away: pieces of a page, one a step.

        Args:
            model: its name.
            picture: a PNG, JPEG or WebP file in base64.
            noise: the level sigma: 0.3 touches up, 1 keeps the scene, 20 hardly anything.
            label: the class that the model makes of it; none by default.
            count: so many pictures, each with other noise.
            seed: of the first noise.
            sampler: a choice such as heun(churn=40); the model's own by default.
            evaluations: of the network for a picture, which decide the steps; the model's own by default.
            guidance: how far towards the class, 1 for none; the model's own by default.
        """
        found = self._with(model, sampler, evaluations, guidance)
        pixels, options = self._read(found, picture), _options(label, count, seed)
        work = denoising.from_picture(found, pixels, sigma=number("noise", noise, 0, LOUDEST), **options)
        yield from self._watch(work, pixels)

    def inpaint(
        self,
        model: str,
        picture: str,
        mask: str,
        noise: float | None = None,
        label: str = "",
        count: int = 1,
        seed: int = 0,
        sampler: str = "",
        evaluations: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[str]:
        """Make a part of a picture anew, so that it fits the rest: pieces of a page, one a step.

        Args:
            model: its name.
            picture: a PNG, JPEG or WebP file in base64.
            mask: a 1 for every pixel that is made anew and a 0 for every other, row by row, at the model's size.
            noise: the level sigma to begin at, so that the old content shows through; by default that is forgotten.
            label: the class; none by default.
            count: so many pictures.
            seed: of the first.
            sampler: the more noise it draws, the better the parts agree: heun(churn=50).
            evaluations: of the network for a picture, which decide the steps; the model's own by default.
            guidance: how far towards the class, 1 for none; the model's own by default.
        """
        found = self._with(model, sampler, evaluations, guidance)
        pixels, options = self._read(found, picture), _options(label, count, seed)
        hole, sigma = mask_from(mask, pixels.shape), number("noise", noise, 0, LOUDEST) if noise else None
        work = denoising.from_picture(found, pixels, sigma=sigma, unknown=hole, **options)
        yield from self._watch(work, pixels, hole)

    def interpolate(
        self,
        model: str,
        seed: int = 0,
        to_seed: int = 1,
        count: int = 8,
        label: str = "",
        sampler: str = "",
        evaluations: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[str]:
        """The way from the picture of one seed to that of another: pieces of a page, one a step.

        Args:
            model: its name.
            seed: of the first picture.
            to_seed: of the last.
            count: pictures, those two among them.
            label: the class of all; that of the first seed by default.
            sampler: a choice such as heun(churn=40); the model's own by default.
            evaluations: of the network for a picture, which decide the steps; the model's own by default.
            guidance: how far towards the class, 1 for none; the model's own by default.
        """
        found = self._with(model, sampler, evaluations, guidance)
        first, last = seed_from(seed), seed_from(to_seed, field="to_seed")
        count, label = whole("count", count, 2, BETWEEN), word("label", label or "")
        work = denoising.between(found, first=first, last=last, count=count, label=label or None)
        for seen in watch(work, self.studio):
            if seen.made is None:
                yield stage([looked_at("what the model sees", seen.x0, count)]) + way(seen.done, seen.steps)
            else:
                yield _row(seen.made)

    def _watch(self, work: Work, source: Tensor, hole: Tensor | None = None) -> Iterator[str]:
        """The work on a picture, and what came of it."""
        before = [] if hole is None else [looked_at("what the model is given", denoising.given(work))]
        for seen in watch(work, self.studio):
            if seen.made is None:
                now = [looked_at("where it is: x", seen.x), looked_at("what the model sees in it: x0", seen.x0)]
                yield stage([*before, *now]) + way(seen.done, seen.steps)
            else:
                names = [f"result, noise of seed {seed}" for seed in work.seeds]
                yield stage([*before, *results(seen.made, names)]) + _files(seen.made, source, hole)

    def _read(self, model: Model, text: str) -> Tensor:
        limits, shape = self.studio.limits, denoising.ours(model).shape
        return picture_from(text, shape, most_bytes=limits.upload_bytes, most_pixels=limits.upload_pixels)

    def _with(self, model: str, sampler: str, evaluations: int | None, guidance: float | None) -> Model:
        return adjusted_as_asked(self.studio.models.get(model), sampler, evaluations, guidance)


def adjusted_as_asked(model: Model, sampler: str, evaluations: int | None, guidance: float | None) -> Model:
    """The model with another way of making pictures; raises RequestError for what is no such way."""
    return adjusted(
        model,
        sampler=word("sampler", sampler or ""),
        wanted=whole("evaluations", evaluations, 0, MOST) if evaluations else None,
        guidance=None if guidance is None else number("guidance", guidance, -100, 100),
    )


def seed_from(value: object, count: int = 1, *, field: str = "seed") -> int:
    """The seed of the first of so many pictures; raises RequestError for what is none."""
    return whole(field, value, 0, denoising.SEEDS - count)


def watch(work: Work, studio: Studio, *, share: int = 1) -> Iterator[denoising.Seen]:
    """Work of a request, of which it may be a part, step by step; raises RequestError where it is more than allowed."""
    studio.check(work)
    yield from paced(studio.bounded(denoising.watched(work), work, share=share))


def _options(label: str, count: int, seed: int) -> dict[str, Any]:
    """What is asked of pictures from a picture; raises RequestError for what cannot be."""
    wanted = whole("count", count, 1, VARIATIONS)
    return {"label": word("label", label or "") or None, "count": wanted, "seed": seed_from(seed, wanted)}


def results(made: Made, names: Sequence[str], width: int = WIDTH) -> list[str]:
    """Each finished picture as a figure, whose PNG says how it was made."""
    pairs = zip(names, made.pictures, denoising.texts(made))
    return [
        figure(png(pixels, text), name, alt=name, width=width, save=f"{number:02}.png")
        for number, (name, pixels, text) in enumerate(pairs)
    ]


def _taken(pixels: Tensor, name: str) -> tuple[str, str]:
    file = png(pixels)
    return data_uri(file), stage([figure(file, name, alt=name, save="source.png")])


def _row(made: Made) -> str:
    """Pictures between two seeds: in a row, and as a film."""
    pixels, text = denoising.whole(made)
    names = [f"{share:.0%}" for share in denoising.shares(made.work)]
    there_and_back = denoising.film(made.pictures)
    film = figure(there_and_back, "There and back", alt="film of the way", kind="image/webp", save="between.webp")
    sheet = figure(png(pixels, text), "All in one", alt="all pictures of the way", save="between.png")
    return stage(results(made, names, SMALL)) + stage([film, sheet]) + _again("between.png")


def _files(made: Made, source: Tensor, hole: Tensor | None) -> str:
    """What is needed to make pictures from a picture again."""
    pixels, text = denoising.whole(made)
    files = [("the picture, as the model got it", png(source), "source.png")]
    files += [] if hole is None else [("the mask", png(hole.to(torch.uint8) * 255), "mask.png")]
    files += [("all in one: before, given, after", png(pixels, text), "sheet.png")]
    shown = stage([figure(file, words, alt=words, width=SMALL, save=name) for words, file, name in files])
    given = "sheet.png --from source.png" + ("" if hole is None else " --mask mask.png")
    return f"<details><summary>To make it again</summary>{shown}{_again(given)}</details>"


def _again(given: str) -> str:
    return f'<p class="hint">The same once more: <code>ddm sample --again {given}</code></p>'
