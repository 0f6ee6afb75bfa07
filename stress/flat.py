"""A long run stays flat: memory, open files, threads and the time of a step in the end as at step 1,000.

The time of a step is that of the processor, which other programs on the machine change less than that of the clock.
"""

import os
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stress.plan import Plan, Tally
from stress.rows import Row
from stress.tiny import finish, step_of, train

WINDOW = 10
"""Looks of which the median is taken, at the beginning and in the end."""

MORE = 0.05
"""Allowed, as a share of what there was."""


@dataclass(frozen=True)
class Look:
    """A process at a step: seconds of the processor so far, megabytes, open files, threads."""

    step: int
    seconds: float
    megabytes: float
    files: int
    threads: int


def campaign(plan: Plan) -> Iterator[Row]:
    """20,000 steps: the figure is about these, whatever the counts of the others."""
    yield stay(plan, steps=20_000, early=1000, every=50)


def stay(plan: Plan, *, steps: int, early: int, every: int, slower: float = MORE) -> Row:
    """Train so many steps, look each ``every``, and compare the end with what there was around step ``early``.

    Args:
        plan: where.
        steps: of the training.
        early: the step that the end is compared with.
        every: steps between two looks.
        slower: allowed of the time of a step, as a share.
    """
    tally = Tally()
    looks = watch(plan, steps, every, save=early // 2)  # the first save opens fonts, which stay
    half = WINDOW // 2
    middle = max(half, next((n for n, look in enumerate(looks) if look.step >= early), 0))
    first, last = looks[middle - half : middle + half + 1], looks[-WINDOW - 1 :]
    told = []
    for name, value in MEASURES.items():
        before, after = value(first), value(last)
        told.append(f"{name} {before:.4g} -> {after:.4g}")
        more = after > before * (1 + (slower if value is milliseconds else MORE))
        tally.add(f"{name} grew from {before:.4g} at step {early:,} to {after:.4g} at step {steps:,}" if more else "")
    what = (
        f"{steps:,} steps: memory, files, threads and time of a step at the end within 5 % of those at step {early:,}"
    )
    return tally.row("flat", what, "4 / 4", faults=False, note=", ".join(told))


def watch(plan: Plan, steps: int, every: int, save: int) -> list[Look]:
    """A training, looked at each time something was logged."""
    options = (f"--every.save={save}", f"--steps={steps}", f"--every.log={every}")
    children, run, looks = train(plan, "long", *options), plan.folder / "long", []
    while children[0].poll() is None:
        time.sleep(0.05)
        step = step_of(run)
        if step > (looks[-1].step if looks else 0) and (found := look(children[0].pid, step)):
            looks.append(found)
    finish(children)
    return looks


def look(process: int, step: int) -> Look | None:
    """What the system tells of a process; None where it has just ended."""
    place = Path(f"/proc/{process}")
    try:
        status, files = (place / "status").read_text(), len(os.listdir(place / "fd"))
        ticks = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return None
    found = {name: int(number) for name, number in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE)}
    if "VmRSS" not in found:
        return None
    seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Look(step, seconds, found["VmRSS"] / 1024, files, found["Threads"])


def milliseconds(looks: list[Look]) -> float:
    """Of the processor a step: the median over the steps between two looks."""
    laps = [(b.seconds - a.seconds) / (b.step - a.step) for a, b in zip(looks, looks[1:])]
    return 1000 * statistics.median(laps)


MEASURES = {
    "MB": lambda looks: statistics.median(look.megabytes for look in looks),
    "files": lambda looks: statistics.median(look.files for look in looks),
    "threads": lambda looks: statistics.median(look.threads for look in looks),
    "ms a step": milliseconds,
}
