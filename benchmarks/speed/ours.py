"""Our side: the Trainer's fast path, whole and taken apart."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddm.commands.clock import Clock
from ddm.commands.console import Console
from ddm.data import ImageSet
from ddm.networks import networks
from ddm.runs import build, log
from ddm.runs.config import override
from ddm.runs.recipes import recipes
from ddm.training import Trainer
from ddm.training.processes import pick_precision

from .device import peak_of_process
from .pictures import image_set
from .rounds import Work
from .sizes import Sizes

Compile = dict[str, Any] | None
"""What torch.compile is given; None where nothing is compiled."""

FOREVER = 10**9
LOG_EVERY = 50


def precision_of(device: torch.device) -> str:
    """What ``auto`` is there."""
    return pick_precision("auto", device)


def make_trainer(recipe: str, network: str, data: ImageSet, device: torch.device, compile: Compile) -> Trainer:
    """A trainer with a recipe's settings, at the fastest precision of the device.

    Args:
        recipe: whose settings.
        network: in place of the recipe's.
        data: its ``batch_size`` is the batch.
        device: to train on.
        compile: what torch.compile is given; ``{}`` is what ``train.compile`` does.
    """
    changes = {"network": network, "image_size": data.image_size[0], "train.batch": data.batch_size}
    changes |= {"train.accumulate": 1, "train.precision": "auto", "train.steps": FOREVER}
    trainer = build.make_trainer(override(recipes[recipe](), changes), data, device=device.type)
    if compile is not None:
        trainer.network.compile(**compile)
    return trainer


def bare_step(trainer: Trainer) -> Work:
    """Forward, backward, clipping, Adam and the averages on pictures and noise that are there already."""
    x0, _ = trainer.data.batch(0, trainer.batch, seed=0)
    x0 = x0.to(memory_format=torch.channels_last)
    position = trainer.diffusion.position(torch.rand(len(x0), device=x0.device, dtype=torch.float64))
    noise = torch.randn(x0.shape, device=x0.device)
    parameters = list(trainer.network.parameters())
    trainer.diffusion.train()
    step = 0

    def work() -> None:
        nonlocal step
        step += 1
        loss = trainer.diffusion(x0, None, position=position, noise=noise).mean()
        trainer.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.ema.update(step)

    return work


def training_step(recipe: str, network: str, sizes: Sizes, batch: int, device: torch.device, compile: Compile) -> Work:
    """:func:`bare_step` of a new trainer."""
    return bare_step(make_trainer(recipe, network, image_set(batch, sizes.side, batch), device, compile))


def make_network(choice: str, side: int, device: torch.device, compile: Compile) -> nn.Module:
    """A network for sampling, in the layout that is fastest."""
    torch.manual_seed(0)
    bound = networks.bind(choice)
    options = {"size": side} if "size" in networks.parameters(bound.func) else {}
    network = bound(channels=3, **options).to(device, memory_format=torch.channels_last).eval()
    if compile is not None:
        network.compile(**compile)
    return network


def autocast(device: torch.device) -> torch.autocast:
    """The fastest precision of the device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_of(device) == "bf16")


def forward_pass(choice: str, sizes: Sizes, batch: int, device: torch.device, compile: Compile) -> Work:
    """One evaluation of the network, as in sampling."""
    network = make_network(choice, sizes.side, device, compile)
    x, t = inputs(batch, sizes.side, device)

    @torch.no_grad()
    def work() -> None:
        with autocast(device):
            network(x, t)

    return work


def inputs(batch: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise and timesteps."""
    x = torch.randn(batch, 3, side, side).to(device, memory_format=torch.channels_last)
    return x, torch.randint(0, 1000, (batch,)).to(device, torch.float32)


class Loop:
    """What ``ddm train`` does between two steps: bar, records, clock; it neither samples nor saves."""

    def __init__(self, trainer: Trainer, folder: Path):
        self.trainer, self.steps, self.clock = trainer, trainer.steps(), Clock(0)
        self.path = folder / "metrics.jsonl"
        self.bar = Console(quiet=True).bar(FOREVER)

    def advance(self, steps: int) -> None:
        """So many steps more."""
        for _ in range(steps):
            step = next(self.steps)
            self.bar.update(step.number)
            if step.number % LOG_EVERY == 0:
                self.record(step.lr)

    def record(self, lr: float) -> None:
        """What is written every :data:`LOG_EVERY` steps."""
        mean = self.trainer.take_mean()
        per_second = self.clock.lap(self.trainer.step) * self.trainer.batch
        record = {"step": self.trainer.step, "loss": mean.loss, "gradient_norm": mean.gradient_norm, "lr": lr}
        memory = torch.cuda.max_memory_allocated() if self.trainer.device.type == "cuda" else peak_of_process()
        log.append(self.path, record | {"images_per_second": per_second, "memory": memory, "time": time.time()})


def whole_loop(
    recipe: str, network: str, sizes: Sizes, batch: int, device: torch.device, folder: Path, compile: Compile
) -> Work:
    """The Trainer on pictures in memory, driven as ``ddm train`` drives it."""
    trainer = make_trainer(recipe, network, image_set(sizes.pictures, sizes.side, batch), device, compile)
    loop = Loop(trainer, folder)
    return lambda: loop.advance(sizes.loop_steps)
