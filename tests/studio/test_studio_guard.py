"""What reaches the page and what does not: names, origins, sizes, routes; and hundreds of malformed requests."""

import asyncio
import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("gradio")

from browser import Server, answers
from callers import Caller

from ddm.commands.studio.guard import HEADERS, LARGEST, Guard

CALL = "/gradio_api/call/models"
LEAKS = re.compile(r"Traceback|File \"|\.py\b|site-packages|/(root|home|tmp|usr|work|etc)/|passwd:|pydantic")
"""What no answer may have in it: stack traces, and paths of this machine."""


def ask(guard: Guard, *, method: str = "GET", path: str = "/", body: list[bytes] | None = None, **headers: str) -> Any:
    """The answer of a guarded application that says how many bytes it was given."""
    chunks, sent = list(body or [b""]), []

    async def receive() -> dict:
        chunk = chunks.pop(0) if chunks else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items() if value]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(guard(scope, receive, send))
    return sent


async def counting(scope: Any, receive: Any, send: Any) -> None:
    taken, more = 0, True
    while more:
        message = await receive()
        taken, more = taken + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOWALL")]})
    await send({"type": "http.response.body", "body": str(taken).encode()})


@pytest.fixture
def guard() -> Guard:
    return Guard(counting, host="127.0.0.1")


def status(sent: Any) -> int:
    return sent[0]["status"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.2:1", "localhost."]
)
def test_names_of_this_machine_are_answered_to(guard: Guard, host: str):
    assert status(ask(guard, host=host)) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.3:7860", "x" * 999,
     "127.0.0.1@evil.example", "0.0.0.0", "", "[::]", "localhost:7860:7860", "127.1", "2130706433"],
)  # fmt: skip
def test_other_names_are_not(guard: Guard, host: str):
    sent = ask(guard, host=host)
    assert status(sent) == 400 and b"evil" not in sent[1]["body"]


def test_an_address_for_others_is_asked_by_number_or_by_its_own_name():
    guard = Guard(counting, host="0.0.0.0")
    own = socket.gethostname()
    assert [status(ask(guard, host=each)) for each in ("10.0.0.3:7860", own, "evil.example")] == [200, 200, 400]


def test_a_public_address_is_answered_to_once_it_is_known(guard: Guard):
    assert status(ask(guard, host="abc.gradio.live")) == 400
    guard.hosts.add("abc.gradio.live")
    assert status(ask(guard, host="abc.gradio.live", origin="https://abc.gradio.live")) == 200
    assert status(ask(guard, host="abc.gradio.live", origin="https://evil.gradio.live")) == 403


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:7861", "http://localhost:7860", "file://", "127.0.0.1:7860",
     "http://127.0.0.1:7860.evil.example", "http://evil.example//127.0.0.1:7860"],
)  # fmt: skip
def test_other_sites_are_refused(guard: Guard, origin: str):
    assert status(ask(guard, method="POST", path=CALL, host="127.0.0.1:7860", origin=origin)) == 403


def test_the_page_itself_and_programs_are_not_refused(guard: Guard):
    for origin in ("http://127.0.0.1:7860", ""):
        assert status(ask(guard, method="POST", path=CALL, host="127.0.0.1:7860", origin=origin)) == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "9" * 30, "ten", "1, 1", "+5", " "])
def test_a_length_is_a_number(guard: Guard, length: str):
    sent = ask(guard, method="POST", path=CALL, host="localhost", content_length=length)
    assert status(sent) in (400, 413)


def test_bodies_are_bounded_whatever_they_claim(guard: Guard):
    asked: dict[str, Any] = {"method": "POST", "path": CALL, "host": "localhost"}
    assert status(ask(guard, **asked, content_length=str(LARGEST + 1))) == 413
    piece = b"x" * 1_000_000
    assert ask(guard, **asked, body=[piece] * 8)[1]["body"] == b"8000000"
    sent = ask(guard, **asked, body=[piece] * 50)
    assert int(sent[1]["body"]) <= LARGEST


