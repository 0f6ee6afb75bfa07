"""A training that ends after so many seconds, its schedule fitted to them."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddm.data import ImageSet
from ddm.runs import build
from ddm.runs.config import Config
from ddm.training import Trainer

MANY = 10**9
"""Steps of a training that does not know yet how many it has."""

WARM, MEASURED = 20, 60
"""Steps in which everything is compiled, and those after them by which the rest is planned."""

REPLAN = (0.2, 0.45)
"""Shares of the training after which it is planned anew; the learning rate must not fall before the last."""

LOG_EVERY = 250


@dataclass(frozen=True)
class Snapshot:
    """The averages of the weights at a time, by name of the group."""

    seconds: float
    images: int
    averages: dict[str, dict[str, Tensor]] = field(repr=False)


@dataclass
class Timed:
    """What a training gave.

    Args:
        trainer: at its last step.
        warm_seconds: until the first :data:`WARM` steps were done, compiling included.
        seconds: of the whole budget, as counted.
        losses: step, seconds and mean loss since the entry before.
        snapshots: in order; the last is the end.
    """

    trainer: Trainer
    warm_seconds: float = 0.0
    seconds: float = 0.0
    losses: list[tuple[int, float, float]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many pictures were seen."""
        return self.trainer.step * self.trainer.batch * self.trainer.accumulate


def train_for(
    config: Config,
    data: ImageSet,
    *,
    seconds: float | None,
    device: str,
    compiling_counts: bool = True,
    snapshots: int = 1,
) -> Timed:
    """Train with these settings for so many seconds: ``train.steps`` is what they allow.

    Args:
        config: settings.
        data: pictures.
        seconds: of training; None for the steps of the settings. Pictures are on the device before they count.
        device: to train on.
        compiling_counts: from the making of the network on; else from after the first :data:`WARM` steps.
        snapshots: how many, evenly over the steps.
    """
    data = data.to(torch.device(device))
    begun = started = now(device)
    timed = Timed(build.make_trainer(config, data, device=device))
    trainer, replan = timed.trainer, list(REPLAN)
    if seconds is not None:
        trainer.total = MANY
    warm = started
    for step in trainer.steps():
        if step.number == WARM:
            warm = now(device)
            timed.warm_seconds = warm - started
            begun = started if compiling_counts else warm
        elif seconds is not None and is_due(step.number, replan, trainer.total):
            here = now(device)
            a_step = (here - warm) / (step.number - WARM)
            trainer.total = step.number + max(1, round((seconds - (here - begun)) / a_step))
            replan = [share for share in REPLAN if share * trainer.total > step.number]
        if step.number % LOG_EVERY == 0:
            timed.losses.append((step.number, now(device) - begun, trainer.take_mean().loss))
        if step.number >= trainer.total * (len(timed.snapshots) + 1) / snapshots:
            timed.snapshots.append(snapshot(trainer, now(device) - begun))
    timed.seconds = now(device) - begun
    return timed


def is_due(step: int, shares: list[float], total: int) -> bool:
    """Whether the training is to be planned now."""
    first = WARM + MEASURED
    return step == first or (step > first and bool(shares) and step > shares[0] * total)


def snapshot(trainer: Trainer, seconds: float) -> Snapshot:
    """Copies of the averages."""
    groups = {name: tensors for name, tensors in trainer.tensors().items() if name.startswith("ema")}
    copies = {name: {key: each.detach().clone() for key, each in named.items()} for name, named in groups.items()}
    return Snapshot(seconds, trainer.step * trainer.batch * trainer.accumulate, copies)


def now(device: str) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
