"""The line that says the page is there, and ``--share``: gradio's servers are asked where that is wanted, and only there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from browser import STUDIO, free_port, serve, wait_for
from callers import Caller

TUNNEL = """
import os, sys
import gradio.networking

def setup_tunnel(host, port, *others):
    with open(os.environ["TUNNELS"], "a") as file:
        print(host, port, file=file)
    if os.environ["PUBLIC"]:
        return os.environ["PUBLIC"]
    raise RuntimeError("no route to gradio.live\\nand more")

gradio.networking.setup_tunnel = setup_tunnel
from ddm.cli import main
sys.exit(main())
"""
"""The command, with a tunnel that leads nowhere."""

PUBLIC = "https://abc.gradio.live"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What starts a studio, and notes in a file when a public address is asked for."""
    found = [sys.executable, "-c", TUNNEL, "studio"]
    monkeypatch.setattr("browser.STUDIO", found)
    monkeypatch.setenv("TUNNELS", str(tmp_path / "tunnels"))
    monkeypatch.setenv("PUBLIC", PUBLIC)
    return found


def test_a_public_address_is_asked_for_shown_and_answered_to(runs: list[Path], tmp_path: Path, command: list[str]):
    with serve(runs[:1], tmp_path, "--share") as server:
        caller = Caller(server)
        assert (tmp_path / "tunnels").read_text() == f"{caller.place.replace(':', ' ')}\n"
        assert f"{PUBLIC}, for everybody who knows it, without --auth" in server.said.read_text()
        for host, status in (("abc.gradio.live", 200), (caller.place, 200), ("abd.gradio.live", 400)):
            assert caller.ask("GET", "/config", host=host)[0] == status, host
        body = b'{"data": []}'
        call = "/gradio_api/call/models"
        assert caller.ask("POST", call, body, host="abc.gradio.live", origin=PUBLIC)[0] == 200
        assert caller.ask("POST", call, body, host="abc.gradio.live", origin="https://x.gradio.live")[0] == 403


def test_nothing_is_asked_for_otherwise(runs: list[Path], tmp_path: Path, command: list[str]):
    with serve(runs[:1], tmp_path) as server:
        assert Caller(server).ask("GET", "/config", host="abc.gradio.live")[0] == 400
        assert "gradio.live" not in server.said.read_text()
    assert not (tmp_path / "tunnels").exists()


def test_where_there_is_no_public_address_it_ends_with_one_line(
    runs: list[Path], tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PUBLIC", "")
    arguments = [*command, str(runs[0]), "--port", str(free_port()), "--share", "--quiet"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "share: there is no public address to be had: no route" in done.stderr


def test_the_page_answers_as_soon_as_its_address_is_written(runs: list[Path], tmp_path: Path):
    """A script may wait for the line; nothing else is on standard output."""
    out, port = tmp_path / "out", free_port()
    with out.open("w") as file:
        process = subprocess.Popen([*STUDIO, str(runs[0]), "--port", str(port)], stdout=file, stderr=subprocess.PIPE)
    try:
        wait_for(out.read_text, 60)
        place = f"127.0.0.1:{port}"
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import urllib.request as u; print(u.urlopen('http://{place}', timeout=30).status)",
            ],
            capture_output=True,
            text=True,
            env=os.environ,
        )
        assert done.stdout == "200\n", done.stderr
        assert out.read_text() == f"http://{place}\n"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said.decode().splitlines()[-2:] == ["models  first", "Ctrl-C ends it"]