def test_every_answer_keeps_the_browser_careful(guard: Guard):
    for sent in (ask(guard, host="localhost"), ask(guard, host="evil.example")):
        headers = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        assert all(headers.count((name, value)) == 1 for name, value in HEADERS.items())
        assert ("x-frame-options", "ALLOWALL") not in headers


def test_only_requests_and_the_life_of_the_server_pass(guard: Guard):
    sent: list[Any] = []

    async def never(*_: Any) -> Any:
        sent.append(True)

    asyncio.run(guard({"type": "websocket", "path": "/"}, never, never))
    assert sent == []


CLOSED = [
    "/gradio_api/upload", "/gradio_api/upload?upload_id=x", "/gradio_api/upload_progress?upload_id=x",
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd", "/gradio_api/file/etc/passwd", "/file=/etc/passwd",
    "/gradio_api/proxy=http://example.org/", "/proxy=http://example.org/", "/gradio_api/stream/x", "/gradio_api/stream/a/b/c/playlist.m3u8",
    "/gradio_api/component_server", "/gradio_api/component_server/", "/gradio_api/deep_link", "/gradio_api/dev/reload",
    "/gradio_api/runs", "/gradio_api/run-history/records", "/gradio_api/run/generate", "/gradio_api/api/generate",
    "/api/predict", "/run/predict", "/monitoring", "/monitoring/summary", "/monitoring/x", "/openapi.json",
    "/gradio_api/openapi.json", "/docs", "/redoc", "/gradio_api/custom_component/1/client/component/index.js",
    "/gradio_api/process_recording", "/gradio_api/vibe-edit", "/gradio_api/vibe-code", "/gradio_api/mcp/sse",
    "/gradio_api/profiling/traces", "/gradio_api/call/../upload", "/gradio_api/call/generate/../../upload",
    "/assets/../../../etc/passwd", "/assets/..%2f..%2f..%2fetc%2fpasswd", "/assets/%2e%2e/%2e%2e/etc/passwd", "/static/../routes.py",
    "/static/..%5c..%5croutes.py", "/svelte/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "//etc/passwd", "/.git/config", "/.env",
    "/config.yaml", "/gradio_api/heartbeat/../../etc", "/pwa_icon", "/%00", "/gradio_api/call/gener%0aate", "/admin", "/server-status",
]  # fmt: skip

BODIES = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b"\xff\xfe\x00", b'{"data": 1}', b'{"data": null}', b'{"data": {}}',
    b'{"data": [[[[[[]]]]]]}', b'{"data": "' + b"a" * 100_000 + b'"}', b"[" * 20_000, b'{"data":' * 2000, b'{"data": [NaN]}',
    b'{"data": [], "fn_index": -1}', b'{"data": [], "fn_index": 99999}', b'{"data": [], "fn_index": "x"}',
    b'{"data": [], "session_hash": []}', b'{"data": [], "session_hash": "../../etc"}', b'{"data": [], "event_id": {}}',
    b'{"data": [], "trigger_id": "x", "fn_index": 0, "session_hash": "s"}', b"a=1&b=2",
    b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": "s"}',
]  # fmt: skip

VALUES: list[Any] = [
    None, "", "x" * 20_000, -1, 10**30, 1e308, True, [], {}, "../../../etc/passwd", "<script>alert(1)</script>",
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, [{"path": "http://10.0.0.1/", "meta": {"_type": "gradio.FileData"}}], "heun(churn=" + "(" * 300, "data:image/png;base64,AAAA", "\0\x1b[2J",
]  # fmt: skip


@pytest.fixture
def caller(server: Server, record_property: Callable[[str, object], None]) -> Iterator[Caller]:
    """Somebody who leaves the studio as it was: at work, and without a word of a crash."""
    found, before = Caller(server), server.said.read_text()
    yield found
    record_property("faults", found.asked)
    assert found.works() and answers(server.url)
    said = server.said.read_text().removeprefix(before)
    assert "Traceback" not in said and "Fatal" not in said


