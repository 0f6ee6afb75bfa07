"""The sources of a comparison: loaded, named apart and found to be alike before any of them is measured."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ddm.commands.console import Console
from ddm.commands.evaluating import SAMPLING
from ddm.errors import RequestError
from ddm.generators import Generator
from ddm.runs.cost import evaluations_of, network_of, with_evaluations
from ddm.runs.naming import named
from ddm.runs.sources import TAKES, Model, load
from ddm.training import Team


@dataclass(frozen=True)
class Rung:
    """A model with a chosen number of network evaluations.

    Args:
        generator: the model's, with other steps.
        evaluations: as many as it takes, which may be fewer than were asked for.
    """

    generator: Generator
    evaluations: int


@dataclass(frozen=True)
class Entry:
    """A source that is in order.

    Args:
        name: no other has it.
        model: loaded.
        evaluations: of its network for one picture; None without a network.
        ladder: the same at chosen numbers of evaluations.
    """

    name: str
    model: Model
    evaluations: int | None
    ladder: Sequence[Rung] = ()


def load_models(arguments: argparse.Namespace, team: Team, console: Console) -> dict[str, Model]:
    """All sources by distinct names, each with those of the request's settings that it can take.

    Raises:
        RequestError: a source cannot be had, or there is a setting or ``--nfe`` that none can take.
    """
    given = {name: value for name, value in vars(arguments).items() if name in SAMPLING}
    kinds = [named(source).kind for source in arguments.sources]
    takes = [SAMPLING if kind == "run" else (*TAKES[kind], "image_size") for kind in kinds]
    for name, value in given.items():
        if not any(name in each for each in takes):
            raise RequestError(f"{name}: {value!r} is not allowed: none of these sources can take it")
    models = []
    for source, kind, each in zip(arguments.sources, kinds, takes):
        options = {name: value for name, value in given.items() if name in each}
        weights = arguments.weights if kind == "run" else "ema"
        models.append(load(source, weights=weights, device=team.device.type, say=console.say, **options))
    if hasattr(arguments, "nfe") and all(network_of(model.generator) is None for model in models):
        raise RequestError("nfe: none of these sources has a network whose evaluations could be chosen")
    names = distinct([model.name for model in models], arguments.sources)
    return dict(zip(names, models))


def distinct(names: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Names that tell sources apart: where two are the same, the sources as they were written; then numbers."""
    told: list[str] = []
    for name, source in zip(names, sources):
        wanted = source if names.count(name) > 1 else name
        free, number = wanted, 1
        while free in told:
            number += 1
            free = f"{wanted} ({number})"
        told.append(free)
    return told


def check_alike(models: Mapping[str, Model], *, seed: int, count: int) -> None:
    """Raise :class:`RequestError` unless all make enough pictures of one size.

    Args:
        models: by name.
        seed: of the first picture.
        count: pictures of each.
    """
    (first, wanted), *others = ((name, model.generator.shape) for name, model in models.items())
    for name, shape in others:
        if shape != wanted:
            raise RequestError(
                f"source: {first} has pictures of {_size(wanted)} and {name} of {_size(shape)}; "
                "allowed: one size and number of channels (--image-size N resizes stored pictures)"
            )
    for name, model in models.items():
        limit = model.generator.limit
        if limit is not None and limit < seed + count:
            beyond = f" from number {seed} on" if seed else ""
            raise RequestError(f"images: {count}{beyond} is not allowed; {name} has only {limit}")


def check_lessons(models: Mapping[str, Model]) -> None:
    """Raise :class:`RequestError` where models learned different pictures: it must be said which are the reference."""
    learned = {name: model.config.data for name, model in models.items() if model.config is not None}
    for name, data in learned.items():
        first, wanted = next(iter(learned.items()))
        if data != wanted:
            raise RequestError(
                f"reference: {first} learned from {wanted} and {name} from {data}; "
                f"name one, as in --reference '{wanted}'"
            )


def enter(models: Mapping[str, Model], nfe: Sequence[int], *, seed: int) -> list[Entry]:
    """Count what a picture costs each model, and find the steps of the numbers of evaluations that are asked for.

    Raises:
        RequestError: a model cannot make pictures with so many evaluations.
    """
    entries = []
    for name, model in models.items():
        rungs = _rungs(model, nfe, seed)
        entries.append(Entry(name, model, evaluations_of(model.generator, seed=seed), rungs))
    return entries


def _rungs(model: Model, nfe: Iterable[int], seed: int) -> list[Rung]:
    """One a number of evaluations; two that were asked for may come to the same."""
    rungs: dict[int, Rung] = {}
    for wanted in sorted(set(nfe)):
        found = with_evaluations(model.generator, wanted, model.grids)
        count = None if found is None else evaluations_of(found, seed=seed)
        if found is not None and count is not None:
            rungs[count] = Rung(found, count)
    return list(rungs.values())


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width}x{height}x{channels}"
