"""A trainer into a run's checkpoints and back."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddm.data import ImageSet
from ddm.errors import DdmError, RequestError
from ddm.runs import checkpoints, log
from ddm.runs.config import BEST, Config, Count
from ddm.runs.folder import FORMAT, Run, from_plain
from ddm.training import Trainer


class _Pictures(BaseModel):
    model_config = ConfigDict(strict=True)
    channels: Literal[1, 3, 4]
    classes: Annotated[list[str], Field(max_length=100_000)]
    digest: str


class _Counters(BaseModel):
    model_config = ConfigDict(strict=True)
    step: Count
    images: Count
    scaler: dict[str, float | int] | None = None


class _Facts(BaseModel):
    """What a checkpoint's state.json says besides the settings; the file may be anybody's."""

    pictures: _Pictures
    trainer: _Counters


def save(run: Run, trainer: Trainer, data: ImageSet, *, since: int) -> Path:
    """Write a checkpoint of the trainer's step.

    Args:
        run: where to.
        trainer: what.
        data: its pictures.
        since: the step of the checkpoint before: the means of the records since then are kept with this one.

    Raises:
        DdmError: it could not be written, or holds numbers that are not finite; older ones are untouched.
    """
    means = {name: mean_since(run, name, since) for name in BEST}
    state = state_of(run.config, trainer, data) | {"means": means}
    return checkpoints.save(run.checkpoints, trainer.step, trainer.tensors(), state)


def state_of(config: Config, trainer: Trainer, data: ImageSet) -> dict[str, Any]:
    """What a checkpoint says besides its tensors: the settings, what the pictures are, how far the training is."""
    facts = {"channels": data.channels, "classes": list(data.classes), "count": data.count, "digest": data.digest}
    settings = {"format": FORMAT, **config.model_dump(mode="json")}
    return {"config": settings, "pictures": facts, "trainer": trainer.counters()}


def mean_since(run: Run, name: str, since: int) -> float | None:
    """The mean of a number over what was recorded in training after step ``since``; None without any."""
    if name in ("fid", "kid"):
        records = [each for each in log.read(run.evaluations) if each.get("by") == "train"]
        found = [(each.get("step", 0), each.get("value")) for each in records if each.get("metric") == name]
    else:
        found = [(each.get("step", 0), each.get(name)) for each in log.read(run.metrics)]
    values = [
        value for step, value in found if step > since and isinstance(value, float | int) and math.isfinite(value)
    ]
    return sum(values) / len(values) if values else None


def prune(run: Run) -> None:
    """Delete old checkpoints as the run's settings say; raises :class:`DdmError` where that cannot be."""
    name, best = run.config.keep.best, None
    if name is not None:
        means = {step: read_mean(run, step, name) for step in checkpoints.steps(run.checkpoints)}
        known = {step: mean for step, mean in means.items() if mean is not None}
        best = min(known, key=known.__getitem__) if known else None
    checkpoints.prune(run.checkpoints, keep_last=run.config.keep.last, best=best)


def read_mean(run: Run, step: int, name: str) -> float | None:
    """A number that was kept with a checkpoint; None where there is none or it cannot be read."""
    try:
        mean = checkpoints.load(checkpoints.place_of(run.checkpoints, step), groups=[]).state["means"][name]
    except (DdmError, KeyError, TypeError):
        return None
    return mean if isinstance(mean, float | int) else None


def resume(run: Run, trainer: Trainer, data: ImageSet, say: Callable[[str], None]) -> int:
    """Continue the trainer from the run's newest sound checkpoint; returns its step, or 0 where there is none.

    Raises:
        DdmError: there are checkpoints, and none can be used.
        RequestError: the checkpoint is of another network, or the pictures are not those it was trained on.
    """
    path = checkpoints.latest(run.checkpoints, say, set_aside=True)
    damaged = sorted(each.name for each in run.checkpoints.glob("bad-*"))
    if path is None and damaged:
        raise DdmError(
            f"{run.path}: none of its checkpoints can be used ({', '.join(damaged)}); nothing was changed; "
            "--fresh moves the run aside and starts anew"
        )
    if path is not None:
        loaded = checkpoints.load(path)
        check_network(checkpoint_config(loaded.state, path), run.config, path)
        digest = loaded.state.get("pictures", {}).get("digest")
        if digest != data.digest:
            raise RequestError(f"data: {run.config.data} no longer holds the pictures that {path} was trained on")
        trainer.load(loaded.tensors, loaded.state["trainer"])
    return trainer.step


def checkpoint_config(state: dict[str, Any], path: Path) -> Config:
    """The Config a checkpoint was made with; raises :class:`RequestError` where this version cannot read its state."""
    config = state.get("config")
    if not isinstance(config, dict):
        raise RequestError(f"{path}: has no settings in its state.json")
    try:
        _Facts.model_validate(state)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise RequestError(f"{path}: state.json: {field} is not allowed; {problem['msg']}") from None
    return from_plain(config, source=str(path))


def check_network(found: Config, wanted: Config, path: Path) -> None:
    """Raise :class:`RequestError` unless a checkpoint is of the network a run is about."""
    for field in ("network", "conditional", "schedule", "objective", "timesteps", "image_size"):
        theirs, ours = getattr(found, field), getattr(wanted, field)
        if theirs != ours:
            raise RequestError(f"{path}: is of another model: {field} is {theirs!r} there and {ours!r} in this run")
