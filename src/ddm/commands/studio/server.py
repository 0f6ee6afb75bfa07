"""The page on the network: one process that listens at one address until it is asked to stop."""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from ddm.commands.console import Console
from ddm.commands.studio.guard import Guard
from ddm.commands.studio.lingering import Lingering
from ddm.errors import DdmError, RequestError

WAITING, SESSIONS, CONNECTIONS = 64, 200, 400
"""Requests in the queue, sessions that are remembered, and connections, at most."""

ANSWERING = 2
"""Seconds that open connections have when the studio ends."""


@dataclass(frozen=True)
class Address:
    """Where the page is, and who may see it.

    Args:
        host: the address to listen at.
        port: 0 for a free one.
        share: also through gradio's servers, under a public address.
        auth: name and password that are asked for.
    """

    host: str
    port: int
    share: bool = False
    auth: tuple[str, str] | None = None


class Server(uvicorn.Server):
    """A server that ends without a word when it is asked to, so that the command ends with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM, and do not raise them again in the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(sources: Sequence[str], address: Address, *, device: str, console: Console) -> int:
    """Check the sources, show the page until Ctrl-C or SIGTERM.

    Raises:
        RequestError: a source that is none, or an address that cannot be listened at.
        DdmError: no public address is to be had.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(listen(address))
        # Read when gradio is imported: what it keeps for a while is nobody else's.
        os.environ["GRADIO_TEMP_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="ddm-studio-"))
        from ddm.commands.studio.opening import open_studio

        studio = open_studio(sources, device=device, say=console.say)
        guard = make_app(studio, address)
        url = url_of(listening)
        if address.share:
            shared = open_tunnel(listening)
            guard.hosts.add(shared.partition("//")[2])
            console.say(f"public  {shared}, for everybody who knows it" + ("" if address.auth else ", without --auth"))
        console.say(f"models  {', '.join(studio.models.names)}")
        console.result(url, url=url, models=studio.models.names)
        console.say("Ctrl-C ends it")
        Server(settings(guard)).run(sockets=[listening])
    return 0


def listen(address: Address) -> socket.socket:
    """A socket at the address; raises :class:`RequestError` where it cannot be had."""
    host = address.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, address.port), family=family, backlog=128)
    except OSError as error:
        raise RequestError(
            f"port: {address.port} at {address.host} cannot be had: {error.strerror}; choose another with --port"
        ) from None


def url_of(listening: socket.socket) -> str:
    """The address to type into a browser on this machine."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def make_app(studio: Any, address: Address) -> Guard:
    """The page as an application behind its guard."""
    import gradio as gr

    from ddm.commands.studio.page import appearance, make_page

    page = make_page(studio).queue(max_size=WAITING, default_concurrency_limit=4)
    page.state_session_capacity = SESSIONS
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=address.auth,
        show_error=False,
        allowed_paths=[],
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        **appearance(),
    )
    for route in app.routes:
        if isinstance(route, Mount) and isinstance(route.app, FastAPI):
            route.app.add_exception_handler(RequestValidationError, _no_request)
    queue = page._queue  # pyright: ignore[reportPrivateUsage]
    lingering = Lingering(app, lambda session: bool(queue.pending_event_ids_session.get(session)))
    return Guard(lingering, host=address.host)


def _no_request(request: Any, error: Exception) -> PlainTextResponse:
    """FastAPI's own answer repeats what it was sent, and fails itself where that is a NaN."""
    return PlainTextResponse("that is not a request of this page", status_code=422)


def settings(app: Any) -> uvicorn.Config:
    """How it is served: few connections, none of which stays open for nothing, no headers that tell of the software."""
    return uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=ANSWERING,
        ws="none",
    )


def open_tunnel(listening: socket.socket) -> str:
    """The public address that gradio's servers give the page; raises :class:`DdmError` where they do not."""
    import secrets

    from gradio import networking

    host, port = listening.getsockname()[:2]
    try:
        return networking.setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
    except Exception as error:
        raise DdmError(f"share: there is no public address to be had: {str(error).splitlines()[0]}") from None
