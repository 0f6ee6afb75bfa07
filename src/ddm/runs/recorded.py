"""What runs have on record in their evaluations.jsonl, side by side without measuring anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddm.errors import DdmError, RequestError
from ddm.metrics import Measurement
from ddm.metrics.protocols import Protocol, refuse_unequal
from ddm.runs import log
from ddm.runs.comparison import Compared
from ddm.runs.folder import Run
from ddm.runs.making import in_words

SAME = ("step", "weights", "generation", "model_digest")
"""What records of one model in one setting share."""


@dataclass(frozen=True)
class Recorded:
    """What a run says about itself.

    Args:
        name: of the run, with the step.
        records: the latest of each metric of the model that was measured last, by label.
    """

    name: str
    records: Mapping[str, Mapping[str, Any]]


def read_recorded(
    path: Path, *, metrics: Sequence[str] = (), features: str | None = None, images: int | None = None
) -> Recorded:
    """The latest numbers of a run, all of the same weights, step and sampler.

    Args:
        path: the run's folder.
        metrics: only these choices, if any are named.
        features: only in this feature space.
        images: only of so many generated pictures.

    Raises:
        RequestError: no run is there, or it has no such number.
    """
    run = Run.open(path)
    found = [each for each in log.read(run.evaluations) if "label" in each]
    found = [each for each in found if not metrics or each.get("metric") in metrics]
    found = [each for each in found if features is None or Protocol.of(each).features == features]
    found = [each for each in found if images is None or Protocol.of(each).n_fake == images]
    if not found:
        raise RequestError(f"source: {str(path)!r} has no such number on record; measure it with ddm evaluate {path}")
    alike = [each for each in found if all(each.get(name) == found[-1].get(name) for name in SAME)]
    return Recorded(f"{run.name}, step {found[-1].get('step')}", {each["label"]: each for each in alike})


def compare_recorded(runs: Sequence[Recorded], *, force: bool = False) -> tuple[list[Compared], list[str]]:
    """The runs' numbers, and what has to be said about them.

    Args:
        runs: of different names.
        force: mark numbers of another protocol than the first run's instead of refusing them.

    Raises:
        RequestError: nothing was measured of two runs, or not under one protocol.
    """
    labels = list(dict.fromkeys(label for run in runs for label in run.records))
    notes: list[str] = []
    unequal: dict[str, set[str]] = {run.name: set() for run in runs}
    for label in labels:
        protocols = {run.name: Protocol.of(run.records[label]) for run in runs if label in run.records}
        if not force:
            refuse_unequal(protocols)
        (first, wanted), *others = protocols.items()
        notes.append(f"{label}: {wanted.name}.")
        for name, protocol in others:
            if different := wanted.differences(protocol):
                unequal[name].add(label)
                notes.append(f"≠ {label} of {name} and of {first} differ in {'; '.join(different)}.")
    if not force:
        _refuse_other_weights(runs)
    if len(runs) > 1 and all(sum(label in run.records for run in runs) < 2 for label in labels):
        has = "; ".join(f"{run.name} has {', '.join(run.records)}" for run in runs)
        raise RequestError(f"source: no number is on record of two runs: {has}; measure them with ddm compare")
    notes += [
        f"{run.name}, {label}: {text}." for run in runs for label, each in run.records.items() for text in _said(each)
    ]
    return [_compared(run, frozenset(unequal[run.name])) for run in runs], notes


def _said(record: Mapping[str, Any]) -> Sequence[str]:
    """The warnings that were given with a number."""
    return record.get("warnings") or ()


def _refuse_other_weights(runs: Sequence[Recorded]) -> None:
    """Averaged against raw weights is the oldest mistake of this field's tables."""
    kinds = {run.name: str(next(iter(run.records.values())).get("weights")).partition("-")[0] for run in runs}
    if len(set(kinds.values())) > 1:
        each = ", ".join(f"{name} has {kind}" for name, kind in kinds.items())
        raise RequestError(f"weights: {each}; measure both with ddm compare, or --force to show them side by side")


def _compared(run: Recorded, unequal: frozenset[str]) -> Compared:
    measurements = {label: measurement_of(record) for label, record in run.records.items()}
    return Compared(run.name, measurements, unequal=unequal, made=made_with(next(iter(run.records.values()))))


def made_with(facts: Mapping[str, Any]) -> str:
    """How pictures were made, from the ``weights`` and ``generation`` of a record."""
    return ", ".join(in_words({"weights": facts.get("weights"), **(facts.get("generation") or {})}))


def measurement_of(record: Mapping[str, Any]) -> Measurement:
    """The number in a line of evaluations.jsonl; raises :class:`DdmError` where it has none."""
    try:
        named = {name: record[name] for name in ("value", "low", "high", "better")}
    except KeyError as error:
        raise DdmError(f"evaluations: a record of {record.get('metric')!r} has no {error.args[0]!r}") from None
    return Measurement(**named, details=record.get("details", {}), warnings=tuple(record.get("warnings", ())))
