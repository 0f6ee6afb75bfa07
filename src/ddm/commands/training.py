"""What ``ddm train`` does once the request is in order."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

from ddm.commands.console import Bar, Console, duration
from ddm.data import ImageSet
from ddm.errors import DdmError
from ddm.generators import DiffusionGenerator
from ddm.images import grid, save_png, to_uint8
from ddm.runs import build, checkpointing, curves, environment, log
from ddm.runs.atomic import SaveError
from ddm.runs.config import Config
from ddm.runs.folder import Run
from ddm.runs.trackers import open_trackers
from ddm.training import Diverged, Trainer, TrainStep, has_bf16, pick_device

AGREE_EVERY = 10
"""Steps between two agreements of several processes on whether to stop; each waits for the devices."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    path: Path
    step: int
    status: int
    verdict: str
    following: str


@dataclass
class Stop:
    """Set by SIGTERM or Ctrl-C, read between steps; the second signal ends the program at once."""

    signal: int | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        os.write(2, b"\nsaving and leaving; once more to leave at once\n")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM with a :class:`Stop` for a while."""
    stop = Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(config: Config, path: Path, *, device: str, fresh: bool, console: Console) -> Outcome:
    """Train in ``path`` until the last step, an interruption or a divergence."""
    pick_device(device)
    if not fresh:
        Run.refuse_other(path, config)
    data = build.make_data(config)  # before the folder is made: a request that cannot be met leaves nothing behind
    run = Run.start(path, config, fresh=fresh) if is_main() else Run(path, config)
    try:
        with stop_on_signals() as stop:
            return _Session(run, data, device, console, stop).carry_out()
    finally:
        run.release()


def is_main() -> bool:
    """Whether this is the process that writes: the only one, or the first of a launcher's."""
    return os.environ.get("RANK", "0") == "0"


