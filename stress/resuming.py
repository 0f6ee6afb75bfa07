"""F4 and F5: two processes resume as if they had never stopped; and one, two, four and one share a training."""

from collections.abc import Iterator
from pathlib import Path

import torch

from ddm.runs import checkpoints
from stress.plan import Plan, Tally, middle, problem_of
from stress.rows import Row
from stress.tiny import finish

STEPS = 52
SHARED = [(1, 13), (2, 26), (4, 39), (1, STEPS)]
"""How many processes train, until which step."""

HERE = "stress.resuming:"


def exact(plan: Plan) -> Iterator[Row]:
    """Two processes, stopped after a step; by the function that the test of one process uses."""
    tally, stops = Tally(), list(range(1, 21)) if plan.full else [1, 5, 10, 20]
    for precision in ("fp32", "bf16"):
        said = plan.folder / f"{precision}.txt"
        children = plan.starter.ranks(2, f"{HERE}stop_and_resume", stops, precision, said=said)
        tally.add(problem_of(lambda: finish(children)), times=len(stops))  # noqa: B023 (called at once)
    what = "two processes stopped after a step and resumed: every loss and tensor is that of the undisturbed training"
    yield tally.row("F4", what, "160 / 160 with the row of one process", every=plan.full)


def stop_and_resume(stops: list[int], precision: str) -> None:
    """On each of the processes."""
    from test_trainer import assert_resumed_equals_whole

    assert_resumed_equals_whole(stops, 21, precision=precision)
    leave()


def shared(plan: Plan) -> Iterator[Row]:
    """A training handed from one to two, to four, to one process; its weights are compared with one process's."""
    tally, differences = Tally(), []
    for seed in range(plan.count(2, 10)):
        problem = problem_of(lambda: differences.append(hand_over(plan, seed)))  # noqa: B023
        far = bool(differences) and differences[-1] > 1e-5
        tally.add(problem or (f"seed {seed}: weights differ by {differences[-1]:.1e} of the largest" if far else ""))
    note = (
        f"largest difference of a weight, as a share of the largest in its tensor: median {middle(differences):.1e}, "
    )
    note += f"most {max(differences, default=0):.1e}"
    what = f"trained by 1, 2, 4 and 1 processes in turn, 13 steps each: the weights of one process after {STEPS}"
    yield tally.row("F5", what, "<= 1e-5", faults=False, note=note)


def hand_over(plan: Plan, seed: int) -> float:
    """The largest difference between the weights of two trainings."""
    places = []
    for name, parts in (("alone", [(1, STEPS)]), ("shared", SHARED)):
        folder, begin = plan.folder / f"{name}-{seed}", 0
        for count, end in parts:
            said = folder.with_suffix(".txt")
            finish(plan.starter.ranks(count, f"{HERE}part", str(folder), begin, end, seed, said=said))
            begin = end
        places.append(checkpoints.load(folder / f"{STEPS:06d}").tensors["weights"])
    alone, together = places
    return max(float((alone[name] - together[name]).abs().max() / alone[name].abs().max()) for name in alone)


def part(folder: str, begin: int, end: int, seed: int) -> None:
    """On each process: from a checkpoint to the next one."""
    from test_trainer import advance, make

    trainer = make(steps=STEPS, seed=seed, dropout=0.0)
    if begin:
        loaded = checkpoints.load(Path(folder) / f"{begin:06d}")
        trainer.load(loaded.tensors, loaded.state)
    advance(trainer, end - begin)
    if trainer.accelerator.is_main_process:
        checkpoints.save(Path(folder), end, trainer.tensors(), trainer.counters())
    leave()


def leave() -> None:
    """All processes end together."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
