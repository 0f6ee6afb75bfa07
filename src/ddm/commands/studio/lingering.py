"""Keep the stream of answers to a page open for a moment after the last one.

Gradio by itself (6.31) ends a page's stream as soon as nothing of that page is left to do. What the page asks for at
that very instant, a field that is left by a click on a button, say, is done, but the page, whose stream was still open
when it asked, is never told. Within the moment that the end is held back, the stream goes on with what came.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from ddm.commands.studio.guard import App, Message, Receive, Send

STREAM, END = "/gradio_api/queue/data", b'"msg":"close_stream"'

MOMENT, LOOK = 0.5, 0.02
"""Seconds that the end is held back, and between two looks whether something came."""


class Lingering:
    """An ASGI application around gradio's.

    Args:
        app: what is asked.
        is_busy: whether something is left to do for a page, by the hash of its session.
    """

    def __init__(self, app: App, is_busy: Callable[[str], bool]):
        self._app, self._is_busy = app, is_busy

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer; a stream goes on as long as there is more to come."""
        if scope["type"] != "http" or scope["path"] != STREAM:
            await self._app(scope, receive, send)
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        session, held = query.get("session_hash", [""])[0], _Held(send)
        await self._app(dict(scope), receive, held)
        while held.end and await self._more(session):
            held.end.clear()
            await self._app(dict(scope), receive, held)
        for message in held.end:
            await send(message)

    async def _more(self, session: str) -> bool:
        until = time.monotonic() + MOMENT
        while time.monotonic() < until:
            if self._is_busy(session):
                return True
            await asyncio.sleep(LOOK)
        return False


class _Held:
    """Sends a stream on except for its end; of one that goes on, the beginning is sent once."""

    def __init__(self, send: Send):
        self.end: list[Message] = []
        self._send, self._is_begun = send, False

    async def __call__(self, message: Message) -> None:
        if self.end or END in message.get("body", b"").replace(b" ", b""):
            self.end.append(message)
        elif message["type"] != "http.response.start" or not self._is_begun:
            self._is_begun = True
            await self._send(message)
