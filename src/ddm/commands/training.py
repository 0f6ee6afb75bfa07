"""What ``ddm train`` does once the request is in order."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddm.commands.clock import Clock
from ddm.commands.console import Bar, Console, duration, is_main
from ddm.commands.machine import explain_precision, peak_memory
from ddm.commands.stopping import Stop, stop_on_signals
from ddm.data import ImageSet
from ddm.errors import DdmError
from ddm.generators import DiffusionGenerator
from ddm.images import grid, save_png, to_uint8
from ddm.runs import build, checkpointing, checkpoints, curves, environment, log
from ddm.runs.atomic import SaveError
from ddm.runs.beginning import weights_to_begin_with
from ddm.runs.config import Config
from ddm.runs.evaluation import Evaluator
from ddm.runs.folder import Run
from ddm.runs.progress import finish
from ddm.runs.trackers import open_trackers
from ddm.training import PATIENCE, Diverged, Team, Trainer, TrainStep, pick_device
from ddm.version import __version__

AGREE_EVERY = 10
"""Steps on GPUs between two agreements of several processes on whether to stop; each waits for the devices."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    path: Path
    step: int
    status: int
    verdict: str
    following: str


def train(config: Config, path: Path, *, device: str, fresh: bool, console: Console) -> Outcome:
    """Train in ``path`` until the last step, an interruption or a divergence."""
    pick_device(device)
    if is_main() and not fresh:
        Run.refuse_other(path, config)
    data = build.make_data(config)  # before the folder is made: a request that cannot be met leaves nothing behind
    begun = not fresh and bool(checkpoints.steps(path / "checkpoints"))
    weights = None if begun or config.init is None else weights_to_begin_with(config, console.say)
    run = Run.start(path, config, fresh=fresh) if is_main() else Run(path, config)
    try:
        with stop_on_signals() as stop:
            session = _Session(run, data, device, console, stop, weights)
            return session.carry_out(again="" if not fresh else " without --fresh")
    finally:
        run.release()


