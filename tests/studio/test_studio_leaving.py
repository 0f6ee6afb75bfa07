"""A request that nobody waits for any more: its worker is free within one step of the sampler, however it was left."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from browser import serve, wait_for

STEP = 0.5
"""Seconds that the network takes, and a step of ddim with it."""

SLACK = 0.3
"""Seconds in which the server hears of it, on a machine that others use as well."""

LONG = ["first", "star", 1, 3, "ddim", "", 100, 1.0]
"""50 seconds of work."""


SLOW = """
import os, sys, time
from dataclasses import replace
from torch import nn
from ddm.commands.studio import opening
from ddm.generators import DiffusionGenerator

class Slow(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.classes = network, network.classes

    def forward(self, x, t, label=None):
        with open(os.environ["ASKED"], "a") as file:
            print(time.monotonic(), file=file)
        time.sleep(float(os.environ["STEP"]))
        return self.network(x, t, label)

def load(*given, load=opening.load, **named):
    model = load(*given, **named)
    diffusion = model.generator.diffusion.with_network(Slow(model.generator.diffusion.model))
    return replace(model, generator=DiffusionGenerator(diffusion, shape=model.generator.shape))

opening.load = load
from ddm.cli import main
sys.exit(main())
"""
"""The command, with a network that takes its time and notes when it was asked."""


@dataclass(frozen=True)
class Place:
    """A studio with a slow network.

    Args:
        url: of its page.
        asked: the file with a line for every step.
    """

    url: str
    asked: Path

    @property
    def steps(self) -> int:
        """How many there were so far."""
        return self.asked.read_text().count("\n") if self.asked.exists() else 0

    def at_work(self) -> None:
        """Wait until a request is in its second step."""
        before = self.steps
        wait_for(lambda: self.steps >= before + 2)

    def connect(self) -> socket.socket:
        """A line to it."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def listen(self, line: socket.socket, path: str) -> None:
        """Ask for what is answered step by step."""
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.url.removeprefix('http://')}\r\n\r\n".encode())

    def post(self, path: str, body: object) -> dict:
        """The answer to a request on a line of its own."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def place(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("leaving")
    command = [sys.executable, "-c", SLOW, "studio"]
    asked = folder / "asked"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("browser.STUDIO", command)
        with serve(runs[:1], folder, ASKED=str(asked), STEP=str(STEP)) as server:
            yield Place(server.url, asked)
            assert "Traceback" not in server.said.read_text()


Leave = Callable[[], object]
"""What somebody does who does not want to wait any more."""


CLIENT = """
import json, sys
from gradio_client import Client
job = Client(sys.argv[1], verbose=False).submit(*json.loads(sys.argv[2]), api_name="/generate")
input()
job.cancel()
input()
"""
"""A program: what it cancels, it does not leave by ending."""


@contextmanager
def client_cancels(place: Place) -> Iterator[Leave]:
    """``job.cancel()`` of gradio_client."""
    command = [sys.executable, "-c", CLIENT, place.url, json.dumps(LONG)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1) as program:
        yield lambda: program.stdin and program.stdin.write("\n")
        program.communicate("\n", timeout=20)
        assert program.returncode == 0


@contextmanager
def program_ends(place: Place) -> Iterator[Leave]:
    """A program of the two plain requests, whose line breaks."""
    event = place.post("/gradio_api/call/generate", {"data": LONG})["event_id"]
    with place.connect() as line:
        place.listen(line, f"/gradio_api/call/generate/{event}")
        yield line.close


@contextmanager
def open_page(place: Place) -> Iterator[tuple[dict, socket.socket]]:
    """What a browser sends for a press on Make pictures, and the line on which it is answered."""
    with urllib.request.urlopen(f"{place.url}/config") as config:
        (number,) = (each["id"] for each in json.load(config)["dependencies"] if each["api_name"] == "page_generate")
    session = {"session_hash": uuid.uuid4().hex, "fn_index": number}
    event = place.post("/gradio_api/queue/join", {"data": LONG, **session})["event_id"]
    with place.connect() as line:
        place.listen(line, f"/gradio_api/queue/data?session_hash={session['session_hash']}")
        yield {**session, "event_id": event}, line


@contextmanager
def stop_is_pressed(place: Place) -> Iterator[Leave]:
    """The button beside it."""
    with open_page(place) as (event, _):
        yield lambda: place.post("/gradio_api/cancel", event)


@contextmanager
def page_is_closed(place: Place) -> Iterator[Leave]:
    """The window, with all its lines."""
    with open_page(place) as (_, line):
        yield line.close


@pytest.mark.parametrize("way", [client_cancels, program_ends, stop_is_pressed, page_is_closed])
def test_the_worker_is_free_within_a_step(place: Place, way: Callable[[Place], AbstractContextManager[Leave]]):
    with way(place) as leave:
        place.at_work()
        leave()
        left = time.monotonic()
        short = place.post("/gradio_api/call/generate", {"data": [*LONG[:6], 1, 1.0]})["event_id"]
        steps = place.steps
        with place.connect() as line:
            place.listen(line, f"/gradio_api/call/generate/{short}")
            text = b""
            while b'"pictures"' not in text:
                text += line.recv(65_536)
        waited, asked = time.monotonic() - left, place.steps - steps
    # The rest of the step that was under way, then the one of the next request.
    assert waited < 2 * STEP + SLACK, waited
    assert asked <= 2
    time.sleep(2 * STEP)
    assert place.steps - steps == asked, "nothing is at work any more"


def test_who_leaves_the_queue_is_not_worked_for(place: Place):
    with program_ends(place) as first, program_ends(place) as second:
        place.at_work()
        second()
        time.sleep(SLACK)
        first()
        time.sleep(STEP + SLACK)
        steps = place.steps
        time.sleep(2 * STEP)
        assert place.steps == steps
