"""What was measured of a run, for people: a table a protocol, since numbers of two protocols cannot be compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ddm.errors import DdmError
from ddm.metrics.protocols import Protocol
from ddm.runs.anonymous import without_paths
from ddm.runs.config import Config
from ddm.runs.making import special
from ddm.runs.recorded import measurement_of
from ddm.runs.tables import Cell, Column


@dataclass(frozen=True)
class Number:
    """A row of the table, all for people.

    Args:
        label: with an arrow to where it is better.
        value: with as many digits as the interval supports.
        interval: of 95 %.
        sampler: and what else is special about the making of the pictures.
        steps: of the sampler.
        weights: the average, or ``raw``.
        step: of the training.
        date: of the measurement.
    """

    label: str
    value: str
    interval: str
    sampler: str
    steps: str
    weights: str
    step: str
    date: str


@dataclass(frozen=True)
class Group:
    """Numbers that may be set side by side.

    Args:
        protocol: how they were measured.
        rows: in the order of the measurements.
        earlier: measurements of the training besides its last, which the curves show.
    """

    protocol: Protocol
    rows: list[Number]
    earlier: int


@dataclass(frozen=True)
class Numbers:
    """All that was measured.

    Args:
        groups: one a protocol.
        warnings: what has to be known, each once.
        unreadable: records that say nothing which could be shown.
    """

    groups: list[Group]
    warnings: list[str]
    unreadable: int


def readable(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records of evaluations.jsonl that have all that is needed to show them."""
    return [dict(each) for each in records if _is_readable(each)]


def read_numbers(records: Sequence[Mapping[str, Any]], config: Config) -> Numbers:
    """The tables of a run.

    Args:
        records: of evaluations.jsonl.
        config: of the run, which says how pictures were made that were measured in training.
    """
    sound = readable(records)
    protocols = {each["protocol_digest"]: Protocol.of(each) for each in sound}
    groups = [_group(protocol, digest, sound, config) for digest, protocol in protocols.items()]
    warnings = dict.fromkeys(
        without_paths(f"{each['label']}: {text}") for each in sound for text in each.get("warnings", ())
    )
    return Numbers(groups, list(warnings), len(records) - len(sound))


def _group(protocol: Protocol, digest: str, records: list[dict[str, Any]], config: Config) -> Group:
    mine = [each for each in records if each["protocol_digest"] == digest]
    last = max((each["step"] for each in mine if each.get("by") == "train"), default=None)
    shown = [each for each in mine if each.get("by") != "train" or each["step"] == last]
    latest = {_identity(each): each for each in shown}  # the same again takes the place of the earlier one
    earlier = sum(each.get("by") == "train" for each in mine) - sum(each.get("by") == "train" for each in shown)
    return Group(protocol, [_number(each, config) for each in latest.values()], earlier)


def _identity(record: Mapping[str, Any]) -> str:
    return repr([record.get(name) for name in ("label", "step", "weights", "generation", "by")])


def _number(record: Mapping[str, Any], config: Config) -> Number:
    found = measurement_of(record)
    cell = Cell(float(found.value), float(found.low), float(found.high))
    made = record.get("generation") or config.sample.model_dump()
    step, when = record.get("step"), record.get("time")
    return Number(
        label=Column(record["label"], found.better).heading,
        value=cell.words,
        interval=cell.interval,
        sampler=", ".join([str(made.get("sampler", "")), *special(made)]),
        steps=str(made.get("steps", "")),
        weights=str(record.get("weights") or ""),
        step=f"{step:,}" if isinstance(step, int) else "",
        date=f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d}" if isinstance(when, (int, float)) else "",
    )


def _is_readable(record: Mapping[str, Any]) -> bool:
    try:
        Protocol.of(record)
        found = measurement_of(record)
    except DdmError:
        return False
    numbers = all(isinstance(each, (int, float)) for each in (found.value, found.low, found.high))
    words = all(isinstance(record.get(name), str) for name in ("label", "metric", "protocol_digest"))
    trained = record.get("by") != "train" or isinstance(record.get("step"), int)
    return numbers and words and trained and found.better in ("lower", "higher")


def drawable(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The readable records whose numbers are finite, so that there is a place for them in a drawing."""
    return [each for each in readable(records) if all(math.isfinite(each[name]) for name in ("value", "low", "high"))]
