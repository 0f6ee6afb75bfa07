"""The one place that knows Accelerate: devices, precision and processes."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object
from torch import Tensor

from ddm.errors import DdmError, RequestError
from ddm.training import watch

Result = TypeVar("Result")
Precision = Literal["auto", "fp32", "bf16", "fp16"]
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def pick_device(device: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``mps`` to a device that is there.

    Raises:
        RequestError: that device is not on this machine, or the name is none of these.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    if device not in there:
        raise RequestError(f"device: {device!r} is unknown; allowed: auto, {', '.join(there)}")
    if not there[device]:
        raise RequestError(
            f"device: {device!r} is not usable here (torch {torch.__version__}); allowed: "
            + ", ".join(name for name, usable in there.items() if usable)
        )
    return torch.device(device)


def pick_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The precision that really runs.

    ``auto`` is bf16 where the device computes in it and fp32 elsewhere: a CPU without bf16 instructions emulates them
    and takes two to three times as long as in fp32. fp16 needs a CUDA device: Accelerate would train in float32 in
    silence.
    """
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return "fp32" if precision == "fp16" and device.type != "cuda" else precision


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def join(place: torch.device) -> PartialState:
    """Take this process's place among those of the launcher, and watch over the others from now on.

    Raises:
        RequestError: the launcher was asked for several processes, and this one is alone.
    """
    refuse_sharding(os.environ)
    state = PartialState(cpu=place.type == "cpu")
    check_count(state.num_processes, os.environ)
    watch.begin()
    return state


def check_count(count: int, environment: Mapping[str, str]) -> None:
    """Raise :class:`RequestError` where a launcher was asked for other than ``count`` processes.

    ``accelerate launch --cpu --num_processes 2`` starts one and says nothing: it sets an address to meet at, but no
    number of processes.
    """
    wanted = environment.get("WORLD_SIZE", "1")
    silent = "ACCELERATE_USE_CPU" in environment and "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment
    if silent or (wanted.isdecimal() and int(wanted) != count):
        raise RequestError(
            f"processes: {'several' if silent else wanted} were asked for and {count} found each other; use "
            "torchrun --nproc_per_node NUMBER -m ddm.cli ..."
        )


def refuse_sharding(environment: Mapping[str, str]) -> None:
    """Raise :class:`RequestError` where ``accelerate launch`` shall split the weights: here each process has all."""
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if environment.get(f"ACCELERATE_USE_{name}", "false").lower() in ("1", "true", "yes"):
            raise RequestError(
                f"processes: {name} is not allowed, every process keeps all weights; allowed: --multi_gpu"
            )


def make_accelerator(precision: str, device: torch.device) -> Accelerator:
    """An Accelerator for this trainer, whatever an earlier one in this process was set to."""
    # Accelerate keeps one precision for a whole process and refuses another; two trainers in a notebook may differ.
    AcceleratorState._reset_state()
    if PartialState._shared_state and torch.device(PartialState().device or device).type != device.type:
        PartialState._reset_state()
    join(device)
    return Accelerator(mixed_precision=_MIXED[precision], cpu=device.type == "cpu")


class Team:
    """The processes of a launcher as they share work that is no training; one process alone is a team too.

    Every method is called by all of them, in the same order.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; :attr:`device` is this process's own.
    """

    def __init__(self, device: str):
        place = pick_device(device)
        state = join(place)
        self.rank, self.count = state.process_index, state.num_processes
        self.device: torch.device = place if self.count == 1 or state.device is None else state.device

    def part(self, count: int) -> list[int]:
        """Which of ``count`` things are this process's; all get equally many, so the last may come twice."""
        each = -(-count // self.count)
        return [min(number, count - 1) for number in range(self.rank * each, (self.rank + 1) * each)]

    def gather(self, part: Tensor, count: int, *, each: int | None = None) -> Tensor:
        """The tensors of all processes' parts put together, ``[count, ...]`` on the CPU of each.

        Args:
            part: this process's.
            count: of all.
            each: how many the parts have, where the last ones are shorter.
        """
        if self.count == 1:
            return part.cpu()
        part = part.to(self.device)
        missing = 0 if each is None else each - len(part)
        whole = gather(torch.cat([part, part.new_zeros(missing, *part.shape[1:])]))
        assert isinstance(whole, Tensor)
        return whole[:count].cpu()

    def agree(self, value: Any) -> Any:
        """What the first process says."""
        return broadcast_object_list([value])[0] if self.count > 1 else value

    def together(self, work: Callable[[], Result]) -> Result:
        """Do this process's work; a :class:`DdmError` on any process is raised on all, so that none waits for it."""
        result, problem = None, None
        try:
            result = work()
        except DdmError as error:
            problem = error
        problems = [each for each in self.collect([problem and str(problem)]) if each]
        if problems:
            raise problem or DdmError(problems[0])
        return cast(Result, result)

    def first(self, work: Callable[[], None]) -> None:
        """Work of the first process alone; a :class:`DdmError` of it is raised on all."""
        self.together(work if self.rank == 0 else lambda: None)

    def collect(self, values: list[Any]) -> list[Any]:
        """Everybody's values in the order of the processes."""
        return gather_object(values) if self.count > 1 else values
