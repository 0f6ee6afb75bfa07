"""F3: SIGKILL at random moments, a third of them in a save, until the run is done; then it is what it would have been.

A run is killed again and again, and resumed by the same command. In the end the log and every tensor of the checkpoints
that are kept have to be those of a run that nobody disturbed, bit for bit.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kill_and_compare import assert_same_run
from stress.plan import Plan, Tally, problem_of
from stress.rows import Row
from stress.starting import Child, until
from stress.tiny import finish, last_words, newest, newest_time, step_of, train

SAVE = 5
"""Steps between two checkpoints."""

LONGEST = 0.8
"""Time until a kill, at most, as a share of what an undisturbed run takes."""

IN_A_SAVE = 0.015
"""Seconds that a save of the tiny run takes, about."""

Start = Callable[[], list[Child]]


@dataclass
class Met:
    """What the kills met.

    Attributes:
        longest: seconds until a kill, at most.
        saving: kills that left something half written behind.
        early: kills before a first step, new or again.
        runs: trainings that came to their end.
        lost: steps of the log that a kill took back, at most.
    """

    longest: float
    saving: int = 0
    early: int = 0
    runs: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)

    def look(self, run: Path, before: set[str], begun: float) -> None:
        """After a kill."""
        self.saving += bool(half_written(run) - before)
        self.early += newest_time(run) < begun
        back = step_of(run) - newest(run)
        self.lost = max(self.lost, back)
        if back > SAVE:
            self.problems.append(f"{run.name}: a kill took back {back} steps, saved every {SAVE}")


def campaign(plan: Plan) -> Iterator[Row]:
    """One process, then two."""
    yield kill(plan, 1, plan.count(80, 800))
    yield kill(plan, 2, plan.count(20, 200))


def kill(plan: Plan, processes: int, kills: int, *, steps: int = 60) -> Row:
    """Runs of so many processes, killed so often in all."""
    tally, moments = Tally(), plan.random("kills", processes)
    options = (f"--steps={steps}", f"--every.save={SAVE}")
    whole = plan.folder / f"whole-{processes}"
    finish(train(plan, whole.name, *options, processes=processes))
    met = Met(longest=LONGEST * (time.monotonic() - tally.started))
    while tally.count < kills:
        name = f"killed-{processes}-{met.runs}"
        found = killed_until_done(plan, name, options, processes, moments, met)
        problem = problem_of(lambda: assert_same_run(whole, plan.folder / name, last=2))  # noqa: B023 (called at once)
        tally.add(f"{name}: {problem}" if problem else "", times=found)
        met.runs += 1
    for problem in met.problems:
        tally.add(problem)
    note = f"{met.saving} left something half written, {met.early} came before the first step; {met.runs} runs, "
    note += f"at most {met.lost} steps done again after a kill"
    ranks = "one process" if processes == 1 else "two processes"
    what = (
        f"SIGKILL of a real training of {ranks}, resumed: log and weights are those of the undisturbed run, bit for bit"
    )
    return tally.row("F3", what, "1,000 / 1,000", note=note)


def killed_until_done(
    plan: Plan, name: str, options: tuple[str, ...], processes: int, moments: random.Random, met: Met
) -> int:
    """How often it was killed until it was done."""
    run, kills = plan.folder / name, 0
    while True:
        before, begun = half_written(run), time.time()
        children = train(plan, name, *options, processes=processes)
        if moments.random() < 1 / 3:
            aim_at_a_save(children, run, moments)
        else:
            until(lambda: over(children), moments.uniform(0, met.longest), 0.01)  # noqa: B023 (called at once)
        if over(children):
            finish(children)
            return kills
        for each in children:
            os.kill(each.pid, signal.SIGKILL)
        statuses = [each.wait() for each in children]
        assert set(statuses) <= {-signal.SIGKILL, 0}, f"exit statuses {statuses}: {last_words(children[0].said)}"
        kills += 1
        met.look(run, before, begun)


def over(children: list[Child]) -> bool:
    """Whether a process has ended."""
    return any(each.poll() is not None for each in children)


def aim_at_a_save(children: list[Child], run: Path, moments: random.Random) -> None:
    """Wait for a save to begin, then for a part of it."""
    first = newest(run) + SAVE * moments.randrange(1, 12)
    until(lambda: over(children) or newest(run) >= first, 60, 0.01)
    folder = run / "checkpoints"
    until(lambda: over(children) or any(name.startswith(".tmp-") for name in names(folder)), 60, 0.0005)
    time.sleep(moments.uniform(0, IN_A_SAVE))


def half_written(run: Path) -> set[str]:
    """What a save leaves behind that was cut off."""
    return {name for name in names(run / "checkpoints") + names(run) if name.startswith((".tmp-", ".old-"))}


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return os.listdir(folder) if folder.is_dir() else []
