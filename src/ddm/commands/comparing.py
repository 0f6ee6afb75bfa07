"""What ``ddm compare`` does once the request is in order."""

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ddm.commands.console import Console, is_main
from ddm.commands.entries import Entry, check_alike, check_lessons, distinct, enter, load_models
from ddm.commands.evaluating import describe, evaluation_settings, facts_of, keep, load_reference, measure, warnings
from ddm.errors import RequestError
from ddm.generators import Generator
from ddm.metrics import features
from ddm.metrics.protocols import label
from ddm.runs import evaluation
from ddm.runs.atomic import replace_file
from ddm.runs.comparison import Compared, all_differences, comparison_table, difference_table, labels, ladder_table
from ddm.runs.cost import parameters_of
from ddm.runs.evaluation import Evaluated, Evaluator
from ddm.runs.model import Model
from ddm.runs.naming import named
from ddm.runs.recorded import Recorded, compare_recorded, made_with, read_recorded
from ddm.runs.side_by_side import SHOWN, draw_side_by_side
from ddm.runs.tables import Cell, latex, markdown, to_csv
from ddm.runs.tradeoff import draw_tradeoff
from ddm.training import Team
from ddm.version import __version__


@dataclass
class Comparison:
    """All that is shown, as it grows.

    Args:
        sources: in the order in which they were named.
        records: lines as in evaluations.jsonl.
        notes: sentences under the table.
        warnings: what has to be known about numbers, and whose.
        ladder: sources with a network, by name, at chosen numbers of its evaluations.
        rungs: their records.
        protocol: in words, where all numbers are of one.
    """

    sources: list[Compared] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    ladder: dict[str, list[Compared]] = field(default_factory=dict)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    protocol: str = ""


def compare(arguments: argparse.Namespace, console: Console) -> int:
    """Measure all sources under one protocol, or read what runs have on record, and show it."""
    out = check_folder(arguments.out)
    found = recorded(arguments) if arguments.recorded else measured(arguments, console)
    if is_main():
        show(found, out, console, published=arguments.published)
    return 0


def check_folder(text: str | None) -> Path | None:
    """The folder for the files, made if it is not there; raises :class:`RequestError` where that cannot be."""
    if text is None:
        return None
    path = Path(text).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"out: {text!r} is not allowed: {error.strerror}; allowed: a folder") from None
    return path


def recorded(arguments: argparse.Namespace) -> Comparison:
    """What runs have on record."""
    space, images = getattr(arguments, "features", None), getattr(arguments, "images", None)
    wanted = {"metrics": getattr(arguments, "metrics", ()), "images": images}
    wanted["features"] = None if space is None else str(features.check(space, field="evaluate.features"))
    runs = [read_recorded(Path(named(source).text).expanduser(), **wanted) for source in arguments.sources]
    names = distinct([run.name for run in runs], arguments.sources)
    runs = [Recorded(name, run.records) for name, run in zip(names, runs)]
    sources, notes = compare_recorded(runs, force=arguments.force)
    records = [{"source": run.name, **record} for run in runs for record in run.records.values()]
    return Comparison(sources, records, notes)


def measured(arguments: argparse.Namespace, console: Console) -> Comparison:
    """Check all sources, then measure each."""
    team = Team(arguments.device)
    models = load_models(arguments, team, console)
    trained = next((model for model in models.values() if model.config is not None), next(iter(models.values())))
    settings = evaluation_settings(arguments, trained)
    evaluation.check(settings)
    check_alike(models, seed=arguments.seed, count=settings.images)
    choice = getattr(arguments, "reference", None)
    if choice is None:
        check_lessons(models)
    reference = load_reference(choice, trained)
    evaluator = Evaluator(settings, reference, team=team, batch=arguments.batch_size, say=console.say)
    entries = enter(models, getattr(arguments, "nfe", ()), seed=arguments.seed)
    found = Comparison()
    for entry in entries:
        measure_entry(found, entry, evaluator, arguments.seed, console)
    for entry in entries:
        measure_ladder(found, entry, evaluator, arguments.seed, console)
    if any(each.seconds is not None for each in found.sources):
        found.notes.append(seconds_note(team, evaluator))
    return found


