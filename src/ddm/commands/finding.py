"""The model that a picture was made with, found among the checkpoints that are there by the SHA-256 of its weights."""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddm.commands.recorded import Facts, problem_of
from ddm.errors import DdmError, RequestError
from ddm.registry import Choice
from ddm.runs import checkpoints
from ddm.runs.config import Sampling
from ddm.runs.manifest import read_manifest
from ddm.runs.naming import SHIPPED, named, shipped
from ddm.runs.sources import TAKES, Model, find_checkpoint, load

GUIDE = re.compile(r"step \d+ (?P<weights>raw|ema(?:-\d+)?) (?P<digest>[0-9a-f]{16})")
"""What a guide is called."""

STEPS = 10_000
"""Of a sampler, or iterations of an adaptive one, at most: a file may ask for no more."""

CHOICES = {"sampler", "grid", "clip"}
"""Settings that are written as calls."""

SHOWN = 300
"""Characters of a message that are shown where a file's own words may be in it."""


@dataclass(frozen=True)
class Weights:
    """Weights of a checkpoint.

    Args:
        checkpoint: its folder.
        name: ``ema``, ``ema-1``, ... or ``raw``.
        digest: SHA-256 of their file.
        step: of the checkpoint.
    """

    checkpoint: Path
    name: str
    digest: str
    step: int


def find_model(facts: Facts, arguments: argparse.Namespace, say: Callable[[str], None]) -> Model:
    """The model with the settings of a picture.

    Args:
        facts: of the picture.
        arguments: of the request: ``source``, ``runs`` and ``device``.
        say: told what is said in loading.

    Raises:
        RequestError: nothing that is there has this digest, or it cannot be set so.
    """
    model = _load_run(facts, arguments, say) if facts.kind == "run" else _load_other(facts, arguments, say)
    if model.digest != facts.digest:
        raise RequestError(f"source: {arguments.source!r} is not what {_wanted(facts, arguments)}")
    for name, value in facts.settings.items():
        found = model.generator.settings().get(name)
        if found != value:
            raise RequestError(f"again: {name} was {str(value)[:SHOWN]!r} and would be {found!r}")
    return model


def _load_run(facts: Facts, arguments: argparse.Namespace, say: Callable[[str], None]) -> Model:
    there = list(_weights(arguments.source, Path(arguments.runs).expanduser(), say))
    mine = [each for each in there if each.digest == facts.digest]
    if not mine:
        theirs = {each.checkpoint for each in there}
        looked = len(theirs if arguments.source else {each for each in theirs if SHIPPED not in each.parents})
        where = repr(arguments.source or arguments.runs)
        raise RequestError(
            f"source: none of the {looked} checkpoints in {where} is what {_wanted(facts, arguments)}; name "
            "the run or its --runs FOLDER, unless the checkpoint was pruned (--keep.last)"
        )
    best = min(mine, key=lambda each: each.step != facts.step)
    guide = facts.settings.get("guide")
    try:
        options = _sampling(facts)
        if guide is not None:
            options["guide"] = _guide(guide, arguments, say)
        return load(best.checkpoint, weights=best.name, device=arguments.device, say=say, **options)
    except RequestError as error:
        raise RequestError(str(error)[:SHOWN]) from None


def _load_other(facts: Facts, arguments: argparse.Namespace, say: Callable[[str], None]) -> Model:
    if arguments.source is None or named(arguments.source).kind != facts.kind:
        raise RequestError(f"source: {arguments.again!r} was made of a {facts.kind}: source; name it as SOURCE")
    options: dict[str, Any] = {name: facts.settings.get(name) for name in TAKES[facts.kind]}
    steps = options.get("steps")
    if steps is not None and not (isinstance(steps, int) and 1 <= steps <= STEPS):
        raise RequestError(f"again: steps: {steps!r} is not allowed; allowed: 1 to {STEPS}")
    size = None if facts.kind == "diffusers" else facts.shape[1]
    return load(arguments.source, device=arguments.device, say=say, image_size=size, **options)


def _sampling(facts: Facts) -> dict[str, Any]:
    """The settings as options, as if they stood in a recipe; raises :class:`RequestError` for any that is none."""
    given = {name: value for name, value in facts.settings.items() if name != "guide"}
    try:
        options = Sampling.model_validate(given, strict=True).model_dump(include=set(given))
    except ValidationError as error:
        raise RequestError(f"again: sample.{problem_of(error)}") from None
    numbers = {"steps": options.get("steps", 1)}
    for name in CHOICES & options.keys():
        choice = Choice.parse(options[name], field=f"again: sample.{name}")
        numbers |= {f"sample.{name}: {option}": value for option, value in choice.options.items()}
        if choice.name == "searched":  # it would be searched now, and kept; a picture has the levels themselves
            raise RequestError("again: sample.grid: 'searched' is not allowed; allowed: levels(at=...)")
    for name, value in numbers.items():
        if isinstance(value, int) and value > STEPS:
            raise RequestError(f"again: {name}: {value} is not allowed; allowed: 1 to {STEPS}")
    return options


def _weights(source: str | None, runs: Path, say: Callable[[str], None]) -> Iterator[Weights]:
    """All weights in a run or a checkpoint, or in all runs of a folder."""
    beside = [*sorted(each.parent for each in runs.glob("*/config.yaml")), *shipped().values()]
    for folder in beside if source is None else [Path(named(source).text).expanduser()]:
        steps = checkpoints.steps(folder / "checkpoints")
        found = [checkpoints.place_of(folder / "checkpoints", step) for step in steps]
        if source is not None and not found:
            found = [find_checkpoint(folder, say)[0]]
        for checkpoint in reversed(found):
            try:
                manifest = read_manifest(checkpoint)
            except DdmError as error:
                say(f"{error}; passed over")
                continue
            for file, entry in manifest.files.items():
                group = file.removesuffix(".safetensors")
                if group not in (file, "state"):
                    yield Weights(checkpoint, "raw" if group == "weights" else group, entry["sha256"], manifest.step)


def _guide(name: object, arguments: argparse.Namespace, say: Callable[[str], None]) -> str:
    """What :func:`load` calls the guide of this name: in the same run, or in another beside it."""
    wanted = GUIDE.fullmatch(str(name))
    if wanted is None:
        raise RequestError("again: guide: its name is none of ours")
    places = ([arguments.source] if arguments.source is not None else []) + [None]
    for place in places:
        for each in _weights(place, Path(arguments.runs).expanduser(), say):
            if each.digest.startswith(wanted["digest"]):
                return f"{each.checkpoint}/{each.name}"
    raise RequestError(f"guide: no checkpoint in {arguments.runs!r} is the guide, {wanted[0]}; name its --runs FOLDER")


def _wanted(facts: Facts, arguments: argparse.Namespace) -> str:
    step = "" if facts.step is None else f", step {facts.step}"
    return f"{arguments.again!r} was made with: SHA-256 {facts.digest[:16]}{step}"
