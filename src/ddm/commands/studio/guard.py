"""What may reach the page: requests to this machine's own name, from the page itself, of a kind that it makes.

Gradio by itself takes uploads of any size from anybody, also from other web sites that the browser shows (measured for
6.31); a name that points to 127.0.0.1 for a moment (DNS rebinding) makes any site such a one.
"""

import asyncio
import ipaddress
import re
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LARGEST, PATIENCE = 8_000_000, 20
"""Bytes of a request, an upload in base64 with room for the rest; and seconds until the next piece of it is there."""

PUBLIC_GET = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|logout)/?|/(assets|static|svelte)/.+"
)
API_GET = re.compile(
    r"/gradio_api/((info|app_id|startup-events|login_check|user|token|queue/data|theme\.css)/?|heartbeat/\w+|call/(v2/)?\w+/\w+)"
)
POST = re.compile(r"/login/?|/gradio_api/((queue/join|cancel|reset)/?|call/(v2/)?\w+/?)")
"""What the page and gradio_client ask for. All else is closed: uploads, files, proxies, monitoring, calls without a
queue, developers' tools."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    # Scripts of the page are written into it, and it evaluates its own; nothing is fetched from elsewhere.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}


class Guard:
    """An ASGI application in front of another.

    Args:
        app: what is guarded.
        host: the address that is listened at: one of this machine only answers to names of this machine.

    Attributes:
        hosts: names that are answered to; numbers are, too, as far as they can be reached.
    """

    def __init__(self, app: App, *, host: str):
        from ddm.commands.studio import is_loopback

        self._app, self._local = app, is_loopback(host)
        self.hosts = {"localhost", host.lower()}
        if not self._local:
            self.hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        answer = _Answer(send)
        try:
            await self._app(scope, _limited(receive), answer)
        except Exception as error:  # gradio's own: it has no answer to an event that there is not
            sys.stderr.write(f"studio: {scope['method']}: {type(error).__name__}: {str(error)[:200]!r}\n")
            await answer.end()

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        """The status and the words with which a request is turned away; None where it may pass."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = [each.decode("latin-1") for each in headers.get(b"host", [])]
        if len(host) != 1 or not self._is_known(host[0]):
            return 400, "this studio does not answer to that name"
        for origin in headers.get(b"origin", []):
            if origin.decode("latin-1").partition("//")[2].lower() != host[0].lower():
                return 403, "this studio is not for other web sites"
        if not _is_open(scope["method"], scope["path"]):
            return 404, "there is nothing here"
        length = headers.get(b"content-length", [b"0"])
        if len(length) != 1 or not re.fullmatch(rb"\d{1,18}", length[0]):
            return 400, "the length of the request is not a number"
        if int(length[0]) > LARGEST:
            return 413, f"a request of more than {LARGEST:,} bytes is not allowed"
        return None

    def _is_known(self, host: str) -> bool:
        name = re.sub(r":\d{1,5}$", "", host).lower().rstrip(".")
        if name in self.hosts:
            return True
        try:
            number = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return number.is_loopback or not self._local


def _is_open(method: str, path: str) -> bool:
    """Whether the page, or gradio_client, makes such requests."""
    if ".." in path or "\\" in path or not path.isprintable():
        return False
    if method in ("GET", "HEAD"):
        return bool(PUBLIC_GET.fullmatch(path) or API_GET.fullmatch(path))
    return method == "POST" and bool(POST.fullmatch(path))


def _limited(receive: Receive) -> Receive:
    """The request's body: no more than :data:`LARGEST` bytes, whatever its headers say, and no slower than allowed."""
    taken, complete = 0, False

    async def limited() -> Message:
        nonlocal taken, complete
        try:
            message = await asyncio.wait_for(receive(), None if complete else PATIENCE)
        except TimeoutError:
            return {"type": "http.disconnect"}
        taken, complete = taken + len(message.get("body", b"")), not message.get("more_body", False)
        return message if taken <= LARGEST else {"type": "http.disconnect"}

    return limited


class _Answer:
    """What is sent back, with the headers that keep a browser careful."""

    def __init__(self, send: Send):
        self._send, self._begun, self._complete = send, False, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [each for each in message["headers"] if each[0].lower().decode("latin-1") not in HEADERS]
            message["headers"], self._begun = [*kept, *_headers()], True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self) -> None:
        """What is missing, where no more is to come."""
        if self._begun and not self._complete:
            await self._send({"type": "http.response.body", "body": b""})
        elif not self._begun:
            await _answer(self._send, 500, "something went wrong here")


async def _answer(send: Send, status: int, words: str) -> None:
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_headers()]})
    await send({"type": "http.response.body", "body": body})


def _headers() -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in HEADERS.items()]
