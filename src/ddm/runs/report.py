"""One HTML file that shows a run: nothing in it is fetched, and nothing in it tells where it was made."""

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from ddm.errors import DdmError
from ddm.runs import curves, log
from ddm.runs.anonymous import without_paths
from ddm.runs.closest import COPY
from ddm.runs.config import Config
from ddm.runs.folder import Run
from ddm.runs.inline import drawing
from ddm.runs.making import special
from ddm.runs.newest import Newest, show_newest
from ddm.runs.numbers import Numbers, drawable, read_numbers
from ddm.runs.progress import Progress
from ddm.runs.repeating import Setting, grouped_settings, nearest_recipe, train_command
from ddm.runs.training_film import TrainingFilm, evenly, read_film
from ddm.version import __version__

TEMPLATE = "report.html.jinja"
LOSS = "training loss"
MOST_POINTS = 2000
"""Of a curve; more would weigh much and look the same."""


@dataclass(frozen=True)
class State:
    """How far a run is.

    Args:
        step: of the newest record; 0 without any.
        total: steps of the whole run.
        images: seen in training.
        speed: images a second of training, on average; None without records.
        wall: seconds of all sessions, from their start to their last record; None where that is not known.
        until: when the newest record was written.
    """

    step: int
    total: int
    images: int
    speed: float | None
    wall: float | None
    until: str


@dataclass(frozen=True)
class Curve:
    """A drawing, as an SVG element, and what it is of."""

    name: str
    svg: str


@dataclass(frozen=True)
class Environment:
    """Machine and versions.

    Args:
        starts: of the sessions in it, in words.
        facts: what is told of it.
    """

    starts: list[str]
    facts: dict[str, str]


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Args:
        name: of the run.
        made: when the page was.
        version: of this program.
        config: what it is a run of.
        data: the data set, without paths.
        state: how far it is.
        recipe: the one that needs the fewest changes.
        settings: all, by group.
        curves: of the training.
        film: the grids of the training.
        newest: what the newest checkpoint makes, if there is one.
        numbers: what was measured.
        environments: where it ran.
        command: that repeats the run.
        copy: the ratio under which a picture counts as a copy.
    """

    name: str
    made: str
    version: str
    config: Config
    data: str
    state: State
    recipe: str
    settings: Mapping[str, Sequence[Setting]]
    curves: Sequence[Curve]
    film: TrainingFilm
    newest: Newest | None
    numbers: Numbers
    environments: Sequence[Environment]
    command: str
    copy: float = COPY


def gather(run: Run, *, device: str, say: Callable[[str], None]) -> Generator[Progress, None, Report]:
    """All facts of a run, some of which are made now; yields how far it is.

    What is missing is missing in the report, which says how to get it; nothing of that is an error.

    Args:
        run: finished, interrupted, or in the middle of its training.
        device: on which the newest checkpoint makes pictures.
        say: told what could not be read, and why: that may name files, so it does not go into the page.
    """
    records, evaluations = _records(run.metrics, say), _records(run.evaluations, say)
    sessions = _sessions(run)
    newest = yield from show_newest(run, device=device, say=say)
    config = run.config
    return Report(
        name=run.path.resolve().name,
        made=_moment(datetime.now(UTC).timestamp()),
        version=__version__,
        config=config,
        data=without_paths(config.data),
        state=_state(config, records, sessions, 0 if newest is None else newest.step),
        recipe=nearest_recipe(config),
        settings=grouped_settings(config),
        curves=list(_curves(records, evaluations)),
        film=read_film(run.samples, config),
        newest=newest,
        numbers=read_numbers(evaluations, config),
        environments=_environments(sessions),
        command=train_command(config, run.path.resolve().name),
    )


def render(report: Report) -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters = {"duration": duration, "fingerprint": fingerprint, "shareable": without_paths, "special": special}
    environment.filters |= filters
    template = resources.files("ddm.runs").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(
        vars(report),
        place=shlex.quote(f"runs/{report.name}"),
        measured=any(curve.name != LOSS for curve in report.curves),
    )


def fingerprint(script: str) -> str:
    """By which a page allows a script of its own, and with it no other: SHA-256 in base 64."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def duration(seconds: float) -> str:
    """``3725`` to ``1 h 02 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _records(path: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    try:
        return log.read(path)
    except DdmError as error:
        say(str(error))
        return []


def _state(config: Config, records: Sequence[dict[str, Any]], sessions: Sequence[dict[str, Any]], saved: int) -> State:
    sound = [each for each in records if all(_is_number(each.get(name)) for name in ("step", "images", "time"))]
    seconds, before = 0.0, 0
    for each in sound:
        speed = each.get("images_per_second")
        seconds += (each["images"] - before) / speed if isinstance(speed, float) and speed > 0 else 0.0
        before = each["images"]
    step = max(saved, *(each["step"] for each in sound[-1:]), 0)
    return State(
        step=step,
        total=config.train.steps,
        images=step * config.train.batch * config.train.accumulate,
        speed=before / seconds if seconds else None,
        wall=_wall([each["time"] for each in sound], sessions),
        until=_moment(sound[-1]["time"]) if sound else "",
    )


def _wall(times: Sequence[float], sessions: Sequence[dict[str, Any]]) -> float | None:
    """Seconds from the start of each session to the last record before the next."""
    starts = [_started(each) for each in sessions]
    ends = [*starts[1:], math.inf]
    spans = [max((t for t in times if start <= t < end), default=start) - start for start, end in zip(starts, ends)]
    return sum(spans) or None


def _curves(records: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> Iterator[Curve]:
    points = [each for each in records if _is_number(each.get("loss")) and _is_number(each.get("step"))]
    if len(points) > 1:
        yield Curve(LOSS, drawing(partial(_draw_loss, points), name="loss"))
    for number, (label, curve) in enumerate(curves.distances(drawable(evaluations))):
        draw = partial(curves.draw_distance, name=label, curve=curve)
        yield Curve(label, drawing(draw, name=f"distance {number}"))


def _draw_loss(points: list[dict[str, Any]], axes: Any) -> None:
    curves.draw_loss(axes, evenly(points, MOST_POINTS))
    axes.set_title(f"{len(points):,} records", fontsize="small")  # so that it is as high as those of distances


def _sessions(run: Run) -> list[dict[str, Any]]:
    """What ``environment.json`` says of each session; nothing where it cannot be read."""
    try:
        found = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))["sessions"]
        return [each for each in found if _started(each)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return []


def _started(session: dict[str, Any]) -> float:
    return datetime.fromisoformat(session["started"]).timestamp()


def _environments(sessions: Sequence[dict[str, Any]]) -> list[Environment]:
    """Sessions in a row that ran in the same environment are told together."""
    found: list[Environment] = []
    for each in sessions:
        facts, step = _facts(each), each.get("from_step")
        if not found or found[-1].facts != facts:
            found.append(Environment([], facts))
        from_step = f" from step {step:,}" if isinstance(step, int) else ""
        found[-1].starts.append(f"{_moment(_started(each))}{from_step}")
    return found


def _facts(session: dict[str, Any]) -> dict[str, str]:
    """What may be told of a session: not its command line, nor the names of files that it could not read."""
    packages = session.get("packages")
    versions = {"ddm": session.get("ddm"), "Python": session.get("python")}
    versions |= packages if isinstance(packages, dict) else {}
    facts = {name: session.get(name) for name in ("device", "processes", "threads", "precision", "commit")}
    facts |= {"system": session.get("platform")}
    facts |= {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    return {name: without_paths(str(value)) for name, value in facts.items() if value is not None}


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
