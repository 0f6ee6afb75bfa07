"""A long run stays flat: memory, open files, threads and the time of a step in the end as at step 1,000.

A machine is not as fast in one minute as in the next (seen: 8.6 to 13.6 ms of the processor a step, within a run that
does not change). So a young run is trained beside the old one through the last quarter, and their steps are compared
within the same seconds.
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
    """A process at a step: when, seconds of the processor so far, megabytes, open files, threads."""

    step: int
    time: float
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
        slower: allowed of the time of a step, as a share of that of a young run in the same seconds.
    """
    tally = Tally()
    old, young = watch(plan, steps, every, save=early // 2)  # the first save opens fonts, which stay
    half = WINDOW // 2
    middle = max(half, next((n for n, look in enumerate(old) if look.step >= early), 0))
    first, last = old[middle - half : middle + half + 1], old[-WINDOW - 1 :]
    compared = [(name, value(first), value(last), MORE) for name, value in MEASURES.items()]
    young = [look for look in young if look.step >= early]
    beside = [look for look in old if look.time >= young[0].time]
    compared.append(("ms a step", milliseconds(young), milliseconds(beside), slower))
    for name, before, after, more in compared:
        grew = after > before * (1 + more)
        tally.add(f"{name} grew from {before:.4g} to {after:.4g} at step {steps:,}" if grew else "")
    what = (
        f"{steps:,} steps: memory, files and threads as at step {early:,}, the time of a step as of a young run in "
        "the same seconds, within 5 %"
    )
    note = ", ".join(f"{name} {before:.4g} -> {after:.4g}" for name, before, after, _ in compared)
    return tally.row("flat", what, "4 / 4", faults=False, note=note)


def watch(plan: Plan, steps: int, every: int, save: int) -> tuple[list[Look], list[Look]]:
    """A training, looked at each time something was logged, and a second one, begun when three quarters are done."""
    options = (f"--every.save={save}", f"--steps={steps}", f"--every.log={every}")
    looks: dict[str, list[Look]] = {"old": [], "young": []}
    children = train(plan, "old", *options)
    while children[0].poll() is None:
        time.sleep(0.1)
        for (name, seen), child in zip(looks.items(), children):
            step = step_of(plan.folder / name)
            if step > (seen[-1].step if seen else 0) and (found := look(child.pid, step)):
                seen.append(found)
        if len(children) == 1 and step_of(plan.folder / "old") > 0.75 * steps:
            children += train(plan, "young", *options)
    for child in children[1:]:
        child.kill()
    finish(children[:1])
    return looks["old"], looks["young"]


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
    return Look(step, time.monotonic(), seconds, found["VmRSS"] / 1024, files, found["Threads"])


def milliseconds(looks: list[Look]) -> float:
    """Of the processor a step, over all that was looked at."""
    return 1000 * (looks[-1].seconds - looks[0].seconds) / (looks[-1].step - looks[0].step)


MEASURES = {
    "MB": lambda looks: statistics.median(look.megabytes for look in looks),
    "files": lambda looks: statistics.median(look.files for look in looks),
    "threads": lambda looks: statistics.median(look.threads for look in looks),
}
