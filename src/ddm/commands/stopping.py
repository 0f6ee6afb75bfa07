"""Leaving when asked to: a signal sets a flag, and the loop reads it where nothing is half done."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

TOGETHER = 2.0
"""Seconds within which several signals are one."""


@dataclass
class Stop:
    """Set by SIGTERM or Ctrl-C, read between steps; a second signal ends the program at once.

    Unless it comes within :data:`TOGETHER`: wrappers forward a signal that the process got as well.
    """

    signal: int | None = None
    at: float = 0.0

    def __call__(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.signal is not None:
            if time.monotonic() - self.at > TOGETHER:
                os._exit(128 + number)
            return
        self.signal, self.at = number, time.monotonic()
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