class _Session:
    """One process's work on a run: from the newest checkpoint to the end."""

    def __init__(self, run: Run, data: ImageSet, device: str, console: Console, stop: Stop):
        self.run, self.data, self.console, self.stop = run, data, console, stop
        config = run.config
        self.trainer = build.make_trainer(config, self.data, device=device)
        self._introduce()
        known = run.metrics.exists()
        with self.trainer.accelerator.main_process_first():  # which may have to set a damaged checkpoint aside
            self.first = checkpointing.resume(run, self.trainer, self.data, console.say)
        if self.first:
            console.say(f"resuming {run.path} at step {self.first:,} of {config.train.steps:,}")
        elif known:
            console.say(f"{run.path} has no checkpoint yet: starting from step 0")
        if is_main():
            log.truncate(run.metrics, after_step=self.first)  # what a killed process logged after it had saved
            facts = {"precision": self.trainer.precision, "processes": self.trainer.accelerator.num_processes}
            environment.record(run.path / "environment.json", self.trainer.device, from_step=self.first, **facts)
        self.trackers = open_trackers(
            config.trackers if is_main() else (),
            folder=run.path,
            name=run.name,
            config=config.model_dump(mode="json"),
            say=console.say,
            step=self.first,
        )
        self.saved = self.sampled = self.first
        self.clock = Clock(self.first)

    def _introduce(self) -> None:
        config, trainer, data = self.run.config, self.trainer, self.data
        count = sum(parameter.numel() for parameter in trainer.network.parameters())
        self.console.say(f"run     {self.run.path.resolve()}")
        self.console.say(
            f"data    {config.data}: {data.count:,} pictures of {config.image_size}x{config.image_size}"
            + (f", {len(data.bad)} unreadable ones skipped" if data.bad else "")
        )
        self.console.say(f"model   {config.network}: {count / 1e6:.2f} M parameters")
        threads = f", {torch.get_num_threads()} threads" if trainer.device.type == "cpu" else ""
        reason = explain_precision(config.train.precision, trainer)
        self.console.say(f"device  {trainer.device}{threads}, {trainer.precision}{reason}")

    def carry_out(self) -> Outcome:
        """The loop and what comes after it; a failure loses nothing that was saved."""
        run, trainer = self.run, self.trainer
        try:
            with self.console.bar(trainer.total, done=self.first) as bar:
                self._loop(bar)
        except Diverged as error:
            at = self.saved or "the start"
            raise DdmError(
                f"{error}; {run.path} is as it was at step {at}: the same command goes on from there"
            ) from None
        finally:
            self.trackers.close()
        if self.stop.signal is not None:
            status = 130 if self.stop.signal == signal.SIGINT else 143
            verdict = f"interrupted at step {trainer.step:,} of {trainer.total:,}, all saved."
            return Outcome(run.path, trainer.step, status, verdict, "the same command again")
        verdict = f"done: {trainer.step:,} steps" if self.first < trainer.total else "nothing left to do."
        return Outcome(run.path, trainer.step, 0, verdict, f"ddm sample {run.path}")

    def _loop(self, bar: Bar) -> None:
        trainer = self.trainer
        for step in trainer.steps():
            bar.update(step.number)
            if is_main():
                self._record(step, bar)
            if self._told_to_stop(step.number):
                break
        if is_main() and self.saved < trainer.step:
            self._save()
        if is_main() and self.sampled < trainer.step and self.stop.signal is None and self.run.config.every.sample:
            self._sample()

    def _record(self, step: TrainStep, bar: Bar) -> None:
        """What is due at this step."""
        every = self.run.config.every
        if due(every.log, step.number) or step.number == self.trainer.total:
            self._log(step.lr, bar)
        if due(every.sample, step.number):
            self._sample()  # before saving: a run killed in between samples again
        if due(every.save, step.number):
            try:
                self._save()
            except SaveError as error:  # a full disk may have room again by the next time
                self.console.say(f"not saved at step {step.number}: {error}; training goes on")

    def _told_to_stop(self, step: int) -> bool:
        """Whether a signal came, to any process: they must leave at the same step, or some wait for the others."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return self.stop.signal is not None
        if step % AGREE_EVERY:
            return False
        told = torch.tensor(float(self.stop.signal or 0), device=self.trainer.device)
        signals = accelerator.gather(told.reshape(1))
        assert isinstance(signals, torch.Tensor)
        self.stop.signal = int(signals.max()) or None
        return self.stop.signal is not None

    def _log(self, lr: float, bar: Bar) -> None:
        trainer = self.trainer
        mean = trainer.take_mean()
        per_second = self.clock.lap(trainer.step) * trainer.batch * trainer.accumulate
        record = {
            "step": trainer.step,
            "images": trainer.step * trainer.batch * trainer.accumulate,
            "loss": mean.loss,
            "gradient_norm": mean.gradient_norm,
            "lr": lr,
            "skipped": mean.skipped,
            "images_per_second": round(per_second, 1),
            "memory_gb": round(peak_memory(trainer.device) / 1e9, 3),
            "time": round(time.time(), 1),
        }
        log.append(self.run.metrics, record)
        values = {f"train/{name}": value for name, value in record.items() if name not in ("step", "time")}
        self.trackers.log(values, trainer.step)
        left = self.clock.left(trainer.step, trainer.total)
        skipped = f"  skipped {mean.skipped}" if mean.skipped else ""
        bar.log(trainer.step, f"loss {mean.loss:.4f}  {per_second:,.0f} img/s  {duration(left)} left{skipped}")

    def _save(self) -> None:
        with self.clock.pause():
            log.sync(self.run.metrics)
            checkpointing.save(self.run, self.trainer, self.data)
            curves.draw_loss(
                log.read(self.run.metrics), self.run.path / "loss.png", title=f"{self.run.name}: training loss"
            )
        self.saved = self.trainer.step

    def _sample(self) -> None:
        """A grid of the same seeds every time, so that the grids make a film."""
        run, trainer = self.run, self.trainer
        with self.clock.pause():
            pictures = preview(run.config, trainer, self.data, self.stop)
            if pictures is None:
                return
            path = run.samples / f"{trainer.step:06d}.png"
            save_png(path, pictures)
            self.trackers.image("samples", path, trainer.step)
        self.sampled = trainer.step


def preview(config: Config, trainer: Trainer, data: ImageSet, stop: Stop) -> torch.Tensor | None:
    """A sheet of ``sample.count`` pictures from the first average, uint8 ``[c, H, W]``; None where a signal came."""
    shape = (data.channels, config.image_size, config.image_size)
    diffusion = build.make_diffusion(config, trainer.ema.networks[0])  # pyright: ignore[reportArgumentType]
    generator = DiffusionGenerator(diffusion, shape=shape, **build.sampling_options(config.sample))
    x = torch.empty(0)
    for step in generator.stream(range(config.sample.count)):
        if stop.signal is not None:
            return None
        x = step.x
    return grid(to_uint8(x).cpu(), scale=max(1, 64 // config.image_size))


def explain_precision(wanted: str, trainer: Trainer) -> str:
    """Why the precision is what it is, where that may surprise."""
    if wanted == "auto":
        return ""
    if wanted != trainer.precision:
        return f" ({wanted} needs a CUDA GPU)"
    return " (this device emulates it: fp32 is faster)" if wanted == "bf16" and not has_bf16(trainer.device) else ""


@dataclass
class Clock:
    """Seconds of training, without those spent saving and sampling."""

    start: int
    now: float = field(default_factory=time.monotonic)
    paused: float = 0.0
    trained: float = 0.0
    step: int = -1

    def lap(self, step: int) -> float:
        """Steps a second since the last lap."""
        now = time.monotonic()
        seconds = max(now - self.now - self.paused, 1e-9)
        steps = step - (self.start if self.step < 0 else self.step)
        self.trained += seconds
        self.now, self.paused, self.step = now, 0.0, step
        return steps / seconds

    def left(self, step: int, total: int) -> float:
        """Seconds to the end at the pace so far."""
        return self.trained / max(step - self.start, 1) * (total - step)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave what happens within out of the count."""
        before = time.monotonic()
        yield
        self.paused += time.monotonic() - before


def due(every: int, step: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens now."""
    return every > 0 and step % every == 0


def peak_memory(device: torch.device) -> int:
    """Bytes at the most so far: of the GPU where there is one, else of this process; 0 where that is not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:  # Windows has none
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
