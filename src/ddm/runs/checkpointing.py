"""A trainer into a run's checkpoints and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddm.data import ImageSet
from ddm.errors import RequestError
from ddm.runs import checkpoints, log
from ddm.runs.config import Config
from ddm.runs.folder import FORMAT, Run, from_plain
from ddm.training import Trainer


def save(run: Run, trainer: Trainer, data: ImageSet) -> Path:
    """Write a checkpoint of the trainer's step, then prune old ones as the run's settings say.

    Raises:
        DdmError: it could not be written, or holds numbers that are not finite; older ones are untouched.
    """
    facts = {"channels": data.channels, "classes": list(data.classes), "count": data.count, "digest": data.digest}
    settings = {"format": FORMAT, **run.config.model_dump(mode="json")}
    state = {"config": settings, "pictures": facts, "trainer": trainer.counters()}
    path = checkpoints.save(run.checkpoints, trainer.step, trainer.tensors(), state)
    best = best_step(run)
    checkpoints.prune(run.checkpoints, keep_last=run.config.keep.last, best=best)
    return path


def best_step(run: Run) -> int | None:
    """The checkpoint with the lowest ``keep.best`` number, averaged over the records since the checkpoint before it."""
    name = run.config.keep.best
    if name is None:
        return None
    records = [each for each in log.read(run.metrics) if isinstance(each.get(name), (int, float))]
    means, before = {}, 0
    for step in checkpoints.steps(run.checkpoints):
        values = [each[name] for each in records if before < each["step"] <= step]
        before = step
        if values:
            means[step] = sum(values) / len(values)
    return min(means, key=means.__getitem__) if means else None


def resume(run: Run, trainer: Trainer, data: ImageSet, say: Callable[[str], None]) -> int:
    """Continue the trainer from the run's newest sound checkpoint; returns its step, or 0 where there is none.

    Raises:
        RequestError: the checkpoint is of another network, or the pictures are not those it was trained on.
    """
    path = checkpoints.latest(run.checkpoints, say)
    if path is not None:
        loaded = checkpoints.load(path)
        check_network(checkpoint_config(loaded.state, path), run.config, path)
        digest = loaded.state.get("pictures", {}).get("digest")
        if digest != data.digest:
            raise RequestError(f"data: {run.config.data} no longer holds the pictures that {path} was trained on")
        trainer.load(loaded.tensors, loaded.state["trainer"])
    return trainer.step


def checkpoint_config(state: dict[str, Any], path: Path) -> Config:
    """The Config a checkpoint was made with; raises :class:`RequestError` where this version cannot read it."""
    config = state.get("config")
    if not isinstance(config, dict):
        raise RequestError(f"{path}: has no settings in its state.json")
    return from_plain(config, source=str(path))


def check_network(found: Config, wanted: Config, path: Path) -> None:
    """Raise :class:`RequestError` unless a checkpoint is of the network a run is about."""
    for field in ("network", "conditional", "schedule", "objective", "timesteps", "image_size"):
        theirs, ours = getattr(found, field), getattr(wanted, field)
        if theirs != ours:
            raise RequestError(f"{path}: is of another model: {field} is {theirs!r} there and {ours!r} in this run")