class _Session:
    """One process's work on a run: from the newest checkpoint to the end."""

    def __init__(
        self,
        run: Run,
        data: ImageSet,
        device: str,
        console: Console,
        stop: Stop,
        weights: Mapping[str, Tensor] | None,
    ):
        self.run, self.data, self.console, self.stop = run, data, console, stop
        config = run.config
        self.trainer = build.make_trainer(config, self.data, device=device)
        assert is_main() == self.trainer.accelerator.is_main_process
        self._introduce()
        known = run.metrics.exists()
        with self.trainer.accelerator.main_process_first():  # which may have to set a damaged checkpoint aside
            self.first = checkpointing.resume(run, self.trainer, self.data, console.say)
        if not self.first and weights is not None:
            self.trainer.begin_with(weights)
        if self.first:
            console.say(f"resuming {run.path} at step {self.first:,} of {config.train.steps:,}")
        elif known:
            console.say(f"{run.path} has no checkpoint yet: starting from step 0")
        if is_main():
            log.truncate(run.metrics, after_step=self.first)  # what a killed process logged after it had saved
            facts = {"precision": self.trainer.precision, "processes": self.trainer.accelerator.num_processes}
            facts["unreadable"] = [vars(each) for each in data.bad]
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
        self.skipped = sum(each.get("skipped", 0) for each in log.read(run.metrics)[-1:])
        self.evaluator = self._make_evaluator() if config.every.evaluate else None
        self.clock = Clock(self.first)

    def _introduce(self) -> None:
        config, trainer, data = self.run.config, self.trainer, self.data
        skipped = ", ".join(each.name for each in data.bad[:3]) + (", ..." if len(data.bad) > 3 else "")
        count = sum(parameter.numel() for parameter in trainer.network.parameters())
        self.console.say(f"run     {self.run.path.resolve()}")
        self.console.say(
            f"data    {config.data}: {data.count:,} pictures of {config.image_size}x{config.image_size}"
            + (f"; skipped {len(data.bad)} that cannot be read: {skipped}" if data.bad else "")
        )
        self.console.say(f"model   {config.network}: {count / 1e6:.2f} M parameters")
        threads = f", {torch.get_num_threads()} threads" if trainer.device.type == "cpu" else ""
        reason = explain_precision(config.train.precision, trainer)
        self.console.say(f"device  {trainer.device}{threads}, {trainer.precision}{reason}")

    def carry_out(self, *, again: str) -> Outcome:
        """The loop and what comes after it; a failure loses nothing that was saved.

        Args:
            again: how the command that goes on differs from the one that was typed.
        """
        run, trainer = self.run, self.trainer
        try:
            with self.console.bar(trainer.total, done=self.first) as bar:
                self._loop(bar)
        except (Diverged, checkpoints.NotFinite) as error:
            raise DdmError(
                f"{error}, under another --name; {run.path} stands at its checkpoint of step {self.saved}"
            ) from None
        finally:
            self.trackers.close()
        if self.stop.signal is not None:
            status = 130 if self.stop.signal == signal.SIGINT else 143
            verdict = f"interrupted at step {trainer.step:,} of {trainer.total:,}, all saved."
            return Outcome(run.path, trainer.step, status, verdict, f"the same command again{again}")
        verdict = f"done: {trainer.step:,} steps" if self.first < trainer.total else "nothing left to do."
        return Outcome(run.path, trainer.step, 0, verdict, f"ddm sample {run.path}")

    def _loop(self, bar: Bar) -> None:
        trainer = self.trainer
        if self.evaluator and self.evaluator.team.agree(self._missed_evaluation()):
            self._evaluate(self.evaluator)
        for step in trainer.steps():
            bar.update(step.number)
            if is_main():
                self._record(step, bar)
            if self.evaluator and due(self.run.config.every.evaluate, step.number):
                self._evaluate(self.evaluator)
            if is_main() and due(self.run.config.every.save, step.number):
                self._save_if_worth_it()
            if self._told_to_stop(step.number):
                break
        if is_main() and self.saved < trainer.step:
            self._save()
        if is_main() and self.sampled < trainer.step and self.stop.signal is None and self.run.config.every.sample:
            with self._going_on("the grid"):
                self._sample()

    def _record(self, step: TrainStep, bar: Bar) -> None:
        """What is due at this step."""
        every = self.run.config.every
        if due(every.log, step.number) or step.number == self.trainer.total:
            with self._going_on("the record"):
                self._log(step.lr, bar)
        if due(every.sample, step.number):
            with self._going_on("the grid"):
                self._sample()  # before saving: a run killed in between samples again

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        """A disk that fails ends no training: it may have room again by the next time."""
        try:
            yield
        except checkpoints.NotFinite:
            raise  # it will not get better
        except (SaveError, OSError) as error:
            self.console.say(f"{what} of step {self.trainer.step} was not written: {error}; training goes on")
        except DdmError as error:
            self.console.say(f"{what} of step {self.trainer.step} failed: {error}; training goes on")

    def _told_to_stop(self, step: int) -> bool:
        """Whether a signal came, to any process: they must leave at the same step, or some wait for the others."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return self.stop.signal is not None
        if self.trainer.device.type != "cpu" and step % AGREE_EVERY:
            return False
        told = torch.tensor(float(self.stop.signal or 0), device=self.trainer.device)
        signals = accelerator.gather(told.reshape(1))
        assert isinstance(signals, torch.Tensor)
        agreed = int(signals.max())
        self.stop.signal = agreed or self.stop.signal  # one that came while we waited is told at the next step
        return agreed > 0

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
        if mean.skipped > self.skipped:
            self.console.say(
                f"step {trainer.step}: {mean.skipped - self.skipped} more steps were not finite and not applied; "
                f"{PATIENCE} in a row end the training"
            )
            self.skipped = mean.skipped
        left = self.clock.left(trainer.step, trainer.total)
        skipped = f"  skipped {mean.skipped}" if mean.skipped else ""
        bar.log(trainer.step, f"loss {mean.loss:.4f}  {per_second:,.0f} img/s  {duration(left)} left{skipped}")

    def _save_if_worth_it(self) -> None:
        """Not while no step can be applied: whoever resumed there would be stuck, and better ones would be pruned."""
        in_a_row = self.trainer.not_finite_in_a_row
        if in_a_row:
            self.console.say(f"step {self.trainer.step}: no checkpoint, the last {in_a_row} steps were not finite")
            return
        with self._going_on("the checkpoint"):
            self._save()

    def _save(self) -> None:
        with self.clock.pause():
            log.sync(self.run.metrics)
            checkpointing.save(self.run, self.trainer, self.data, since=self.saved)
            self.saved = self.trainer.step
            with self._going_on("the curve"):
                title = self.run.name
                evaluations = log.read(self.run.evaluations)
                curves.draw(log.read(self.run.metrics), evaluations, self.run.path / "loss.png", title=title)
            with self._going_on("which checkpoints to keep as"):
                checkpointing.prune(self.run)

    def _make_evaluator(self) -> Evaluator:
        team = Team(self.trainer.device.type)
        return Evaluator(self.run.config.evaluate, self.data, team=team, say=self.console.say)

    def _missed_evaluation(self) -> bool:
        """Whether the run was stopped at a step that it should have measured."""
        found = [(each.get("by"), each.get("step")) for each in log.read(self.run.evaluations)]
        return self.first > 0 and due(self.run.config.every.evaluate, self.first) and ("train", self.first) not in found

    def _evaluate(self, evaluator: Evaluator) -> None:
        """Measure the first average on all processes; told to stop, all leave between the same two portions."""
        run, trainer = self.run, self.trainer
        with self.clock.pause(), self._going_on("the evaluation"):
            generator = make_generator(run.config, trainer, self.data)
            evaluated = finish(evaluator.evaluate(generator, identity=None), leave=lambda: self._told_to_stop(0))
            if evaluated is None or not is_main():
                return
            facts = {"by": "train", "model": run.name, "kind": "run", "step": trainer.step, "weights": "ema"}
            for record in evaluated.records(**facts, generation=generator.settings(), ddm=__version__):
                log.append(run.evaluations, record)
                self.console.say(f"step {trainer.step}: {record['label']} {record['value']:.4g}")
            for name, reason in evaluated.failed.items():
                self.console.say(f"step {trainer.step}: {name} was not measured: {reason}")
            values = {f"evaluate/{name}": found.value for name, found in evaluated.measurements.items()}
            self.trackers.log(values, trainer.step)

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


def make_generator(config: Config, trainer: Trainer, data: ImageSet) -> DiffusionGenerator:
    """The first average, sampled from as the settings say."""
    shape = (data.channels, config.image_size, config.image_size)
    return DiffusionGenerator(trainer.averaged(), shape=shape, **build.sampling_options(config.sample))


def preview(config: Config, trainer: Trainer, data: ImageSet, stop: Stop) -> torch.Tensor | None:
    """A sheet of ``sample.count`` pictures from the first average, uint8 ``[c, H, W]``; None where a signal came."""
    x = torch.empty(0)
    for step in make_generator(config, trainer, data).stream(range(config.sample.count)):
        if stop.signal is not None:
            return None
        x = step.x
    return grid(to_uint8(x).cpu(), scale=max(1, 64 // config.image_size))


def due(every: int, step: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens now."""
    return every > 0 and step % every == 0
