"""The one place that knows Accelerate: devices, precision and processes."""

from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from ddm.errors import RequestError

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


def make_accelerator(precision: str, device: torch.device) -> Accelerator:
    """An Accelerator for this trainer, whatever an earlier one in this process was set to."""
    # Accelerate keeps one precision for a whole process and refuses another; two trainers in a notebook may differ.
    AcceleratorState._reset_state()
    if PartialState._shared_state and torch.device(PartialState().device or device).type != device.type:
        PartialState._reset_state()
    return Accelerator(mixed_precision=_MIXED[precision], cpu=device.type == "cpu")
