"""The training loop: a generator that yields after every optimiser step and leaves the rest to its caller."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddm.data import ImageSet
from ddm.diffusion import GaussianDiffusion, wide
from ddm.errors import DdmError, RequestError
from ddm.seeding import derive, generator
from ddm.training.ema import Ema
from ddm.training.health import PATIENCE, explain, flaw, spoilt
from ddm.training.optimizers import optimizers
from ddm.training.processes import Precision, make_accelerator, pick_device, pick_precision
from ddm.training.state import check_state, check_tensors, remember, remembered


class Diverged(DdmError):
    """Too many steps in a row were not finite, or what is trained is not; none of these steps was applied."""


@dataclass(frozen=True)
class TrainStep:
    """One optimiser step. The tensors are scalars still on the device: reading them waits for it.

    ``number`` counts from 1, ``images`` is how many pictures were seen so far, ``loss`` the mean over the step's
    pictures, ``gradient_norm`` that before clipping, ``lr`` the learning rate used.
    """

    number: int
    images: int
    loss: Tensor
    gradient_norm: Tensor
    lr: float


@dataclass(frozen=True)
class Mean:
    """Averages over the steps since they were last taken; skipped steps are counted, not averaged."""

    loss: float
    gradient_norm: float
    skipped: int


class Trainer:
    """Trains a :class:`GaussianDiffusion` on an :class:`ImageSet`.

    Steps, learning rate, accumulation, decay of the average and precision default to the paper's; the recipe ``paper``
    (``ddm train paper``) has all of its settings.

    Everything random is a function of (seed, step, place in the batch), so neither stopping and resuming nor the number
    of processes changes which pictures, timesteps and noise a step sees; masks of dropout are each process's own.

    Args:
        diffusion: the model; moved to the device and trained in place.
        data: pictures and, for a labelled network, labels.
        steps: optimiser steps of the whole training.
        batch: pictures a micro-batch over all processes; the data's ``batch_size`` by default.
        accumulate: micro-batches a step.
        lr: peak learning rate.
        optimizer: ``adam`` or ``muon``.
        betas: Adam's decays.
        warmup: steps over which the learning rate rises from 0.
        decay: last share of the training over which it falls to 0.
        ema: decay of the average of the weights, or rules such as ``("power(width=0.05)", "constant(decay=0.9999)")``.
        clip: largest gradient norm; 0 for no limit.
        precision: of the network's arithmetic: ``auto``, ``fp32``, ``bf16`` or ``fp16``. Weights, noise and optimiser
            are float32. The attribute ``precision`` says what is used: without a GPU fp32 takes the place of fp16.
        compile: compile the network.
        flip: mirror pictures at random.
        label_drop: share of labels hidden from a labelled network.
        seed: of everything but the initial weights, which are made before.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        RequestError: a batch that the processes cannot share, missing labels, an unknown average, no such device.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        data: ImageSet,
        *,
        steps: int = 20_000,
        batch: int | None = None,
        accumulate: int = 2,
        lr: float = 8e-5,
        optimizer: str = "adam",
        betas: tuple[float, float] = (0.9, 0.99),
        warmup: int = 0,
        decay: float = 0.0,
        ema: float | Sequence[str] = 0.995,
        clip: float = 1.0,
        precision: Precision = "fp16",
        compile: bool = False,
        flip: bool = False,
        label_drop: float = 0.1,
        seed: int = 0,
        device: str = "auto",
    ):
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.accelerator = make_accelerator(self.precision, self.device)
        self.device = self.accelerator.device
        self.total, self.batch, self.accumulate = steps, batch or data.batch_size, accumulate
        self.lr, self.warmup, self.decay, self.clip = lr, warmup, decay, clip
        self.flip, self.label_drop, self.seed = flip, label_drop, seed
        self.part = self._part(self.accelerator.process_index, self.accelerator.num_processes)

        self.diffusion = diffusion.to(self.device)
        self.network = diffusion.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._drops = any(isinstance(each, nn.Dropout) and each.p > 0 for each in self.network.modules())
        self.classes = int(getattr(self.network, "classes", 0))
        if self.classes and data.labels is None:
            raise RequestError("conditional: True is not allowed for data without labels; allowed: False")
        self.data = data.to(self.device)
        self.ema = Ema(self.network, (f"constant(decay={ema})",) if isinstance(ema, int | float) else ema)
        self.optimizer = optimizers.bind(optimizer, field="train.optimizer")(self.network, lr=lr, betas=betas)
        if compile:
            self.network.compile()  # in place: names of weights stay what they are
        self._wrapped, self._stepper = self.accelerator.prepare(diffusion, self.optimizer)
        self.step = 0
        zero = torch.zeros((), device=self.device)
        self._sums = {name: zero.clone() for name in ("loss", "gradient_norm", "count", "skipped", "in_a_row")}

    def averaged(self, index: int = 0) -> GaussianDiffusion:
        """The diffusion with averaged weights (the first average by default): what to sample from."""
        return self.diffusion.with_network(self.ema.networks[index])

    def _part(self, rank: int, processes: int) -> slice:
        if self.batch % processes:
            raise RequestError(
                f"train.batch: {self.batch} is not allowed with {processes} processes; allowed: multiples"
            )
        share = self.batch // processes
        return slice(rank * share, (rank + 1) * share)

    # --- the loop

    def train(self, steps: int | None = None) -> None:
        """Train until step ``steps`` (the trainer's own number by default), for people in a notebook."""
        self.total = steps or self.total
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[TrainStep]:
        """Train, yielding after every optimiser step until the last.

        Raises:
            Diverged: :data:`PATIENCE` steps in a row were not finite, be it for the weights, an average or what the
                optimiser remembers, or fp16's scale of the loss fell below 1. Asked at multiples of that number.
        """
        self._wrapped.train()
        while self.step < self.total:
            yield self._advance()
            if self.step % PATIENCE == 0:
                self._check()

    def _check(self) -> None:
        """The only place where training waits for the device, once in a while."""
        scaler = self.accelerator.scaler
        problem = explain(self.not_finite_in_a_row, self.tensors(), scaler.get_scale() if scaler else 1.0)
        if problem:
            raise Diverged(f"at step {self.step}: {problem}")

    @property
    def not_finite_in_a_row(self) -> int:
        """How many of the last steps were not finite, without one in between that was; waits for the device."""
        return int(self._sums["in_a_row"])

    def _advance(self) -> TrainStep:
        number = self.step + 1
        lr = self.lr_at(number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        losses, found = [], flaw(self._kept())
        for micro in range(self.accumulate):
            last = micro == self.accumulate - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self._wrapped):
                losses.append(self._backward(self.step * self.accumulate + micro, found))
        loss = self.accelerator.reduce(torch.stack(losses).mean(), "mean")
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.clip or float("inf"))
        assert isinstance(loss, Tensor)
        assert isinstance(norm, Tensor)
        self._apply(loss, norm, number)
        self.step = number
        return TrainStep(number, number * self.batch * self.accumulate, loss, norm, lr)

    def _backward(self, draw: int, found: Tensor) -> Tensor:
        """Loss and gradients of micro-batch ``draw`` (0, 1, ... over the whole training); the loss is detached."""
        pictures = self.data.batch(draw, self.batch, seed=self.seed, flip=self.flip, part=self.part)
        random = generator(self.seed, "noise", draw, device=self.device)
        # The noise of the whole batch is drawn on every process, and each takes its part: the same for any number.
        shape = (self.batch, *pictures.x0.shape[1:])
        noise = torch.randn(shape, generator=random, device=self.device)[self.part]
        spread = torch.rand(self.batch, generator=random, device=self.device, dtype=wide(self.device))
        strata = torch.randperm(self.batch, generator=random, device=self.device)
        position = self.diffusion.position(((strata + spread) / self.batch)[self.part])
        hidden = torch.rand(self.batch, generator=random, device=self.device)[self.part] < self.label_drop
        label = (
            pictures.label.masked_fill(hidden, self.classes) if self.classes and pictures.label is not None else None
        )
        if self._drops:  # its masks come from torch's global generator, which is otherwise left alone
            torch.manual_seed(derive(self.seed, "dropout", draw, self.accelerator.process_index))
        x0 = pictures.x0.to(memory_format=torch.channels_last)
        share = self.step / self.total
        loss = self._wrapped(x0, label, position=position, noise=noise, share=share).mean()
        self.accelerator.backward(spoilt(loss, found) / self.accumulate)
        return loss.detach()

    def _apply(self, loss: Tensor, norm: Tensor, number: int) -> None:
        """The optimiser's step, unless loss or gradient is not finite; decided on the device, nothing waits for it."""
        finite = (loss.isfinite() & norm.isfinite()).float()
        if self.accelerator.scaler is None:
            self.optimizer.found_inf = 1 - finite  # pyright: ignore[reportAttributeAccessIssue]  read by fused steps
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        self.ema.update(number)
        sums = self._sums
        sums["loss"] += torch.where(finite > 0, loss, 0)
        sums["gradient_norm"] += torch.where(finite > 0, norm, 0)
        sums["count"] += finite
        sums["skipped"] += 1 - finite
        sums["in_a_row"].copy_((sums["in_a_row"] + 1) * (1 - finite))

    def lr_at(self, number: int) -> float:
        """The learning rate of step ``number`` (1, 2, ...): warm-up, constant, linear decay."""
        rising = min(1.0, number / self.warmup) if self.warmup else 1.0
        left = (self.total - number + 1) / (self.decay * self.total) if self.decay else 1.0
        return self.lr * rising * min(1.0, left)

    def take_mean(self) -> Mean:
        """Averages since the last call (this waits for the device), and start anew; ``skipped`` counts on."""
        sums = {name: float(value) for name, value in self._sums.items()}
        for name in ("loss", "gradient_norm", "count"):
            self._sums[name].zero_()
        count = sums["count"] or float("nan")
        return Mean(sums["loss"] / count, sums["gradient_norm"] / count, int(sums["skipped"]))

    # --- saving and loading

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything that must be kept, by group: weights, each average (ema, ema-1, ...), state."""
        state = {f"sums.{name}": value for name, value in self._sums.items()} | remembered(self.optimizer, self.network)
        return {group: dict(network.state_dict()) for group, network in self._networks().items()} | {"state": state}

    def _kept(self) -> list[Tensor]:
        """Weights, averages and what the optimiser remembers: one NaN in them would spread."""
        kept: list[Tensor] = [each for network in self._networks().values() for each in network.parameters()]
        return kept + [value for remembered in self.optimizer.state.values() for value in remembered.values()]

    def counters(self) -> dict[str, Any]:
        """What must be kept besides the tensors; plain JSON."""
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        return {"step": self.step, "images": self.step * self.batch * self.accumulate, "scaler": scaler}

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], counters: Mapping[str, Any]) -> None:
        """Continue from what :meth:`tensors` and :meth:`counters` gave.

        Raises:
            RequestError: they are of another network, set of averages or optimiser; nothing is changed then.
        """
        networks = self._networks()
        for group, network in networks.items():
            check_tensors(network.state_dict(), tensors.get(group, {}), group)
        state = tensors.get("state", {})
        check_state(self.optimizer, self.network, state, counts=[f"sums.{name}" for name in self._sums])
        for group, network in networks.items():
            network.load_state_dict(dict(tensors[group]))
        for name, value in self._sums.items():
            value.copy_(state[f"sums.{name}"])
        remember(self.optimizer, self.network, state)
        if self.accelerator.scaler and counters.get("scaler"):
            self.accelerator.scaler.load_state_dict(dict(counters["scaler"]))
        self.step = int(counters["step"])

    def begin_with(self, weights: Mapping[str, Tensor]) -> None:
        """Weights of the network and of every average, before the first step.

        Raises:
            RequestError: they are of another network; nothing is changed then.
        """
        check_tensors(self.network.state_dict(), weights, "init")
        for network in self._networks().values():
            network.load_state_dict(dict(weights))

    def _networks(self) -> dict[str, nn.Module]:
        averages = {f"ema-{i}" if i else "ema": network for i, network in enumerate(self.ema.networks)}
        return {"weights": self.network, **averages}
