"""F8: no room: the run says so, keeps its last good checkpoint, goes on training, and saves again once there is room.

The run is on a small disk in memory. A file beside it takes all but so many bytes, another number each time, from none
to more than a checkpoint; it is removed once the run has complained, or has saved all the same.
"""

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ddm.runs import checkpoints
from ddm.runs.manifest import verify
from stress.plan import NotHere, Plan, Tally, problem_of
from stress.rows import Row
from stress.starting import Child, until
from stress.tiny import newest, train

SIZE = "4m"
"""Of the disk: some checkpoints, a curve, a log."""

KEPT = 2
OPTIONS = ("--steps=1000000", "--every.save=5", "--every.log=20", f"--keep.last={KEPT}")

COMPLAINT = re.compile(r"^.* of step [\d,]+ was not written: .*$", re.MULTILINE)
COMPLETE = re.compile(r"No space left on device.*; training goes on")


@dataclass
class Met:
    """How often something was not written, and how often the room was enough."""

    full: int = 0
    enough: int = 0


def campaign(plan: Plan) -> Iterator[Row]:
    """As many moments without room as asked for, in one run."""
    yield fill(plan, plan.count(50, 200))


def fill(plan: Plan, times: int) -> Row:
    """A run that is out of room so many times, and ends with the weights that it would have had."""
    tally, moments, met = Tally(), plan.random("full disk"), Met()
    with small_disk(plan.folder / "small") as disk:
        children = train(plan, "run", *OPTIONS, runs=disk)
        try:
            assert until(lambda: newest(disk / "run") >= 10, 60), "it never began"
            for _ in range(times):
                tally.add(problem_of(lambda: without_room(plan, disk, children[0], moments, met)))
            children[0].send(15)
            tally.add(problem_of(lambda: as_if_nothing_had_been(plan, disk / "run", children[0])))
        finally:
            children[0].kill()
    what = "no room on the disk: said, the checkpoint before verifies, it trains on, and saves once there is room"
    note = f"{met.full} times something was not written, {met.enough} times the room was enough; "
    note += "weights in the end those of a run that had room"
    return tally.row("F8", what, "200 / 200", note=note)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own for a folder.

    Raises:
        NotHere: the system does not allow it.
    """
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "ddm-stress", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotHere(f"no small disk: {error.strerror}") from None
    if made.returncode:
        raise NotHere(f"no small disk: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def without_room(plan: Plan, disk: Path, child: Child, moments: random.Random, met: Met) -> None:
    """Take the room away until somebody complains, look, and give it back."""
    run, said = disk / "run", plan.folder / "run.txt"
    assert until(lambda: len(checkpoints.steps(run / "checkpoints")) <= KEPT, 60), "nothing was pruned"
    time.sleep(moments.uniform(0, 0.02))  # else the room that the prune makes would be there as well
    before, complaints = newest(run), len(COMPLAINT.findall(said.read_text()))
    size = sum(each.stat().st_size for each in (run / "checkpoints" / f"{before:06d}").iterdir())
    take_all_but(disk / "pad", moments.randrange(size * 5 // 4))
    heard = lambda: COMPLAINT.findall(said.read_text())[complaints:]  # noqa: E731
    assert until(lambda: heard() or newest(run) >= before + 15 or child.poll() is not None, 60, 0.02), "nothing came"
    assert child.poll() is None, f"the training ended with {child.status}"
    verify(run / "checkpoints" / f"{newest(run):06d}")
    assert newest(run) >= before, f"step {before} had been saved, {newest(run)} is the newest"
    assert all(COMPLETE.search(line) for line in heard()), heard()
    met.full, met.enough = met.full + bool(heard()), met.enough + (not heard())
    (disk / "pad").unlink()
    last = newest(run)
    assert until(lambda: newest(run) > last, 60, 0.02), "it does not save any more"
    verify(run / "checkpoints" / f"{newest(run):06d}")


def take_all_but(path: Path, room: int) -> None:
    """A file as large as can be, but for so many bytes."""
    with path.open("wb") as file:
        while True:
            free = os.statvfs(path)
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, file.tell() + free.f_bavail * free.f_frsize - room))
                return
            except OSError:  # the run took some of it meanwhile
                continue


def as_if_nothing_had_been(plan: Plan, run: Path, child: Child) -> None:
    """The last checkpoint at a multiple of five holds the tensors of a run that always had room."""
    assert child.wait(60) == 143, f"the training ended with {child.status}"
    step = max(each for each in checkpoints.steps(run / "checkpoints") if each % 5 == 0)
    (other,) = train(plan, "roomy", *OPTIONS, "--keep.last=0")
    try:
        assert until(lambda: newest(plan.folder / "roomy") > step, 600, 0.1), "the run with room does not get there"
    finally:
        other.kill()
    ours, theirs = (checkpoints.load(each / "checkpoints" / f"{step:06d}") for each in (run, plan.folder / "roomy"))
    for group, tensors in ours.tensors.items():
        for name, value in tensors.items():
            assert torch.equal(value, theirs.tensors[group][name]), (step, group, name)
