"""Weights come whole and right, or there is one line that says all that was tried."""

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from ddm.errors import DdmError, RequestError
from ddm.metrics import weights

CONTENT = bytes(range(256)) * 9000  # more than two pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "network.pth"
ALTERNATIVE = "without it: something else"

fetch = partial(weights.fetch, NAME, sha256=SHA256, size=len(CONTENT), alternative=ALTERNATIVE)


@dataclass
class Site:
    """A server of this test's own: what it was asked for, and when it may go on with /slow."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self):
        self.site.asked.append(self.path)
        self.site.agents.append(self.headers["User-Agent"])
        body = {
            "/wrong": CONTENT[:-1] + b"!",
            "/short": CONTENT[:-1],
            "/long": CONTENT * 3,
        }.get(self.path, CONTENT)
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/slow":
            self.site.go_on.wait(60)
        self.wfile.write(body[: 1 << 20] if self.path == "/cut" else body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Who reads no further than the size of /long leaves the rest unsent."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    site = Site()
    server = Server(("127.0.0.1", 0), type("Handler", (Handler,), {"site": site}))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield site
    site.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for weights; the network may be asked and DDM_WEIGHTS is not set."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(weights, "cache_folder", {"weights": folder}.__getitem__)
    monkeypatch.delenv("DDM_WEIGHTS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    return folder


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_it_is_downloaded_once_and_then_found(site: Site, cache: Path):
    (cache / f"{NAME}.part").write_bytes(b"left by a process that was killed" * 100_000)
    for _ in range(2):
        path = fetch(url=f"{site.url}/right")
        assert path == cache / NAME and path.read_bytes() == CONTENT
    assert site.asked == ["/right"] and site.agents[0].startswith("denoising-diffusion-model/")
    assert left(cache) == [NAME]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("wrong", f"sent a file with SHA-256 {hashlib.sha256(CONTENT[:-1] + b'!').hexdigest()}, not {SHA256}"),
        ("short", "sent 2,303,999 of 2,304,000 bytes"),
        ("long", "sent more than 2,304,000 of 2,304,000 bytes"),
        ("missing", "HTTP Error 404: Not Found"),
    ],
)
def test_what_is_not_the_file_never_stays(site: Site, cache: Path, page: str, said: str):
    url = f"{site.url}/{page}"
    with pytest.raises(DdmError) as caught:
        fetch(url=url)
    assert not isinstance(caught.value, RequestError)
    tried = f"DDM_WEIGHTS is not set; not in the cache {cache}; {url}: {said}"
    assert str(caught.value) == f"{NAME} cannot be had: {tried}; {ALTERNATIVE}"
    assert left(cache) == []


def test_a_connection_that_breaks_off_leaves_nothing(site: Site, cache: Path):
    with pytest.raises(DdmError) as caught:
        fetch(url=f"{site.url}/cut")
    # How Python tells depends on its version.
    assert "1,048,576 of 2,304,000 bytes" in str(caught.value) or "IncompleteRead" in str(caught.value)
    assert "\n" not in str(caught.value) and left(cache) == []


def test_nobody_answers(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DdmError, match=r"^network\.pth cannot be had: .*Connection refused.*; without it: .*$"):
        fetch(url=f"http://127.0.0.1:{port}/right")
    assert left(cache) == []


def test_silence_is_given_up(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "PATIENCE", 0.2)
    with pytest.raises(DdmError, match="timed out"):
        fetch(url=f"{site.url}/slow")
    assert left(cache) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(site: Site, cache: Path):
    (cache / NAME).write_bytes(CONTENT[:-1])
    assert fetch(url=f"{site.url}/right").read_bytes() == CONTENT
    (cache / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(DdmError):
        fetch(url=f"{site.url}/missing")
    assert left(cache) == []


def test_offline_nobody_is_asked(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DdmError, match=f"{site.url}/right: not asked, since HF_HUB_OFFLINE is set; {ALTERNATIVE}$"):
        fetch(url=f"{site.url}/right")
    (cache / NAME).write_bytes(CONTENT)
    assert fetch(url=f"{site.url}/right") == cache / NAME
    assert site.asked == []


def test_a_cache_that_cannot_be_used_is_said_in_one_line(site: Site, cache: Path):
    (cache / NAME).mkdir()
    with pytest.raises(DdmError, match=f"^{NAME} cannot be had: .*Is a directory.*; {ALTERNATIVE}$"):
        fetch(url=f"{site.url}/right")


@pytest.mark.parametrize("named", ["folder", "file"])
def test_own_files_come_first(site: Site, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str):
    own = tmp_path / "own" / NAME
    own.parent.mkdir()
    own.write_bytes(CONTENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DDM_WEIGHTS", "~/own" if named == "folder" else str(own))
    assert fetch(url=f"{site.url}/right") == own
    own.write_bytes(b"something else")
    with pytest.raises(RequestError) as caught:
        fetch(url=f"{site.url}/right")
    found = hashlib.sha256(b"something else").hexdigest()
    assert str(caught.value) == f"DDM_WEIGHTS: {own} has SHA-256 {found}; allowed: {SHA256}"
    assert own.read_bytes() == b"something else" and site.asked == [] and left(cache) == []


def test_a_folder_without_the_file_is_passed_over_and_named(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DDM_WEIGHTS", "/nowhere")
    with pytest.raises(DdmError, match="cannot be had: DDM_WEIGHTS is '/nowhere' and has no such file; not in the"):
        fetch(url=f"{site.url}/missing")
    assert fetch(url=f"{site.url}/right") == cache / NAME


def test_two_processes_at_once_download_once(site: Site, tmp_path: Path):
    code = (
        "from ddm.metrics.weights import cache_folder, fetch; cache_folder('weights'); print('ready', flush=True); "
        f"print(fetch({NAME!r}, url={site.url + '/slow'!r}, sha256={SHA256!r}, size={len(CONTENT)}, alternative=''))"
    )
    place = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "DDM_WEIGHTS": ""}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=place, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    time.sleep(0.5)  # nothing has been sent, so without the lock the second one asks as well
    site.go_on.set()
    answers = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(set(answers)) == 1 and Path(answers[0]).is_relative_to(tmp_path)
    assert Path(answers[0]).read_bytes() == CONTENT and site.asked == ["/slow"]
    assert left(Path(answers[0]).parent) == [NAME]


@dataclass
class Harm:
    """Makes a folder when it is unpickled."""

    folder: Path

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_file_of_weights_runs_nothing(tmp_path: Path):
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "good.pth")
    assert torch.equal(weights.load_state(tmp_path / "good.pth")["weight"], torch.arange(3.0))
    harmed = tmp_path / "harmed"
    torch.save({"weight": Harm(harmed)}, tmp_path / "harm.pth")
    with pytest.raises(pickle.UnpicklingError):
        weights.load_state(tmp_path / "harm.pth")
    assert not harmed.exists()
    torch.load(tmp_path / "harm.pth", weights_only=False)
    assert harmed.exists(), "the file does harm where it is let"
