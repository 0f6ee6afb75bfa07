"""What is known of a run while another process trains it. Everything is read, nothing is written or locked."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddm.commands.studio.following import Curve, History, curve
from ddm.errors import DdmError, RequestError
from ddm.runs import checkpoints, curves, log
from ddm.runs.config import Config
from ddm.runs.folder import read_config
from ddm.runs.numbers import Numbers, drawable, read_numbers

POINTS = 400
"""Of a curve at most."""

RECENT = 50
"""Records from which the pace is taken."""

QUIET, SLOWEST = 60.0, 10.0
"""A run is silent after so many seconds without a sign of life, and so many times as long as a record takes."""

LARGEST = 16_000_000
"""Bytes of a picture of the film."""

SIGNATURE, END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
"""Of a PNG: a file without its end is being written."""

LOCKS = Path("/proc/locks")
"""Where Linux tells which files are locked, so that nobody has to try."""

CURVES = ("loss", "gradient_norm", "lr", "images_per_second")
"""Of the records, drawn against the step."""


def changed(path: Path) -> float:
    """When a file or folder changed, 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True)
class State:
    """How a run is.

    Args:
        word: ``waiting``, ``training``, ``finished``, ``stopped`` or ``diverged``.
        message: a sentence or two.
    """

    word: str
    message: str


