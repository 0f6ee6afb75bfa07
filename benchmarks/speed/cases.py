"""What is measured side by side: ours first, then the peers, at their defaults and in our precision."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import diffusers_peer, ours, paper_peer
from .rounds import Work
from .session import Case, Session

DEFAULTS, LIKE_OURS = "its defaults", "its defaults, in our precision"


def fast_path(compile: ours.Compile) -> str:
    """In words."""
    return "fast path" + ("" if compile is None else ", compiled")


def groups(session: Session, folder: Path, compile: ours.Compile) -> dict[str, list[list[Case]]]:
    """Groups of cases by the part of the benchmark that they belong to."""
    return {
        "steps": [steps(session, compile, network) for network in ("paper", "ddpm")]
        + [passes(session, compile, network) for network in ("paper", "ddpm")],
        "loops": [loops(session, compile, network, folder) for network in ("paper", "ddpm")],
    }


def steps(session: Session, compile: ours.Compile, network: str) -> list[Case]:
    """Training steps of ``paper`` or ``ddpm``."""
    sizes, device, batch = session.sizes, session.device.torch, batch_of(session, network)
    work = partial(ours.training_step, network, getattr(sizes, network), sizes, batch, device, compile)
    return with_peers(session, "training step", network, fast_path(compile), work, "training_step", [])


def passes(session: Session, compile: ours.Compile, network: str) -> list[Case]:
    """Forward passes of ``paper`` or ``ddpm``."""
    sizes, device, batch = session.sizes, session.device.torch, batch_of(session, network)
    work = partial(ours.forward_pass, getattr(sizes, network), sizes, batch, device, compile)
    return with_peers(session, "forward pass", network, fast_path(compile), work, "forward_pass", [])


def loops(session: Session, compile: ours.Compile, network: str, folder: Path) -> list[Case]:
    """Whole loops, data and all."""
    sizes, device, batch = session.sizes, session.device.torch, batch_of(session, network)
    own = folder / network
    own.mkdir(exist_ok=True)
    work = partial(ours.whole_loop, network, getattr(sizes, network), sizes, batch, device, own, compile)
    return with_peers(session, "whole loop", network, fast_path(compile), work, "whole_loop", [folder])


def batch_of(session: Session, network: str) -> int:
    """Of the comparisons."""
    return session.sizes.batch if network == "paper" else session.sizes.ddpm_batch


def with_peers(
    session: Session, what: str, network: str, settings: str, work: Callable[[], Work], theirs: str, more: list[Any]
) -> list[Case]:
    """Our case and the peer's of the same network.

    Args:
        session: its device and sizes.
        what: is measured.
        network: ``paper`` or ``ddpm``.
        settings: of ours.
        work: makes ours.
        theirs: the function of the peer's module that makes theirs.
        more: arguments of that function.
    """
    peer = paper_peer if network == "paper" else diffusers_peer
    sizes, device, batch = session.sizes, session.device.torch, batch_of(session, network)
    precision, looping = ours.precision_of(device), what == "whole loop"
    count = sizes.loop_steps if looping else 1
    cases = [Case(what, network, "ours", settings, precision, batch, work, count)]
    for at, each in precisions(precision):
        make = partial(getattr(peer, theirs), sizes, device, each, *more)
        note = peer.remark() if looping else ""
        cases.append(Case(what, network, peer.name(), at, each, batch, make, count, note))
    return cases


def precisions(our: str) -> Sequence[tuple[str, str]]:
    """The peers' settings: float32 is the default of them all."""
    return [(DEFAULTS, "fp32")] + ([(LIKE_OURS, our)] if our != "fp32" else [])
