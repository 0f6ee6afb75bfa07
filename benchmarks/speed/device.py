"""What a benchmark asks of a device: to be waited for, how much memory was taken, and that nothing waits in between."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ddm.runs.environment import processor
from ddm.training import pick_device


class Device:
    """A CPU or a CUDA device; a CPU answers what only GPUs know with nothing, so that every line runs on one.

    Args:
        name: ``cpu`` or ``cuda``.
    """

    def __init__(self, name: str):
        self.torch = pick_device(name)
        self.cuda = self.torch.type == "cuda"

    @property
    def name(self) -> str:
        """Which one it is, in words."""
        return torch.cuda.get_device_name() if self.cuda else f"{processor()}, {torch.get_num_threads()} threads"

    def wait(self) -> None:
        """Until all that was asked of it is done."""
        if self.cuda:
            torch.cuda.synchronize()

    def free(self) -> None:
        """Give back the memory that nothing uses any more."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def clear(self) -> None:
        """Give back compiled code as well."""
        torch.compiler.reset()
        self.free()

    def start_counting(self) -> int:
        """Forget the peak of memory so far; the bytes in use now."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() if self.cuda else 0

    def peak(self) -> int | None:
        """Bytes at the most since then; None on a CPU, where it takes a fresh process to tell."""
        return torch.cuda.max_memory_allocated() if self.cuda else None

    @contextmanager
    def nothing_waits(self) -> Iterator[None]:
        """Whatever waits for the device in here is an error."""
        if not self.cuda:
            yield
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def peak_of_process() -> int:
    """Resident bytes of this process at the most."""
    try:
        # ru_maxrss begins at what the parent had when it started this process, VmHWM does not.
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
