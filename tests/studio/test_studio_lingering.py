"""The stream of answers to a page: what is asked for while it ends is answered on it."""

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio")

from browser import Server, serve, tiny_runs
from callers import Caller

from ddm.commands.studio.lingering import MOMENT, STREAM, Lingering

CLOSE = b'data: {"msg":"close_stream"}\n\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("lingering")
    with serve(tiny_runs(place / "runs"), place) as found:
        yield found


def sent(looks: list[bool], path: str = STREAM) -> list[dict[str, Any]]:
    """What goes out of an application whose every stream is one piece, where something comes at these looks."""
    out: list[dict[str, Any]] = []
    count = 0

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        nonlocal count
        count += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body, more in ((f"piece {count}".encode(), True), (CLOSE, True), (b"", False)):
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def send(message: Any) -> None:
        out.append(message)

    app = Lingering(streaming, lambda session: session == "s" and bool(looks) and looks.pop(0))
    scope = {"type": "http", "path": path, "query_string": b"session_hash=s"}
    asyncio.run(app(scope, asyncio.Queue().get, send))  # pyright: ignore[reportArgumentType]
    return out


def test_a_stream_goes_on_with_what_comes_while_it_ends():
    found = sent([False, True, False, False, True])
    assert [each.get("body") for each in found] == [None, b"piece 1", b"piece 2", b"piece 3", CLOSE, b""]
    assert [each["type"] for each in found].count("http.response.start") == 1


def test_a_stream_ends_where_nothing_comes():
    started = time.monotonic()
    assert [each.get("body") for each in sent([])] == [None, b"piece 1", CLOSE, b""]
    assert MOMENT <= time.monotonic() - started < MOMENT + 1


def test_all_else_passes_at_once():
    assert [each.get("body") for each in sent([True] * 9, "/gradio_api/info")] == [None, b"piece 1", CLOSE, b""]


def test_an_event_that_joins_at_the_end_is_answered_on_the_open_stream(server: Server):
    caller = Caller(server)
    config = json.loads(caller.ask("GET", "/config")[1])
    number = next(each["id"] for each in config["dependencies"] if each["api_name"] == "watch_runs")
    body = json.dumps({"data": [], "fn_index": number, "session_hash": "late"}).encode()

    def join() -> str:
        return json.loads(caller.ask("POST", "/gradio_api/queue/join", body)[1])["event_id"]

    expected, answered = [join()], list[str]()
    line = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
    line.request("GET", f"{STREAM}?session_hash=late")
    stream = line.getresponse()
    while piece := stream.readline():
        message = json.loads(piece[6:]) if piece.startswith(b"data: ") else {}
        if message.get("msg") == "process_completed":
            answered.append(message["event_id"])
            if len(expected) < 4:
                expected.append(join())
        if message.get("msg") == "close_stream":
            break
    line.close()
    assert answered == expected and len(expected) == 4
