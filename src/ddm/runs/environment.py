"""Where a run ran: versions, device, commit and command line, one record a session."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ddm.runs.atomic import replace_file
from ddm.version import __version__

PACKAGES = ("torch", "numpy", "accelerate", "datasets", "safetensors", "pillow")


def describe(device: torch.device) -> dict[str, Any]:
    """Versions and hardware as plain values."""
    return {
        "ddm": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({processor()})",
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """The CPU's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """The commit of the source tree this package runs from; None for an installed release."""
    here, said = Path(__file__), None
    try:
        for command in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            git = ["git", "-C", str(here.parent), *command]  # the first: a repository around site-packages is not ours
            said = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        return said
    except (OSError, subprocess.SubprocessError):
        return None


def record(path: Path, device: torch.device, **facts: Any) -> None:
    """Add this session to ``environment.json``; what earlier sessions wrote stays."""
    try:
        sessions = list(json.loads(path.read_text(encoding="utf-8"))["sessions"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sessions = []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    sessions.append({"started": now, "command": sys.argv, **describe(device), **facts})
    replace_file(path, json.dumps({"format": 1, "sessions": sessions}, indent=1).encode())
