"""Peak memory on a CPU: of a fresh process that does nothing else, since a process never gives memory back."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .device import peak_of_process
from .session import Case

STEPS = 3
SCRIPT = Path(__file__).parent.parent / "throughput.py"


def report(case: Case) -> None:
    """In the fresh process: a few steps, and the peak as JSON on stdout."""
    work = case.make()
    for _ in range(STEPS):
        work()
    print(json.dumps({"peak_bytes": peak_of_process()}), flush=True)


def ask(case: Case, flags: Sequence[str], only: str) -> int | None:
    """Resident bytes at the most of a fresh process with this case; None where it failed.

    Args:
        case: what it does.
        flags: of the command line, so that it makes the same cases.
        only: what the cases begin with that are asked for; a rehearsal has no time for all.
    """
    if not case.key.startswith(only):
        return None
    command = [sys.executable, str(SCRIPT), *flags, "--case", case.key]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])["peak_bytes"]
