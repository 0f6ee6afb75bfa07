"""What ``ddm sample`` does once the request is in order."""

import argparse
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddm.commands.console import Bar, Console, is_main
from ddm.commands.editing import Between, Edit, make_edit
from ddm.commands.evaluating import SAMPLING
from ddm.commands.films import checked, thinned, write_film
from ddm.commands.sample import FILMS
from ddm.commands.sharing import Shared
from ddm.commands.work import Work
from ddm.commands.writing import sheet, write
from ddm.generators import FixedPictures
from ddm.runs.sources import Model, load
from ddm.training import Team

COUNT, BATCH = 64, 64
"""Pictures in all and at a time where the request does not say."""


def sample(arguments: argparse.Namespace, out: Path, console: Console) -> int:
    """Make the pictures of the request and write them to ``out``."""
    options: dict[str, Any] = {name: value for name, value in vars(arguments).items() if name in SAMPLING}
    if "invert" in arguments:
        options.setdefault("guidance", 1.0)  # with any other the way down is not the way up
    team = Team(arguments.device)
    model = load(arguments.source, weights=arguments.weights, device=team.device.type, say=console.say, **options)
    shared = Shared(make_work(model, arguments), team)
    console.say(f"model   {model.path or model.name}" + (f", {model.weights} weights" if model.weights else ""))
    started, count = time.monotonic(), len(shared.work.numbers)
    with console.bar(len(shared.own.numbers) * shared.work.steps) as bar:
        make_and_write(out, shared, bar)
    seconds = time.monotonic() - started
    console.say(f"{count} pictures in {seconds:.1f} s ({count / seconds:.1f} a second)")
    if is_main():
        console.result(str(out), out=out, count=count, seed=arguments.seed, seconds=seconds, checkpoint=model.path)
    return 0


def make_and_write(out: Path, shared: Shared, bar: Bar) -> None:
    """What ``out`` is to hold: single pictures are written by the process that made them, one file by the first."""
    work, team = shared.work, shared.team
    if out.suffix.lower() in FILMS:
        row = isinstance(work.edit, Between)
        frames = checked(out, (sheet([pictures], in_a_row=row) for pictures in shared.frames(bar)))
        kept = thinned(frames) if team.rank == 0 else deque(frames, maxlen=0)
        team.first(lambda: write_film(out, list(kept)))
    elif out.suffix.lower() in (".png", ".npz"):
        made = shared.make(bar)
        team.first(lambda: write(out, work, iter([made])))
    else:
        team.together(lambda: write(out, work, shared.own.make(bar)))


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
