"""The studio as a process: where it listens, whom it lets in, how soon it is there, and what it leaves behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from browser import STUDIO, Server, free_port, serve, train_tiny, wait_for
from callers import Caller

from ddm.cli import main
from ddm.commands.studio.server import Address, listen, url_of
from ddm.errors import RequestError

SPY = """
import os, sys

def note(event, values):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        place = values[1] if event != "socket.getaddrinfo" else values[:2]
        place = place[0] if isinstance(place, tuple) else place
        with open(os.environ["SPIED"], "a") as file:
            print(event, place, file=file)

sys.addaudithook(note)
"""
"""Notes every address that a process asks for or connects to."""

HERE = {"127.0.0.1", "localhost", "::1", "None", "0.0.0.0"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_it_listens_to_this_machine_alone(host: str):
    with listen(Address(host, 0)) as found:
        assert found.getsockname()[0] == "127.0.0.1"
        assert url_of(found) == f"http://127.0.0.1:{found.getsockname()[1]}"


def test_a_port_that_is_taken_is_refused():
    with listen(Address("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
        with pytest.raises(RequestError, match=f"port: {port} at 127.0.0.1 cannot be had: .*--port"):
            listen(Address("127.0.0.1", port))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--port", "-1"], "port: -1 is not allowed; allowed: 0 to 65535"),
        (["--port", "65536"], "port: 65536 is not allowed"),
        (["--port", "x"], "--port"),
        (["--host", "0.0.0.0"], "can be reached from other machines; add --auth USER:PASSWORD"),
        (["--host", "::"], "can be reached from other machines"),
        (["--auth", "me"], "auth: a name or a password is missing; allowed: USER:PASSWORD"),
        (["--auth", ":secret"], "auth: a name or a password is missing"),
        (["--device", "tpu"], "device: 'tpu' is unknown"),
        (["nowhere"], "source: 'nowhere'"),
        (["data:shapes"], "allowed: runs and checkpoints of ddm train"),
    ],
)
def test_wrong_requests_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture):
    assert main(["studio", "--port", "0", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "secret" not in said


def test_without_any_run_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddm.commands.studio.opening.shipped", dict)
    assert main(["studio", "--port", "0"]) == 2
    assert "there is no run in ./runs; train one with: ddm train shapes" in capsys.readouterr().err


def test_the_first_picture_is_there_soon(server: Server):
    caller, began = Caller(server), time.monotonic()
    assert "Make pictures" in caller.ask("GET", "/")[1]
    assert caller.works()
    assert time.monotonic() - began < 15, "5 s on two idle cores; other tests run beside this one"


def test_a_password_is_asked_for_everything(runs: list[Path], tmp_path: Path):
    with serve(runs[:1], tmp_path, "--auth", "me:secret") as server:
        caller = Caller(server)
        for path in ("/config", "/gradio_api/info"):
            assert caller.ask("GET", path)[0] == 401, path
        for path in ("/gradio_api/queue/join", "/gradio_api/call/models"):
            assert caller.ask("POST", path, b'{"data": []}')[0] == 401, path
        assert "Make pictures" not in caller.ask("GET", "/")[1]
        form = {"content_type": "application/x-www-form-urlencoded"}
        assert caller.ask("POST", "/login", b"username=me&password=wrong", **form)[0] == 400
        assert caller.ask("POST", "/login", b"username=me&password=secret", **form)[0] == 200


def test_it_ends_when_it_is_asked_to_and_leaves_nothing(runs: list[Path], tmp_path: Path):
    with serve(runs[:1], tmp_path) as server:
        assert Caller(server).works()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    assert list((tmp_path / "tmp").glob("ddm-studio-*")) == []
    assert "Traceback" not in server.said.read_text()


def test_nothing_leaves_this_machine(runs: list[Path], tmp_path: Path):
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    path = os.pathsep.join((str(tmp_path / "spy"), *filter(None, (os.environ.get("PYTHONPATH"),))))
    spied = tmp_path / "spied"
    environment = {"PYTHONPATH": path, "SPIED": str(spied), "GRADIO_ANALYTICS_ENABLED": "", "HF_HUB_OFFLINE": ""}
    asks = "import socket; s = socket.socket(2, 2); s.connect(('192.0.2.1', 9))"
    subprocess.run([sys.executable, "-c", asks], env={**os.environ, **environment}, check=False)
    assert "192.0.2.1" in spied.read_text(), "the spy sees what is asked for"
    spied.write_text("")
    with serve(runs[:1], tmp_path, **environment) as server:
        assert Caller(server).works()
        time.sleep(2)
    places = {line.split(maxsplit=1)[1] for line in spied.read_text().splitlines()}
    assert places <= HERE, places


LONG = ["first", "", 64, 0, "heun", "", 312, 1.0]
"""Almost as many evaluations as there may be: many seconds of work."""


def test_a_caller_who_leaves_frees_the_worker(server: Server):
    """The next one waits for a step and not for the pictures of somebody who is gone."""
    caller = Caller(server)
    found = json.loads(caller.ask("POST", "/gradio_api/call/generate", json.dumps({"data": LONG}).encode())[1])
    host, port = caller.place.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(
            f"GET /gradio_api/call/generate/{found['event_id']} HTTP/1.1\r\nHost: {caller.place}\r\n\r\n".encode()
        )
        text = b""
        while b'"preview"' not in text:
            text += line.recv(65_536)
    began = time.monotonic()
    assert caller.works()
    assert time.monotonic() - began < 5, "a step takes far less than a second"


def test_a_run_without_a_checkpoint_is_watched_and_used_once_it_has_one(tmp_path: Path, private_cache: None):
    done = train_tiny(tmp_path / "done")
    begun = tmp_path / "begun"
    shutil.copytree(done, begun, ignore=shutil.ignore_patterns("checkpoints"))
    with serve([begun], tmp_path) as server:
        caller = Caller(server)
        assert "begun has no checkpoint yet" in server.said.read_text()
        assert "event: complete" in caller.call("watch", ["begun"])
        assert caller.call("models", []).rstrip().endswith("data: [[]]")
        values: list[Any] = ["begun", "", 1, 0, "", "", 0, None]
        assert "has no checkpoint yet; the Watch tab shows" in caller.call("generate", values)
        shutil.copytree(done / "checkpoints", begun / "checkpoints")
        assert '"pictures"' in caller.call("generate", values)


def test_the_address_is_one_json_object_where_that_is_asked_for(runs: list[Path], tmp_path: Path):
    port = free_port()
    command = [*STUDIO, str(runs[0]), "--port", str(port), "--json"]
    with (tmp_path / "out").open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "out").read_text, 60)
        assert json.loads((tmp_path / "out").read_text()) == {"url": f"http://127.0.0.1:{port}", "models": ["first"]}
    finally:
        process.terminate()
        assert process.wait(20) == 0
