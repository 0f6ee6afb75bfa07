"""Talk goes to stderr, data to stdout; a bar where there is a terminal, plain lines where there is none."""

import json
import os
import sys
import time
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn


class Console:
    """What a command says.

    Args:
        quiet: say nothing but results and errors.
        json: results are one JSON object on stdout.
    """

    def __init__(self, *, quiet: bool = False, json: bool = False):
        self.quiet, self.json = quiet, json
        self._rich = RichConsole(stderr=True, highlight=False, soft_wrap=True, markup=False)

    def say(self, text: str) -> None:
        """One line for people."""
        if not self.quiet:
            self._rich.print(text)

    def result(self, text: str, **facts: Any) -> None:
        """The outcome: ``text`` for people and pipes, or the facts as JSON."""
        sys.stdout.write(json.dumps(facts, default=str) + "\n" if self.json else text + "\n")
        sys.stdout.flush()

    def bar(self, total: int, *, done: int = 0) -> "Bar":
        """A progress bar over ``total`` steps."""
        return Bar(self._rich, total, done=done, hidden=self.quiet)


class Bar:
    """Progress over steps, as a context manager; on a terminal a moving bar, elsewhere a line a :meth:`log`."""

    def __init__(self, console: RichConsole, total: int, *, done: int, hidden: bool):
        self._console, self._total, self._hidden = console, total, hidden
        self._moving = console.is_terminal and not hidden
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not self._moving, transient=True)
        self._task: TaskID = self._progress.add_task("", total=total, completed=done, note="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int) -> None:
        """Move the bar to ``done`` steps."""
        self._progress.update(self._task, completed=done)

    def log(self, done: int, note: str) -> None:
        """Say how it goes."""
        if self._moving:
            self._progress.update(self._task, completed=done, note=note)
        elif not self._hidden:
            self._console.print(f"{done}/{self._total}  {note}")


def is_main() -> bool:
    """Whether this is the process that writes and speaks: the only one, or the first of a launcher's."""
    launched = "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return not launched or os.environ.get("RANK", "0") == "0"


def duration(seconds: float) -> str:
    """``75`` to ``1m15s``."""
    seconds = round(seconds)
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


class Stages:
    """Progress of work with several parts, one after the other; call it with ``(what, done, total)``.

    On a terminal a moving bar a part; elsewhere a line when a part ends, and now and then in between.
    """

    EVERY = 20.0
    """Seconds between two lines of one part where there is no terminal."""

    def __init__(self, console: Console):
        self._console, self._what, self._bar = console, "", None
        self._started = self._spoke = time.monotonic()
        self._first = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say how far it is."""
        now = time.monotonic()
        if what != self._what:
            self.close()
            self._what, self._started, self._spoke, self._first = what, now, now, done
            self._bar = self._console.bar(total, done=done)
            self._bar.__enter__()
        assert self._bar is not None
        self._bar.update(done)
        if done == total or now - self._spoke > self.EVERY:
            self._spoke = now
            speed = (done - self._first) / max(now - self._started, 1e-9)
            left = f", {duration((total - done) / speed)} left" if speed and done < total else ""
            self._bar.log(done, f"{what}, {speed:,.0f} a second{left}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None
