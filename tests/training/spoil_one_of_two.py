"""Run by test_not_finite.py on two processes: NaN and infinity at every place on the second one alone."""

import math
import sys

import torch
import torch.distributed
from test_not_finite import PASSING, STAYING, Injection, trained, unchanged
from test_trainer import advance, make

from ddm.training import Trainer


def same_on_both(trainer: Trainer) -> bool:
    """Whether the two processes have the same weights."""
    ours = torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])
    first = ours.clone()
    torch.distributed.broadcast(first, 0)
    alike = torch.tensor(float(torch.equal(ours, first)))
    torch.distributed.all_reduce(alike, torch.distributed.ReduceOp.MIN)
    return bool(alike)


def survives(inject: Injection, value: float) -> bool:
    """Whether the spoilt step is left out on both, and, where it can be, the next one taken."""
    trainer = make(steps=6)
    advance(trainer, 2)
    if trainer.accelerator.process_index == 1:
        inject(trainer, value)
    before = trained(trainer)
    advance(trainer, 1)
    left_out = trainer.not_finite_in_a_row == 1 and unchanged(before, trained(trainer))
    if inject in PASSING:
        advance(trainer, 1)
        return left_out and trainer.not_finite_in_a_row == 0 and same_on_both(trainer)
    return left_out


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = [survives(inject, value) for inject in [*PASSING, *STAYING] for value in (math.nan, math.inf)]
    total = torch.tensor([float(sum(results))])
    torch.distributed.all_reduce(total, torch.distributed.ReduceOp.MIN)
    if torch.distributed.get_rank() == 0:
        sys.stdout.write(f"{int(total)} of {len(results)}\n")
    torch.distributed.destroy_process_group()
