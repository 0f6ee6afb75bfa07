"""A web page on this machine, on which models are watched, used and compared."""

import argparse
import importlib.util
import ipaddress
import os

from ddm.commands.console import Console
from ddm.errors import RequestError

EXAMPLES = """examples:
  ddm studio
  ddm studio runs/shapes runs/edm
  ddm studio runs/edm --port 8000
  ddm studio runs/edm --host 0.0.0.0 --auth me:secret
  ddm studio runs/edm --share
"""

INSTALL = 'pip install "denoising-diffusion-model[app]"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        default=[],
        help="run folders or checkpoints (default: all runs in ./runs)",
    )
    parser.add_argument("--port", type=int, default=7860, help="of the page; 0 takes a free one (default: 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument(
        "--share", action="store_true", default=False, help="a public address through gradio's servers, for a week"
    )
    parser.add_argument("--auth", metavar="USER:PASSWORD", default=None, help="asked for before the page is shown")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def run(arguments: argparse.Namespace) -> int:
    """Check the request and the sources, serve until asked to stop."""
    auth = check_auth(arguments.auth)
    check_place(arguments.host, arguments.port, with_auth=auth is not None)
    if importlib.util.find_spec("gradio") is None:
        raise RequestError(f"studio: needs gradio: {INSTALL}")
    console = Console(quiet=arguments.quiet, json=arguments.json)
    # Read when gradio is imported: it would ask for its newest version and tell of its use.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_ANALYTICS_MAX_EVENTS="100")
    from ddm.commands.studio.server import Address, serve

    address = Address(arguments.host, arguments.port, share=arguments.share, auth=auth)
    return serve(arguments.sources, address, device=arguments.device, console=console)


def check_auth(text: str | None) -> tuple[str, str] | None:
    """The name and the password; raises :class:`RequestError` where one of them is missing."""
    if text is None:
        return None
    user, _, password = text.partition(":")
    if not user.strip() or not password.strip():  # the text may be a password: it is not repeated
        raise RequestError("auth: a name or a password is missing; allowed: USER:PASSWORD")
    return user, password


def check_place(host: str, port: int, *, with_auth: bool) -> None:
    """Raise :class:`RequestError` for a port that there is not, and for an open page that others can reach."""
    if not 0 <= port < 2**16:
        raise RequestError(f"port: {port} is not allowed; allowed: 0 to {2**16 - 1}")
    if not is_loopback(host) and not with_auth:
        raise RequestError(
            f"host: {host!r} can be reached from other machines; add --auth USER:PASSWORD, or leave it at 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
