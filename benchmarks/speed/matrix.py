"""Training steps of both backbones: compiled or not, CUDA graphs or not, batch by batch; and whether any waits."""

from collections.abc import Iterator
from functools import partial

from . import ours
from .pictures import image_set
from .rounds import interleaved
from .session import Case, Session

BACKBONES = {"paper": "paper", "edm": "edm"}
"""The network and the recipe whose settings it is trained with."""


def configurations(session: Session, plain: ours.Compile) -> Iterator[tuple[str, int, str, ours.Compile]]:
    """Network, batch, settings in words and what torch.compile is given; what matters most comes first.

    Args:
        session: its sizes.
        plain: what torch.compile is given for a plain compiled network.
    """
    large, graphs = session.sizes.batches, {**(plain or {}), "mode": "reduce-overhead"}
    for network in BACKBONES:
        for batch in large:
            yield network, batch, "fast path, not compiled", None
    for batch in reversed(large):
        for network in BACKBONES:
            yield network, batch, "fast path, compiled", plain or {}
    for network in BACKBONES:
        for batch in large[:2]:
            yield network, batch, "fast path, compiled, CUDA graphs", graphs
    tuned = {**(plain or {}), "mode": "max-autotune-no-cudagraphs"}
    yield "paper", large[len(large) // 2], "fast path, compiled, tuned", tuned


def measure(session: Session, plain: ours.Compile) -> None:
    """A row a configuration, one after the other: together they would not fit."""
    sizes, device = session.sizes, session.device.torch
    for network, batch, settings, compile in configurations(session, plain):
        choice = getattr(sizes, network)
        make = partial(ours.training_step, BACKBONES[network], choice, sizes, batch, device, compile)
        precision = ours.precision_of(device)
        case = Case("training step", network, "ours", settings, precision, batch, make, note="matrix")
        with session.attempt(case.row()):
            work, peak = session.prepare(case)
            seconds = interleaved({"": work}, session.device, rounds=session.rounds, least=sizes.least)[""]
            session.add(case, seconds, None, peak)
        work = None
        session.device.clear()


def nothing_waits(session: Session, compile: ours.Compile) -> None:
    """Rows ``no waiting``: whether steps of the trainer's own loop wait for the device, with the data and all."""
    sizes = session.sizes
    for network, recipe in BACKBONES.items():
        row = {"kind": "no waiting", "network": network, "steps": STEPS}
        with session.attempt(row):
            session.begin()
            data = image_set(sizes.pictures, sizes.side, sizes.batch)
            trainer = ours.make_trainer(recipe, getattr(sizes, network), data, session.device.torch, compile)
            steps = trainer.steps()
            for _ in range(WARM):
                next(steps)
            session.device.wait()
            with session.device.nothing_waits():
                for _ in range(STEPS):
                    next(steps)
            session.rows.add(**row, waited=False, told=session.device.cuda)
        session.device.clear()


WARM, STEPS = 3, 10
"""Together fewer than the steps after which the trainer asks whether it diverges, which does wait."""
