"""``ddm sample --again``: what a PNG shows made anew from its metadata, and compared with its pixels."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ddm.commands.console import Console
from ddm.commands.editing import Between, Edit, FromPictures, Inverted, digest_of
from ddm.commands.finding import find_model
from ddm.commands.recorded import BetweenFacts, Facts, InvertFacts, read
from ddm.commands.sources import read_mask, read_pictures
from ddm.commands.work import Work
from ddm.commands.writing import metadata, sheet, sheet_of
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, editing
from ddm.images import save_png
from ddm.runs.model import Model
from ddm.training import Team


@dataclass(frozen=True)
class Difference:
    """Between two pictures of one size.

    Args:
        pixels: how many differ.
        total: of all.
        most: levels of 255 by which they differ at most.
    """

    pixels: int
    total: int
    most: int

    def __str__(self) -> str:
        if not self.pixels:
            return "equal in every pixel"
        return f"{self.pixels:,} of {self.total:,} pixels differ, by at most {self.most} of 255"


def again(arguments: argparse.Namespace, console: Console) -> int:
    """Make the pictures of a file once more, compare and write them.

    Raises:
        RequestError: the file says nothing that can be used, or the model or the pictures it was made from are not
            there.
    """
    path = Path(arguments.again).expanduser()
    if (count := Team(arguments.device).count) > 1:
        raise RequestError(
            f"again: not allowed on {count} processes; allowed: 1, which makes the batches that were made"
        )
    facts, before = read(path)
    out = check_out(arguments.out, path)
    model = find_model(facts, arguments, console.say)
    work = make_work(model, facts, arguments)
    check_size(work, facts, before)
    console.say(f"model   {model.path or model.name}" + (f", {model.weights} weights" if model.weights else ""))
    pixels = torch.empty(0)
    difference = Difference(0, 0, 0)
    for attempt, number in attempts(work, facts):
        with console.bar(len(attempt.numbers) * attempt.steps) as bar:
            made = list(attempt.make(bar))
        pixels = sheet_of(work, made) if facts.layout == "sheet" else made[0].pictures[number]
        difference = compare(before, pixels)
        if not difference.pixels:
            break
    save_png(out, pixels, text=metadata(work, facts.layout))
    if difference.pixels:
        console.say(explain(facts))
    counts = {"equal": not difference.pixels, "pixels_differ": difference.pixels, "most": difference.most}
    console.result(f"{out}  {difference}", out=out, again=path, **counts, checkpoint=model.path)
    return 0


def check_out(text: str | None, path: Path) -> Path:
    """Where the new picture goes: beside nothing, i.e. here, unless it is said; never over the old one."""
    out = Path(text).expanduser() if text else Path(f"{path.stem}-again.png")
    if out.suffix.lower() != ".png" or out.is_dir():
        raise RequestError(f"out: {str(out)!r} is not allowed beside --again; allowed: a .png file")
    if out.exists() and out.samefile(path):
        raise RequestError(f"out: {str(out)!r} is the picture itself, which is not written over; allowed: another")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"out: {str(out)!r} cannot be made: {error.strerror}") from None
    return out


def make_work(model: Model, facts: Facts, arguments: argparse.Namespace) -> Work:
    """What the file asks of the model.

    Raises:
        RequestError: a class that the model has not, or the pictures it was made from are not given, or others.
    """
    classes, labels = model.generator.classes, None
    if facts.labels is not None:
        labels = [classes if each is None else each for each in facts.labels]
    if (labels is None) != (not classes) or any(label > classes for label in labels or ()):
        raise RequestError(f"again: {arguments.again!r} has labels that a model of {classes} classes has not")
    if facts.shape != model.generator.shape:
        raise RequestError(f"again: {arguments.again!r} shows {list(facts.shape)}, not {list(model.generator.shape)}")
    edit = make_edit(model, facts, arguments)
    first = 0 if isinstance(edit, Between) else facts.seed
    batch = arguments.batch_size or facts.batch_size
    return Work(model, range(first, first + facts.count), labels, facts.label, batch, edit)


def make_edit(model: Model, facts: Facts, arguments: argparse.Namespace) -> Edit | None:
    """What was done to pictures, which have to be given again; raises as :func:`make_work` does."""
    edit, generator = facts.edit, model.generator
    given = [name for name, dest in (("from", "pictures"), ("mask", "mask")) if dest in arguments]
    wanted = ["from"] if edit is not None and not isinstance(edit, BetweenFacts) else []
    wanted += ["mask"] if getattr(edit, "mask", None) else []
    for name in given:
        if name not in wanted:
            raise RequestError(f"{name}: not allowed, {arguments.again!r} was made without one")
    for name in wanted:
        if name not in given:
            raise RequestError(f"{name}: {arguments.again!r} was made from one; give the same again with --{name}")
    if edit is None or not isinstance(generator, DiffusionGenerator):
        return None
    if isinstance(edit, BetweenFacts):
        return Between(facts.seed, edit.last, tuple(edit.shares))
    found, files = read_pictures(arguments.pictures, generator.shape, None)
    there = {digest_of(picture): picture for picture in found}
    missing = [digest for digest in edit.sources if digest not in there]
    if missing:
        raise RequestError(f"from: the picture with the SHA-256 {missing[0][:16]} is not among those given")
    sources = [there[digest] for digest in edit.sources]
    pictures = torch.stack([sources[number % len(sources)] for number in range(facts.count)])
    if isinstance(edit, InvertFacts):
        return Inverted(pictures, edit.shows)
    editing.grid_from(generator, edit.noise)
    unknown = read_mask(arguments.mask, files, generator.shape) if edit.mask else None
    if unknown is not None and digest_of(unknown) != edit.mask:
        raise RequestError(f"mask: {arguments.mask!r} is not the one it was made with, SHA-256 {str(edit.mask)[:16]}")
    return FromPictures(pictures, edit.noise, unknown)


def check_size(work: Work, facts: Facts, before: Tensor) -> None:
    """Raise :class:`RequestError` where the file is not of the size that so many pictures have."""
    channels, height, width = facts.shape
    if facts.layout == "picture":
        expected = torch.Size(facts.shape)
    elif facts.count * height * width > before[0].numel():
        expected = None
    else:
        blank = torch.zeros(1, dtype=torch.uint8).expand(facts.count, channels, height, width)
        expected = sheet([blank] * work.groups, in_a_row=isinstance(work.edit, Between)).shape
    if before.shape != expected:
        raise RequestError(
            f"again: {list(before.shape)!s} is not the size of {facts.count} pictures of {list(facts.shape)}; it "
            "was changed after it was made"
        )


def attempts(work: Work, facts: Facts) -> Iterator[tuple[Work, int]]:
    """The work; and where a picture was made beside others, which may round a level differently, those too."""
    yield work, 0
    if facts.batch is not None and facts.batch[1] > 1 and work.edit is None:
        first, count = facts.batch
        numbers = range(first, first + count)
        if facts.seed not in numbers:
            return
        labels = work.labels and (work.labels * count if facts.label else work.model.generator.labels_of(numbers))
        yield replace(work, numbers=numbers, labels=labels, batch=count), facts.seed - first


def compare(before: Tensor, after: Tensor) -> Difference:
    """Two pictures, uint8 ``[c, h, w]``, pixel by pixel."""
    difference = (before.int() - after.int()).abs().amax(0)
    return Difference(int((difference > 0).sum()), difference.numel(), int(difference.max()))


def explain(facts: Facts) -> str:
    """What it may be where pixels differ."""
    return (
        f"made    with torch {facts.torch} on {facts.device or 'cpu'}, here with torch {torch.__version__}; other "
        "versions, devices and numbers of threads round differently"
    )
