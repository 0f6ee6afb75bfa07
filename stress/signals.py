"""F6: SIGTERM and Ctrl-C at random moments: saved at the step, the right exit status, soon."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ddm.runs import checkpoints
from stress.plan import Plan, Tally, middle, problem_of
from stress.rows import Row
from stress.starting import Child, until
from stress.tiny import newest, said, step_of, train

OPTIONS = ("--steps=1000000", "--every.save=7", "--every.sample=11", "--sample.steps=20", "--keep.last=2")
"""So that a signal meets steps, saves and samples alike."""

BEGUN, READY = "device", 60.0
"""The last word before the first step: a signal before that finds nothing to save. And seconds it may take."""

STATUS = {int(signal.SIGTERM): 143, int(signal.SIGINT): 130}


def campaign(plan: Plan) -> Iterator[Row]:
    """One process, then two, of which one or both are told."""
    for processes, short, full in ((1, 14, 140), (2, 6, 60)):
        tally, seconds, moments = Tally(), [], plan.random("signals", processes)
        for number in range(plan.count(short, full)):
            name = f"told-{processes}-{number % 4}"  # goes on where an earlier one was told to leave
            problem = problem_of(lambda: seconds.append(told(plan, name, processes, moments)))  # noqa: B023
            tally.add(f"{name}: {problem}" if problem else "")
        note = f"seconds to the exit: median {middle(seconds):.2f}, 95 of 100 {middle(seconds, 0.95):.2f}, "
        note += f"most {max(seconds, default=0):.2f}"
        ranks = "one process" if processes == 1 else "one of two processes, or both"
        what = (
            f"SIGTERM or Ctrl-C to {ranks} in a step, a save or while sampling: saved at that step, status 143 or 130"
        )
        yield tally.row("F6", what, "200 / 200, 95 of 100 within 2 s and a step", note=note)


def told(plan: Plan, name: str, processes: int, moments: random.Random) -> float:
    """Seconds from a signal to the exit; everything about it is checked."""
    run = plan.folder / name
    first = newest(run)
    said(plan, name).unlink(missing_ok=True)
    children = train(plan, name, *OPTIONS, processes=processes)
    try:
        return seconds_to_the_exit(run, children, first, moments)
    finally:
        for each in children:
            each.kill()


def seconds_to_the_exit(run: Path, children: list[Child], first: int, moments: random.Random) -> float:
    """Send the signal to one or to all, and look at what they left."""
    number = moments.choice(list(STATUS))
    assert until(lambda: step_of(run) > first, READY), "no step was done"
    time.sleep(moments.uniform(0, 0.5))
    before, asked = step_of(run), time.monotonic()
    for each in children if moments.random() < 0.5 else [moments.choice(children)]:
        os.kill(each.pid, number)
    statuses = [each.wait(60) for each in children]
    seconds = time.monotonic() - asked
    check(run, children, before)
    assert set(statuses) == {STATUS[number]}, f"exit statuses {statuses}"
    return seconds


def check(run: Path, children: list[Child], before: int) -> None:
    """What a run says and has after it was told to leave: all, and no work that it need not have done."""
    text, step = children[0].said.read_text(), newest(run)
    assert f"interrupted at step {step:,} of 1,000,000, all saved." in text, f"stands at {step}: {text[-200:]}"
    assert checkpoints.load(run / "checkpoints" / f"{step:06d}").step == step
    assert before <= step == step_of(run), f"{before} was logged before the signal, {step} saved, {step_of(run)} logged"
    assert step - before <= 1 + len(children), f"{step - before} more steps were done"
    assert "Traceback" not in text, text[-300:]
