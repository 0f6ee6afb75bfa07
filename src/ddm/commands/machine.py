"""What ``ddm train`` says about the machine it runs on."""

import sys

import torch

from ddm.training import Trainer, has_bf16


def explain_precision(wanted: str, trainer: Trainer) -> str:
    """Why the precision is what it is, where that may surprise."""
    if wanted == "auto":
        return ""
    if wanted != trainer.precision:
        return f" ({wanted} needs a CUDA GPU)"
    return " (this device emulates it: fp32 is faster)" if wanted == "bf16" and not has_bf16(trainer.device) else ""


def peak_memory(device: torch.device) -> int:
    """Bytes at the most so far: of the GPU where there is one, else of this process; 0 where that is not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:  # Windows has none
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
