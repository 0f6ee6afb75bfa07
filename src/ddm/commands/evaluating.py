"""What ``ddm evaluate`` does once the request is in order."""

import argparse
import json
from typing import Any

from ddm.commands.console import Console, Stages, is_main
from ddm.data import ImageSet, get_data
from ddm.errors import DdmError, RequestError
from ddm.generators import Generator
from ddm.metrics import Measurement
from ddm.metrics.protocols import label
from ddm.runs import evaluation, log, naming
from ddm.runs.config import Evaluation
from ddm.runs.evaluation import Evaluated, Evaluator
from ddm.runs.folder import Run
from ddm.runs.making import in_words
from ddm.runs.progress import finish
from ddm.runs.sources import Model, load
from ddm.training import Team
from ddm.version import __version__

SAMPLING = (
    "sampler",
    "steps",
    "grid",
    "guidance",
    "guidance_low",
    "guidance_high",
    "guide",
    "clip",
    "precision",
    "image_size",
)
REFERENCE = "cifar10"
"""What pictures are compared with where nothing says what they were learned from."""


def evaluate(arguments: argparse.Namespace, console: Console) -> int:
    """Measure one source; a run keeps the numbers in its evaluations.jsonl."""
    team = Team(arguments.device)
    model = load_model(arguments.source, arguments, team, console)
    settings = evaluation_settings(arguments, model)
    evaluation.check(settings)
    reference = load_reference(getattr(arguments, "reference", None), model)
    evaluator = Evaluator(settings, reference, team=team, batch=arguments.batch_size, say=console.say)
    console.say(f"model   {describe(model)}")
    evaluated = measure(evaluator, model, model.generator, arguments.seed, console)
    if is_main():
        records = evaluated.records(**facts_of(model), by="evaluate")
        keep(model, records)
        console.say(f"how     {evaluated.protocol.name}")
        for text in warnings(evaluated):
            console.say(f"warning {text}")
        console.result("\n".join(lines(evaluated)), evaluations=json.loads(json.dumps(records, default=str)))
        if evaluated.failed:
            raise DdmError(f"{', '.join(evaluated.failed)} could not be measured; the other numbers are kept")
        following = f"ddm report {arguments.source}" if model.kind == "run" else f"ddm compare {arguments.source} ..."
        console.say(f"next: {following}")
    return 0


def measure(
    evaluator: Evaluator, model: Model, generator: Generator, seed: int, console: Console, *, name: str = ""
) -> Evaluated:
    """Measure a model's pictures, saying how far it is.

    Args:
        evaluator: measures.
        model: whose pictures.
        generator: makes them: the model's own, or one with other settings.
        seed: of the first picture.
        console: where it is said.
        name: before what is said, where several are measured.
    """
    stages = Stages(console)
    try:
        work = evaluator.evaluate(generator, identity=model.digest, seed=seed, classes=model.classes)
        evaluated = finish(work, lambda progress: stages(name + progress.what, progress.done, progress.total))
    finally:
        stages.close()
    assert evaluated is not None, "nothing leaves early"
    for metric, reason in evaluated.failed.items():
        console.say(f"warning {name}{metric} was not measured: {reason}")
    return evaluated


def load_model(source: str, arguments: argparse.Namespace, team: Team, console: Console) -> Model:
    """The model of a source with the request's way of making pictures."""
    options = {name: value for name, value in vars(arguments).items() if name in SAMPLING}
    return load(source, weights=arguments.weights, device=team.device.type, say=console.say, **options)


def evaluation_settings(arguments: argparse.Namespace, model: Model | None) -> Evaluation:
    """The run's own settings with the request's changes."""
    base = model.config.evaluate if model is not None and model.config is not None else Evaluation()
    given = {name: value for name, value in vars(arguments).items() if name in Evaluation.model_fields}
    if given.get("images", 2) < 2:
        raise RequestError(f"images: {given['images']} is not allowed; allowed: 2 or more")
    return base.model_copy(update=given | ({"metrics": tuple(given["metrics"])} if "metrics" in given else {}))


def load_reference(choice: str | None, model: Model) -> ImageSet:
    """The real pictures at the size of the model's: those it learned from unless the request names others.

    Raises:
        RequestError: they cannot be had, or have another number of channels.
    """
    _, height, width = model.generator.shape
    if height != width:
        raise RequestError(f"source: pictures of {width}x{height} cannot be measured; allowed: squares")
    learned = model.config.data if model.config is not None else REFERENCE
    reference = get_data(choice or learned, image_size=height)
    if reference.channels != model.generator.shape[0]:
        raise RequestError(
            f"reference: {reference.name} has {reference.channels} channels and {model.name} "
            f"{model.generator.shape[0]}; allowed: pictures of one kind"
        )
    return reference


def facts_of(model: Model) -> dict[str, Any]:
    """What was measured, as plain values: the model and how its pictures were made."""
    return {
        "model": model.name,
        "kind": model.kind,
        "model_digest": model.digest,
        "step": model.step,
        "weights": model.weights,
        "generation": model.generator.settings(),
        "ddm": __version__,
    }


def keep(model: Model, records: list[dict[str, Any]]) -> None:
    """Append to the evaluations.jsonl of the model's run, where it is part of one that is the user's."""
    if model.run is None or model.run.parent == naming.SHIPPED:
        return
    for record in records:
        log.append(Run.open(model.run).evaluations, record)


def describe(model: Model, *, name: str | None = None) -> str:
    """Its name (or another) and how its pictures are made."""
    parts = [name or model.name] + ([f"step {model.step}"] if model.step is not None else [])
    parts += [f"{model.weights} weights"] if model.weights else []
    return ", ".join([*parts, *in_words(model.generator.settings())])


def lines(evaluated: Evaluated) -> list[str]:
    """The table for people."""
    rows = [(label(name, evaluated.protocol.features), each) for name, each in evaluated.measurements.items()]
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {number(each)}   {each.better} is better" for name, each in rows]


def number(measurement: Measurement) -> str:
    """``12.3  [12.1, 12.5]``: the value and its 95 % interval."""
    return f"{measurement.value:>9.4g}  [{measurement.low:.4g}, {measurement.high:.4g}]"


def warnings(evaluated: Evaluated) -> list[str]:
    """What has to be known about the numbers, each once."""
    named = [(label(name, evaluated.protocol.features), each) for name, each in evaluated.measurements.items()]
    return list(dict.fromkeys(f"{name}: {text}" for name, each in named for text in each.warnings))
