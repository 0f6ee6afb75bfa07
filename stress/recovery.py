"""F14: seconds from a kill to the first new step, by commands that import everything anew, as people start them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from stress.plan import Plan, Tally, middle
from stress.rows import Row
from stress.starting import until
from stress.tiny import TINY, newest_time

ALLOWED = 5.0
"""Seconds more than a start from nothing takes."""


def campaign(plan: Plan) -> Iterator[Row]:
    """Start, kill, start again."""
    tally, plain, again = Tally(), [], []
    for number in range(plan.count(3, 20)):
        plain.append(seconds_to_a_step(plan.folder, f"run-{number}"))
        again.append(seconds_to_a_step(plan.folder, f"run-{number}"))
        late = again[-1] > middle(plain) + ALLOWED
        tally.add(f"{again[-1]:.1f} s after a kill, {middle(plain):.1f} s from nothing" if late else "")
    note = f"seconds to the first step: {middle(again):.1f} after a kill, {middle(plain):.1f} from nothing (medians)"
    what = "recovery: SIGKILL, the same command, the first new step"
    yield tally.row("F14", what, "<= 5 s over a plain start", note=note)


def seconds_to_a_step(folder: Path, name: str) -> float:
    """From the command to a record that is new; then some more steps, and SIGKILL."""
    command = [sys.executable, "-m", "ddm.cli", "train", *TINY, "--runs", str(folder), "--name", name]
    begun, started = time.time(), time.monotonic()
    with (folder / f"{name}.txt").open("a") as said:
        options = ["--steps=1000000", "--every.save=5"]
        process = subprocess.Popen([*command, *options], stdout=said, stderr=said, env=dict(os.environ))
    try:
        assert until(lambda: newest_time(folder / name) > begun, 120), "no new step"
        seconds = time.monotonic() - started
        time.sleep(0.5)
    finally:
        process.kill()
        process.wait()
    return seconds
