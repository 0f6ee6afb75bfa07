"""A NaN or an infinity anywhere is seen in its step, never applied, counted, and ends the training if it stays."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from test_trainer import advance, everything, make
from torch import Tensor, nn

from ddm.training import PATIENCE, Diverged, Trainer

Injection = Callable[[Trainer, float], None]


def injected_into(trainer: Trainer, name: str, change: Callable[..., object]) -> None:
    """The method does what ``change`` makes of its result, in the next step alone."""
    owner, method = (trainer.data, "batch") if name == "batch" else (trainer.diffusion, "forward")
    original, number = getattr(owner, method), trainer.step
    object.__setattr__(
        owner, method, lambda *a, **k: change(original(*a, **k)) if trainer.step == number else original(*a, **k)
    )


def pictures(trainer: Trainer, value: float) -> None:
    def spoil(batch):
        batch.x0[1, 0, 3, 3] = value
        return batch

    injected_into(trainer, "batch", spoil)


def loss(trainer: Trainer, value: float) -> None:
    injected_into(trainer, "forward", lambda losses: torch.cat([losses[1:], losses[:1] + value]))


def gradient(trainer: Trainer, value: float) -> None:
    parameter, number = list(trainer.network.parameters())[3], trainer.step

    def spoil(gradient: Tensor) -> Tensor:
        bad = torch.full_like(gradient, value)
        return torch.where(torch.arange(gradient.numel()).view_as(gradient) == 0, bad, gradient)

    handle = parameter.register_hook(lambda each: spoil(each) if trainer.step == number else handle.remove())


def of_network(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        list(network.parameters())[3].view(-1)[0] = value


def weight(trainer: Trainer, value: float) -> None:
    of_network(trainer.network, value)


def average(trainer: Trainer, value: float) -> None:
    of_network(trainer.ema.networks[0], value)


def optimiser(trainer: Trainer, value: float) -> None:
    kept = trainer.optimizer.state[list(trainer.network.parameters())[3]]
    kept["momentum" if "momentum" in kept else "exp_avg_sq"].view(-1)[0] = value


PASSING: list[Injection] = [pictures, loss, gradient]
STAYING: list[Injection] = [weight, average, optimiser]
VALUES = [math.nan, math.inf, -math.inf]


def trained(trainer: Trainer) -> dict[str, Tensor]:
    """Weights and what the optimiser knows; not the counts."""
    found = everything(trainer)
    return {name: found[name] for name in found if name.startswith(("weights", "state.exp", "state.momentum"))}


def unchanged(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    """Bit for bit, so that a NaN is itself."""
    return all(torch.equal(before[name].view(torch.int32), after[name].view(torch.int32)) for name in before)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("inject", [*PASSING, *STAYING])
def test_the_step_is_left_out_and_counted(inject: Injection, optimizer: str, value: float):
    trainer = make(steps=6, optimizer=optimizer)
    advance(trainer, 2)
    inject(trainer, value)
    before = trained(trainer)
    advance(trainer, 1)
    assert trainer.not_finite_in_a_row == 1
    assert unchanged(before, trained(trainer))
    assert trainer.take_mean().skipped == 1
    if inject in PASSING:
        advance(trainer, 1)
        assert trainer.not_finite_in_a_row == 0
        assert all(bool(each.isfinite().all()) for each in everything(trainer).values())
        assert not unchanged(before, trained(trainer))


@pytest.mark.parametrize(
    ("inject", "group"), [(weight, "weights/"), (average, "ema/"), (optimiser, "state/exp_avg_sq.")]
)
def test_what_cannot_heal_ends_the_training_and_is_named(inject: Injection, group: str):
    trainer = make(steps=200, accumulate=1)
    advance(trainer, 3)
    inject(trainer, math.nan)
    with pytest.raises(
        Diverged, match=rf"at step {2 * PATIENCE}: {group}\S+ holds a NaN or an infinity, and the last 37"
    ):
        trainer.train()


def test_a_step_that_is_finite_is_what_it_was():
    """Looking changes no bit: the loss is multiplied by exactly one."""
    trainer, plain = make(), make()
    plain._kept = lambda: [torch.zeros(1)]
    assert advance(trainer, 3) == advance(plain, 3)
    assert unchanged(trained(trainer), trained(plain))


def with_scaler(trainer: Trainer, scale: float) -> torch.amp.GradScaler:
    """As on a CUDA device in fp16, but for the arithmetic."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainer.accelerator.scaler = scaler
    trainer._stepper = AcceleratedOptimizer(trainer.optimizer, scaler=scaler)
    trainer.accelerator._optimizers = [trainer._stepper]
    trainer.accelerator.native_amp = True
    trainer.accelerator.state._mixed_precision = "fp16"
    return scaler


@pytest.mark.parametrize("inject", [*PASSING, *STAYING])
def test_with_a_scale_of_the_loss_too(inject: Injection):
    trainer = make(steps=6)
    scaler = with_scaler(trainer, 1024.0)
    advance(trainer, 2)
    assert scaler.get_scale() == 1024
    inject(trainer, math.inf)
    before = trained(trainer)
    advance(trainer, 1)
    assert trainer.take_mean().skipped == 1
    assert unchanged(before, trained(trainer))
    assert scaler.get_scale() == 512


def test_a_scale_that_collapses_ends_the_training():
    """Every other step overflows, which is never 20 in a row: the scale falls until gradients would be nothing."""
    trainer = make(steps=200, accumulate=1)
    scaler = with_scaler(trainer, 8.0)
    original = trainer.diffusion.forward
    trainer.diffusion.forward = lambda *a, **k: original(*a, **k) * (math.inf if trainer.step % 2 else 1.0)
    with pytest.raises(Diverged, match=r"at step 20: fp16's scale of the loss fell to 0\.008: gradients vanish"):
        trainer.train()
    assert scaler.get_scale() < 1


def test_on_one_of_two_processes(record_property):
    """Both leave the step out, and go on alike."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = Path(__file__).with_name("spoil_one_of_two.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*launcher, script], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["12", "of", "12"]
    record_property("faults", 12)