def test_what_the_page_does_not_need_is_closed(caller: Caller):
    for path in CLOSED:
        for method in ("GET", "POST"):
            found, text = caller.ask(method, path, b"{}" if method == "POST" else None)
            assert found == 404 and not LEAKS.search(text), (method, path, text[:200])
    assert len(CLOSED) * 2 >= 100


def test_other_ways_to_ask_are_closed(caller: Caller):
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "X"):
        for path in ("/", "/config", CALL):
            found, text = caller.ask(method, path)
            assert found in (400, 404, 405) and not LEAKS.search(text), (method, path, found)


def test_strangers_are_turned_away(caller: Caller):
    for path in ("/", "/config", "/gradio_api/info", "/theme.css"):
        for host in ("evil.example", "127.0.0.1.nip.io", "[::ffff:8.8.8.8]", "\x7f", "a b"):
            found, text = caller.ask("GET", path, host=host)
            assert found == 400 and not LEAKS.search(text), (path, host)
    for path in (CALL, "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset", "/login"):
        for origin in ("https://evil.example", "null", "http://localhost:1"):
            assert caller.ask("POST", path, b'{"data": []}', origin=origin)[0] == 403


def test_too_much_is_refused_before_it_is_read(caller: Caller):
    found, text = caller.ask("POST", CALL, b"{}", content_length=str(10**12))
    assert found == 413 and str(LARGEST) in text.replace(",", "")
    assert caller.ask("POST", CALL, b'{"data": ["' + b"x" * (LARGEST + 1) + b'"]}')[0] == 413


@pytest.mark.parametrize("path", [CALL, "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset", "/login"])
def test_bodies_that_are_no_requests(caller: Caller, path: str):
    for body in BODIES:
        found, text = caller.ask("POST", path, body)
        assert 200 <= found < 600 and not LEAKS.search(text.replace("pydantic.dev", "")), (body[:60], found, text[:300])


def test_lines_that_are_no_requests(caller: Caller):
    host, _, port = caller.place.partition(":")
    raw = [
        b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]  # fmt: skip
    for data in raw:
        with socket.create_connection((host, int(port)), timeout=2) as line:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            try:
                text = line.recv(65_536).decode("latin-1")
            except (TimeoutError, ConnectionError):
                text = ""
        assert not LEAKS.search(text) and " 200 OK" not in text, (data[:60], text[:300])


def test_values_that_no_field_would_send(caller: Caller):
    """Every endpoint, each of its parameters with each of the values, the others as they should be."""
    info = json.loads(caller.ask("GET", "/gradio_api/info")[1])["named_endpoints"]
    asked = 0
    for name, endpoint in info.items():
        good = [each.get("parameter_default", each.get("example_input")) for each in endpoint["parameters"]]
        for place in range(len(good)):
            for value in VALUES[place % 3 :: 3]:
                text = caller.call(name.strip("/"), [*good[:place], value, *good[place + 1 :]])
                asked += 1
                told = text.replace(str(value), "") if value else text  # what was sent is no secret
                assert not LEAKS.search(told), (name, place, value, text[:400])
    assert asked >= 200


def test_what_a_wrong_request_is_told(caller: Caller):
    text = caller.call("generate", ["first", "dog", 1, 0, "", "", 2, None])
    assert "event: error" in text and "label: 'dog' is unknown" in text
    text = caller.call("generate", ["/etc/passwd", "", 1, 0, "", "", 2, None])
    assert "event: error" in text and "first" in text and not LEAKS.search(text.replace("/etc/passwd", ""))


def test_an_unknown_endpoint_and_an_unknown_event(caller: Caller):
    for name in ("page_generate", "nothing", "_x", "1"):
        text = caller.call(name, [])
        assert not LEAKS.search(text), text
    try:
        text = caller.ask("GET", "/gradio_api/call/generate/" + "0" * 32)[1]
    except http.client.IncompleteRead as cut:  # it was begun as a stream
        text = cut.partial.decode()
    assert '"png"' not in text and not LEAKS.search(text)


def test_nothing_is_kept_on_disk(caller: Caller, server: Server):
    (folder,) = (server.said.parent / "tmp").glob("ddm-studio-*")
    assert [file for file in folder.rglob("*") if file.is_file()] == []
