"""Whatever the number of processes, a step sees the same pictures, labels, timesteps and noise."""

import pytest
import torch
from test_trainer import make
from torch import Tensor

from counts import times
from ddm.errors import RequestError
from ddm.training.processes import check_count, refuse_sharding


def seen(step: int, processes: int) -> list[Tensor]:
    """Pictures, labels, timesteps and noise of a step, put together from the parts of all processes."""
    parts = []
    for rank in range(processes):
        trainer = make(batch=8, accumulate=2)
        trainer.step, trainer.part = step, trainer._part(rank, processes)

        def spy(x0: Tensor, label: Tensor, *, position: Tensor, noise: Tensor, share: float):
            parts[-1].append((x0, label, position, noise))
            return trainer.diffusion(x0, label, position=position, noise=noise, share=share)  # noqa: B023

        trainer._wrapped = spy
        parts.append([])
        for micro in range(trainer.accumulate):
            trainer._backward(step * trainer.accumulate + micro, torch.zeros(()))
    return [torch.cat(each) for micro in zip(*parts) for each in zip(*micro)]


@pytest.mark.parametrize("processes", [2, 4, 8])
@pytest.mark.parametrize("step", [0, *range(3, times(4, stress=12, full=53))])
def test_any_number_of_processes_sees_the_same(step: int, processes: int):
    for ours, theirs in zip(seen(step, 1), seen(step, processes), strict=True):
        assert torch.equal(ours, theirs)


def test_the_comparison_can_fail():
    assert not all(torch.equal(ours, theirs) for ours, theirs in zip(seen(0, 1), seen(1, 1), strict=True))


def test_processes_that_did_not_find_each_other_are_refused():
    """``accelerate launch --cpu --num_processes 2`` starts one process, which would train alone and say nothing."""
    for count, environment in ((1, {}), (2, {"WORLD_SIZE": "2"}), (1, {"MASTER_ADDR": "x"})):
        check_count(count, environment)
    with pytest.raises(RequestError, match="processes: 2 were asked for and 1 found each other; use torchrun"):
        check_count(1, {"WORLD_SIZE": "2"})
    with pytest.raises(RequestError, match="processes: several were asked for and 1 found each other"):
        check_count(1, {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"})


def test_split_weights_are_refused():
    refuse_sharding({"ACCELERATE_USE_FSDP": "false"})
    with pytest.raises(
        RequestError, match="processes: FSDP is not allowed, every process keeps all weights; allowed: --multi_gpu"
    ):
        refuse_sharding({"ACCELERATE_USE_FSDP": "true"})