@dataclass(eq=False)
class Watched:
    """A run that is looked at now and then; call :meth:`refresh` first.

    Args:
        name: of the page.
        path: its folder.
    """

    name: str
    path: Path
    config: Config | None = None
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    numbers: Numbers | None = None
    frames: list[int] = field(default_factory=list)
    saved: int | None = None
    in_use: bool | None = None

    def __post_init__(self) -> None:
        self.history = History(self.path / "metrics.jsonl")
        self.lock = threading.Lock()
        self._read: dict[str, object] = {}
        self._was_used = False

    def refresh(self) -> None:
        """Read what is new in the folder."""
        with self.lock:
            self.history.refresh()
            if self._is_new("config.yaml"):
                self.config = self._read_config()
            if self._is_new("evaluations.jsonl") or self.numbers is None:
                self.evaluations = self._read_evaluations()
                self.numbers = read_numbers(self.evaluations, self.config) if self.config else None
            self.frames = sorted(int(each.stem) for each in self.path.glob("samples/*.png") if each.stem.isdecimal())
            there = checkpoints.steps(self.path / "checkpoints")
            self.saved = max(there, default=None)
            self.in_use = locked(self.path / ".lock")
            self._was_used = self._was_used or bool(self.in_use)

    def _is_new(self, name: str) -> bool:
        """Whether a file is not what it was when this was last asked."""
        try:
            found = (self.path / name).stat()
            mark: object = found.st_mtime_ns, found.st_size, found.st_ino
        except OSError:
            mark = None
        changed = self._read.get(name, "") != mark
        self._read[name] = mark
        return changed

    def _read_config(self) -> Config | None:
        try:
            return read_config(self.path / "config.yaml")
        except DdmError:
            return None

    def _read_evaluations(self) -> list[dict[str, Any]]:
        try:
            return log.read(self.path / "evaluations.jsonl")
        except DdmError:  # a line that is no record: it names the file, which is nobody's business
            return []

    @property
    def step(self) -> int:
        """Of the newest record or checkpoint."""
        return max(int(self.history.last("step") or 0), self.saved or 0)

    @property
    def total(self) -> int | None:
        """Steps of the whole training, where that is known."""
        return None if self.config is None else self.config.train.steps

    @property
    def pace(self) -> float | None:
        """Seconds a step takes, saving and sampling included but for long breaks."""
        steps, times = (np.diff(self.history.column(name)[-RECENT:]) for name in ("step", "time"))
        sound = np.isfinite(times) & (times > 0)
        return float(np.median(times[sound] / steps[sound])) if sound.any() else None

    @property
    def left(self) -> float | None:
        """Seconds to the end at this pace."""
        if self.total is None or self.pace is None:
            return None
        return max(self.total - self.step, 0) * self.pace

    def silence(self, now: float) -> float:
        """Seconds since something changed in the folder."""
        names = ("metrics.jsonl", "evaluations.jsonl", "samples", "checkpoints", "config.yaml")
        return max(now - max(changed(self.path / name) for name in names), 0.0)

    def state(self, now: float | None = None) -> State:
        """How it is, in words that name no folder."""
        at = f"step {self.step:,}"
        if not len(self.history) and self.saved is None:
            return State("waiting", self._waiting())
        if not len(self.history) and not self.in_use:
            return State("stopped", f"Saved at step {self.saved:,}; the log of its training is not here.")
        if self.total is not None and self.step >= self.total:
            return State("finished", f"Done: {self.total:,} steps.")
        if self.in_use or (not self._was_used and self._is_lively(time.time() if now is None else now)):
            skipped = int(self.history.last("skipped") or 0)
            bad = f" {skipped:,} steps were not finite and left out." if skipped else ""
            return State("training", f"Another process is at work on it.{bad}")
        saved = "nothing was saved" if self.saved is None else f"saved at step {self.saved:,}"
        if self._is_lost():
            return State(
                "diverged",
                f"Ended at {at}: loss or gradient was not finite any more; {saved}. Try a lower train.lr, or "
                "train.precision bf16 or fp32, under another --name.",
            )
        return State(
            "stopped",
            f"Stopped at {at}; {saved}. The same command {'begins again' if self.saved is None else 'goes on'}.",
        )

    def _waiting(self) -> str:
        if self.config is None:
            return "There is no such run now; it was moved, or it has not begun."
        return f"It has begun; its first record comes after {self.config.every.log:,} steps."

    def _is_lively(self, now: float) -> bool:
        spaces = np.diff(self.history.column("time")[-RECENT:])
        usual = float(np.median(spaces[spaces > 0])) if (spaces > 0).any() else 0.0
        return self.silence(now) < max(QUIET, SLOWEST * usual)

    def _is_lost(self) -> bool:
        """Whether no step since the record before last was applied."""
        steps, skipped, losses = (self.history.column(name)[-2:] for name in ("step", "skipped", "loss"))
        if not len(steps) or math.isfinite(losses[-1]):
            return False
        before = (0.0, 0.0) if len(steps) == 1 else (steps[0], skipped[0])
        return bool(skipped[-1] - before[1] >= steps[-1] - before[0])

    def curve(self, name: str) -> Curve:
        """One of :data:`CURVES` against the step."""
        return curve(self.history.column("step"), self.history.column(name), points=POINTS)

    def distances(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Name and points of each metric that was measured while training."""
        return list(curves.distances(drawable(self.evaluations)))

    def frame(self, number: int) -> tuple[int, bytes] | None:
        """A picture of the film: its training step, and the file as it is.

        Args:
            number: from 1; 0 is the newest.

        Returns:
            None where there is none, or where it is still being written.

        Raises:
            RequestError: another number.
        """
        if not 0 <= number <= max(len(self.frames), 1):
            raise RequestError(f"number: {number!r} is not allowed; allowed: 0 to {len(self.frames)}")
        for step in self.frames[number - 1 : number] if number else self.frames[:-3:-1]:
            data = _whole_png(self.path / "samples" / f"{step:06d}.png")
            if data is not None:
                return step, data
        return None


def _whole_png(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError:
        return None
    return data if len(data) <= LARGEST and data.startswith(SIGNATURE) and data.endswith(END) else None


def locked(path: Path) -> bool | None:
    """Whether a process of this machine holds a lock on a file; None where that is not told."""
    try:
        number = path.stat().st_ino
        return any(f":{number} " in line for line in LOCKS.read_text().splitlines() if "FLOCK" in line)
    except OSError:
        return None


def told(watched: Watched) -> dict[str, Any]:
    """All that is known of a run, as JSON can hold it.

    Returns:
        name, state, message, step, total, images, loss, gradient_norm, lr, images_per_second, skipped, seconds_left,
        records, unreadable, frames (training steps), curves (step and value of loss, gradient_norm, lr and
        images_per_second), distances (step, value, low and high of each metric) and evaluations (in words).
    """
    state, history = watched.state(), watched.history
    facts: dict[str, Any] = {"run": watched.name, "state": state.word, "message": state.message, "step": watched.step}
    facts |= {"total": watched.total, "seconds_left": watched.left, "records": len(history)}
    facts |= {
        name: history.last(name) for name in ("images", "loss", "gradient_norm", "lr", "images_per_second", "skipped")
    }
    facts |= {"unreadable": history.unreadable, "frames": list(watched.frames)}
    found = {name: watched.curve(name) for name in CURVES}
    facts["curves"] = {name: {"step": each.step.tolist(), "value": each.value.tolist()} for name, each in found.items()}
    facts["distances"] = {
        label: {name: [point[name] for point in points] for name in ("step", "value", "low", "high")}
        for label, points in watched.distances()
    }
    return facts | {"evaluations": [vars(each) for each in newest(watched)]}


def newest(watched: Watched, count: int = 8) -> Sequence[Any]:
    """The newest rows of what was measured, see :class:`ddm.runs.numbers.Number`."""
    groups = watched.numbers.groups if watched.numbers else []
    return [row for group in groups for row in group.rows][-count:]