def measure_entry(found: Comparison, entry: Entry, evaluator: Evaluator, seed: int, console: Console) -> None:
    """Add one source, as its settings are, to what was found; a run keeps its numbers as after ``ddm evaluate``."""
    model = entry.model
    console.say(f"model   {describe(model, name=entry.name)}")
    evaluated = measure(evaluator, model, model.generator, seed, console, name=f"{entry.name}: ")
    source = compared(entry.name, evaluated, model, model.generator, entry.evaluations)
    facts = {**facts_of(model), "parameters": source.parameters, "evaluations": entry.evaluations, "by": "compare"}
    records = evaluated.records(**facts)
    if is_main():
        keep(model, records)
    found.sources.append(source)
    found.records += [{"source": entry.name, **record} for record in records]
    for text in warnings(evaluated):
        found.warnings.setdefault(text, []).append(entry.name)
    found.protocol = evaluated.protocol.name


def measure_ladder(found: Comparison, entry: Entry, evaluator: Evaluator, seed: int, console: Console) -> None:
    """Add one source at the numbers of evaluations that were asked for to what was found."""
    for rung in entry.ladder:
        name = f"{entry.name}, {rung.evaluations} evaluations: "
        evaluated = measure(evaluator, entry.model, rung.generator, seed, console, name=name)
        facts = facts_of(entry.model) | {"generation": rung.generator.settings(), "evaluations": rung.evaluations}
        found.rungs += [{"source": entry.name, **record} for record in evaluated.records(**facts, by="compare")]
        source = compared(entry.name, evaluated, entry.model, rung.generator, rung.evaluations)
        found.ladder.setdefault(entry.name, []).append(source)


def compared(name: str, evaluated: Evaluated, model: Model, generator: Generator, evaluations: int | None) -> Compared:
    """What the tables and pictures need of a measured source; the features are let go."""
    space = evaluated.protocol.features
    return Compared(
        name,
        {label(metric, space): each for metric, each in evaluated.measurements.items()},
        parameters=parameters_of(generator),
        evaluations=evaluations,
        seconds=evaluated.seconds["pictures"] / evaluated.made if evaluated.made and evaluations else None,
        pixels=evaluated.fake.pixels[:SHOWN].cpu(),
        made=made_with({"weights": model.weights, "generation": generator.settings()}),
    )


def seconds_note(team: Team, evaluator: Evaluator) -> str:
    """What the seconds of a picture are measured on."""
    shared = f" and {team.count} processes" if team.count > 1 else ""
    return (
        f"Seconds a picture: on {team.device.type}{shared}, {evaluator.batch} pictures at a time; not given where the "
        "pictures had been made before."
    )


def show(found: Comparison, out: Path | None, console: Console, *, published: bool) -> None:
    """The tables on stdout, and all files where a folder was named."""
    differences = all_differences(found.sources)
    notes = [f"Measured: {found.protocol}."] if found.protocol else []
    notes += [*found.notes, *(f"{', '.join(names)}: {text}" for text, names in found.warnings.items())]
    table = comparison_table(found.sources, differences, published=published, notes=notes)
    text = markdown(table)
    if differences:
        text += "\n" + markdown(difference_table(differences))
    if found.ladder:
        text += "\n" + markdown(ladder_table(found.ladder))
    facts = {
        "ddm": __version__,
        "records": found.records,
        "differences": [asdict(each) for each in differences],
        "nfe": found.rungs,
    }
    if out is not None:
        files = {"table.md": text, "table.csv": to_csv(table), "table.tex": latex(table)}
        files["comparison.json"] = json.dumps(facts, indent=1, default=str) + "\n"
        for name, content in files.items():
            replace_file(out / name, content.encode())
        draw(found, out)
    console.result(text.rstrip("\n"), **facts)
    written = "" if out is None else ", ".join(sorted(path.name for path in out.iterdir() if path.is_file()))
    console.say(f"files   {out}: {written}" if out else "next: the same with --out FOLDER, for pictures and files")


def draw(found: Comparison, out: Path) -> None:
    """The pictures of all sources side by side, and quality against cost where it was measured."""
    first = labels(found.sources)[0]
    pictures = {each.name: each.pixels for each in found.sources if each.pixels is not None}
    if pictures:
        captions = {each.name: caption(each, first) for each in found.sources}
        draw_side_by_side(pictures, captions, out / "grids.png", title=found.protocol)
    if found.ladder:
        flat = [each for each in found.sources if each.evaluations is None]
        draw_tradeoff(found.ladder, flat, first, out / "nfe.png", title=found.protocol)


def caption(source: Compared, label: str) -> str:
    """What stands under a source's name: its number, and what a picture costs."""
    found = source.measurements[label]
    number = Cell(found.value, found.low, found.high)
    cost = f"\n{source.evaluations:,} evaluations a picture" if source.evaluations else ""
    return f"{label} {number.words}  {number.interval}{cost}"
