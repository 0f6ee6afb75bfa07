"""What ``ddm doctor SOURCE`` does once the request is in order."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ddm.commands.console import Console, Stages, duration, is_main
from ddm.commands.evaluating import SAMPLING, describe, evaluation_settings, load_model, load_reference, measure
from ddm.metrics.protocols import label
from ddm.runs import evaluation
from ddm.runs.case import Case, Variant
from ddm.runs.diagnosis import Diagnosis, Effect, Plan, attempt, effects_table, plan
from ddm.runs.evaluation import Evaluated, Evaluator
from ddm.runs.finding import Finding
from ddm.runs.known_causes import findings, trained
from ddm.runs.progress import finish
from ddm.runs.sources import Model, load
from ddm.runs.suspects import suspects
from ddm.runs.tables import markdown
from ddm.runs.verdict import verdict
from ddm.training import Team

METRICS, IMAGES = ("fid",), 2000
"""What is measured where nothing else is asked for."""


def diagnose(arguments: argparse.Namespace, console: Console) -> int:
    """Measure a baseline, then the same with one thing changed, again and again; exit status 0 whatever is found."""
    names = getattr(arguments, "suspects", list(suspects))
    for name in names:
        suspects.check(name, field="suspects")
    case = make_case(arguments, console)
    chosen = plan(case, names)
    run = trained(case.model, case.reference)
    seen = [] if run is None else findings(run)
    announce(case, chosen, console)
    baseline = measure(case.evaluator, case.model, case.model.generator, case.seed, console, name="baseline: ")
    estimate(baseline, chosen, console)
    effects, failed = carry_out(Diagnosis(baseline), chosen, console)
    if is_main():
        show(baseline, effects, chosen.left_out | failed, seen, console)
    return 0


def make_case(arguments: argparse.Namespace, console: Console) -> Case:
    """The source, how it is measured, and against what."""
    wanted = argparse.Namespace(**{"metrics": METRICS, "images": IMAGES} | vars(arguments))
    team = Team(arguments.device)
    model = load_model(arguments.source, wanted, team, console)
    settings = evaluation_settings(wanted, model)
    evaluation.check(settings)
    reference = load_reference(getattr(arguments, "reference", None), model)
    evaluator = Evaluator(settings, reference, team=team, batch=arguments.batch_size, say=console.say)
    options: dict[str, Any] = {name: value for name, value in vars(arguments).items() if name in SAMPLING}
    if model.kind == "run":  # other weights may have a searched grid of their own, which would be a second change
        options["grid"] = model.generator.settings()["grid"]
    # The very checkpoint: a run that goes on training has another one soon.
    reload = partial(_load, model.path or arguments.source, team.device.type, console, options)
    return Case(model, settings, reference, evaluator, arguments.seed, reload)


def _load(source: str | Path, device: str, console: Console, options: dict[str, Any], weights: str) -> Model:
    return load(source, weights=weights, device=device, say=console.say, **options)


def announce(case: Case, chosen: Plan, console: Console) -> None:
    """What will be done and what it costs, before it begins."""
    console.say(f"model   {describe(case.model)}")
    console.say(f"        baseline: {case.settings.images:,} pictures")
    for each in chosen.variants:
        console.say(f"        {each.suspect}: {each.change}: {cost(each)}")
    for name, reason in chosen.left_out.items():
        console.say(f"        {name}: left out: {reason}")
    total = case.settings.images + chosen.pictures
    console.say(f"cost    {total:,} pictures at most; what was made before is kept, so it may be interrupted")


def cost(variant: Variant) -> str:
    """``2,000 pictures, 0.5 times the time each``: the time of those of the baseline."""
    parts = [f"{variant.pictures:,} pictures"] if variant.pictures else []
    parts += [f"{variant.effort:g} times the time each"] if variant.pictures and variant.effort != 1 else []
    parts += [f"features of {variant.embedded:,} pictures"] if variant.embedded else []
    return ", ".join(parts) or "free"


def estimate(baseline: Evaluated, chosen: Plan, console: Console) -> None:
    """How long the pictures of all suspects will take, where the baseline's say so."""
    if not chosen.pictures:
        return
    if not baseline.made:
        console.say("time    not known: the pictures of the baseline were kept from before")
        return
    each = baseline.seconds["pictures"] / baseline.made
    console.say(f"time    about {duration(chosen.seconds(each))} for pictures, at most, and then their features")


def carry_out(diagnosis: Diagnosis, chosen: Plan, console: Console) -> tuple[list[Effect], dict[str, str]]:
    """The effects of all changes, and why some could not be seen."""
    effects: list[Effect] = []
    failed: dict[str, str] = {}
    for variant in chosen.variants:
        stages = Stages(console)
        name = f"{variant.suspect}: "
        try:
            work = attempt(diagnosis.effects(variant))
            found = finish(work, lambda p, s=stages, n=name: s(n + p.what, p.done, p.total))
        finally:
            stages.close()
        if isinstance(found, str):
            failed[f"{variant.suspect}, {variant.change}"] = found
            continue
        for each in found or []:
            low, high = each.interval
            told = f"{each.measurement.value:.4g}, difference {each.difference:+.3g} [{low:+.3g}, {high:+.3g}]"
            console.say(f"        {each.suspect}: {each.change}: {told}")
            effects.append(each)
    return effects, failed


def show(
    baseline: Evaluated,
    effects: Sequence[Effect],
    left_out: dict[str, str],
    seen: Sequence[Finding],
    console: Console,
) -> None:
    """The table, what it says, and what was seen in the run."""
    protocol, parts, said = baseline.protocol, [], {}
    for metric, found in baseline.measurements.items():
        mine = [each for each in effects if each.metric == metric]
        name = label(metric, protocol.features)
        said[metric] = verdict(name, found, protocol.n_fake, mine)
        warned = [
            *found.warnings,
            *(text for each in mine if each.kind == "limit" for text in each.measurement.warnings),
        ]
        parts += [markdown(effects_table(metric, baseline, mine)).rstrip("\n"), bullets(said[metric])]
        parts += [bullets([f"{name}: {text}" for text in dict.fromkeys(warned)])] if warned else []
    parts += [bullets([sentence(each) for each in seen])] if seen else []
    parts += [bullets([f"left out: {name}: {reason}" for name, reason in left_out.items()])] if left_out else []
    console.result(
        "\n\n".join(parts),
        baseline={name: asdict(each) for name, each in baseline.measurements.items()},
        protocol=asdict(protocol),
        effects=[asdict(each) | {"difference": each.difference, "interval": each.interval} for each in effects],
        verdict=said,
        findings=[asdict(each) for each in seen],
        left_out=left_out,
    )
    console.say("next: the same with more --images; what was made is kept")


def bullets(lines: Sequence[str]) -> str:
    """Lines as a list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def sentence(finding: Finding) -> str:
    """A finding as one line."""
    return f"{finding.status}: {finding.what}: {finding.seen}" + (f" -> {finding.cure}" if finding.cure else "")
