"""What ``ddm sample`` does once the request is in order."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddm.commands.console import Console
from ddm.commands.editing import Between, Edit, make_edit
from ddm.commands.evaluating import SAMPLING
from ddm.commands.films import checked, thinned, write_film
from ddm.commands.sample import FILMS
from ddm.commands.work import Work
from ddm.commands.writing import sheet, write
from ddm.generators import FixedPictures
from ddm.runs.sources import Model, load

COUNT, BATCH = 64, 64
"""Pictures in all and at a time where the request does not say."""


def sample(arguments: argparse.Namespace, out: Path, console: Console) -> int:
    """Make the pictures of the request and write them to ``out``."""
    options: dict[str, Any] = {name: value for name, value in vars(arguments).items() if name in SAMPLING}
    if "invert" in arguments:
        options.setdefault("guidance", 1.0)  # with any other the way down is not the way up
    model = load(arguments.source, weights=arguments.weights, device=arguments.device, say=console.say, **options)
    work = make_work(model, arguments)
    console.say(f"model   {model.path or model.name}" + (f", {model.weights} weights" if model.weights else ""))
    started, count = time.monotonic(), len(work.numbers)
    with console.bar(count * work.steps) as bar:
        if out.suffix.lower() in FILMS:
            frames = (sheet([pictures], in_a_row=isinstance(work.edit, Between)) for pictures in work.frames(bar))
            write_film(out, thinned(checked(out, frames)))
        else:
            write(out, work, work.make(bar))
    seconds = time.monotonic() - started
    console.say(f"{count} pictures in {seconds:.1f} s ({count / seconds:.1f} a second)")
    console.result(str(out), out=out, count=count, seed=arguments.seed, seconds=seconds, checkpoint=model.path)
    return 0


def make_work(model: Model, arguments: argparse.Namespace) -> Work:
    """What the request wants of the model; 64 pictures where it gives no count, or as many as there are.

    Raises:
        RequestError: an unknown label, more pictures than there are, a class of stored pictures, or an edit that is not
            possible.
    """
    limit, first, label = model.generator.limit, arguments.seed, arguments.label
    model.labels(label, 1)
    edit = make_edit(model, arguments)
    count = arguments.count or (COUNT if limit is None else max(1, min(COUNT, limit - first)))
    numbers = range(first, first + count)
    if isinstance(edit, Between):
        numbers = range(len(edit.shares))
    elif edit is not None:
        numbers = range(first, first + len(edit.pictures))
    if isinstance(model.generator, FixedPictures):
        model.generator.check(numbers, model.labels(label, count))
    labels = labels_of(model, label, edit, numbers)
    return Work(model, numbers, labels, label, arguments.batch_size or BATCH, edit)


def labels_of(model: Model, label: str | None, edit: Edit | None, numbers: range) -> list[int] | None:
    """The class of every picture: the one asked for; else a changed picture has none, and others take turns."""
    asked, classes = model.labels(label, len(numbers)), model.generator.classes
    if asked is None and isinstance(edit, Between):
        asked = model.generator.labels_of([edit.first] * len(numbers))
    elif asked is None and edit is not None and classes:
        asked = [classes] * len(numbers)
    found: Sequence[int] | None = model.generator.labels_of(numbers) if asked is None else asked
    return None if found is None else list(found)
