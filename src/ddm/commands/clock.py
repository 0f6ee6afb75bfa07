"""How fast a training is, and how long it will take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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
