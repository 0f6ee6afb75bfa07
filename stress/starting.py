"""Processes that are there in a tenth of a second: forked from one that has imported torch and does nothing else.

    python -m stress.starting     # serves requests, a line of JSON each; see Starter

What runs in them is ``ddm.cli.main``, as after typing the command; only its imports are done before. A process that has
trained cannot be forked, nor one with threads, so the one that forks is neither the stress run nor a test.
"""

import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress import PLACES, ROOT

NEEDED = (
    "accelerate", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "torch.distributed", "torch._dynamo",
    "ddm.commands.training", "ddm.commands.train", "ddm.runs.recipes", "ddm.data.shapes",
)  # fmt: skip
"""Imported once."""

DIE_WITH_PARENT = 1
"""Of prctl(2)."""


@dataclass
class Child:
    """A process.

    Args:
        starter: who started it.
        pid: its number.
        said: the file with all that it says.
    """

    starter: "Starter"
    pid: int
    said: Path
    status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative after a signal; None while it runs."""
        if self.status is None:
            self.status = self.starter.ask({"pid": self.pid})
        return self.status

    def wait(self, seconds: float = 120.0) -> int:
        """The exit status.

        Raises:
            TimeoutError: it still runs.
        """
        if not until(lambda: self.poll() is not None, seconds):
            raise TimeoutError(f"process {self.pid} still runs after {seconds:.0f} s")
        assert self.status is not None
        return self.status

    def send(self, number: int) -> None:
        """A signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()


class Starter:
    """Starts processes; see :func:`starter`."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PLACES)}
        command = [sys.executable, "-m", "stress.starting"]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._to, self._from = self._server.stdin, self._server.stdout

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The server's answer."""
        self._to.write(json.dumps(request) + "\n")
        self._to.flush()
        return json.loads(self._from.readline())

    def call(self, function: str, *arguments: Any, said: Path, **environment: str) -> Child:
        """Start ``module:name`` with arguments that JSON can hold; what it returns is the exit status."""
        said.parent.mkdir(parents=True, exist_ok=True)
        request = {"call": function, "arguments": arguments, "said": str(said), "environment": environment}
        return Child(self, self.ask(request), said)

    def ddm(self, *arguments: object, said: Path, **environment: str) -> Child:
        """Start a command of ddm."""
        return self.call("ddm.cli:main", [str(each) for each in arguments], said=said, **environment)

    def ranks(self, count: int, function: str, *arguments: Any, said: Path) -> list[Child]:
        """Start processes that find each other, as a launcher does."""
        if count == 1:
            return [self.call(function, *arguments, said=said)]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
        shared["LOCAL_WORLD_SIZE"] = str(count)
        return [
            self.call(function, *arguments, said=said, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
            for rank in range(count)
        ]

    def end(self) -> None:
        """All that still runs is killed."""
        with suppress(BrokenPipeError):
            self._to.close()
        self._server.wait()
        self._from.close()


@contextmanager
def starter() -> Iterator[Starter]:
    """A :class:`Starter` until the end of the block."""
    found = Starter()
    try:
        yield found
    finally:
        found.end()


def until(done: Callable[[], object], seconds: float, pause: float = 0.002) -> bool:
    """Wait for something, not for ever; whether it came."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serve() -> None:
    """Answer until the other side is gone."""
    for name in NEEDED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    living: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "call" in request:
            answer = begin(request)
            living.add(answer)
        else:
            found, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
            living -= {found}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for process in living:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def begin(request: Mapping[str, Any]) -> int:
    """Fork; the child does what is asked and never returns."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        place = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, place), (2, place)):
            os.dup2(target, stream)
        os.environ.update(request["environment"])
        module, _, name = request["call"].partition(":")
        status = getattr(importlib.import_module(module), name)(*request["arguments"]) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
