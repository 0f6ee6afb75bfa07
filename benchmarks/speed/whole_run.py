"""``ddm train`` as people type it, in a process of its own; how fast it was is what its records say."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from ddm.runs import log

from . import ours
from .rounds import Spread
from .session import Session

SKIPPED = 2
"""Records at the beginning, with compiling and warming up in them."""


def measure(session: Session, compiled: bool, folder: Path) -> None:
    """A row ``whole run``, then one with its share of the bare step."""
    sizes = session.sizes
    row = {"kind": "speed", "what": "whole run", "network": "paper", "code": "ours", "settings": "`ddm train paper`"}
    row |= {"precision": ours.precision_of(session.device.torch), "batch": sizes.batch}
    with session.attempt(row):
        session.begin()
        session.device.clear()
        with tempfile.TemporaryDirectory() as runs:
            line = command(session, compiled, folder, runs)
            done = subprocess.run(line, capture_output=True, text=True, env=environment(runs))
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            records = log.read(Path(runs, "paper", "metrics.jsonl"))[SKIPPED:]
        speed = Spread.of([record["images_per_second"] for record in records])
        # On a CPU its records know the peak of a process that began with the memory of this one.
        peak = int(records[-1]["memory_gb"] * 1e9) if session.device.cuda else None
        session.rows.add(**row, images_per_second=speed.plain(), peak_bytes=peak)
        bare = session.rows.find(what="training step", network="paper", code="ours", batch=sizes.batch)
        for step in bare[:1]:
            if "images_per_second" in step:
                share = round(speed.median / step["images_per_second"][0], 4)
                session.rows.add(kind="share of the bare step", value=share)


def command(session: Session, compiled: bool, folder: Path, runs: str) -> list[str]:
    """With the settings that were compared with the peer's, no pictures and no checkpoints but the last."""
    sizes = session.sizes
    flags = {
        "--data": f"folder(path={str(folder)!r}, labels=False)",
        "--network": sizes.paper,
        "--image_size": sizes.side,
    }
    flags |= {"--runs": runs, "--device": session.device.torch.type, "--steps": sizes.run_steps}
    flags |= {"--batch-size": sizes.batch, "--train.accumulate": 1, "--precision": "auto", "--compile": compiled}
    flags |= {"--every.log": sizes.run_log, "--every.sample": 0, "--every.save": 0}
    return [
        sys.executable,
        "-m",
        "ddm.cli",
        "train",
        "paper",
        "-q",
        *(str(each) for pair in flags.items() for each in pair),
    ]


def environment(cache: str) -> dict[str, str]:
    """The environment, with a cache that is thrown away and as many threads as here."""
    return {**os.environ, "HF_ASSETS_CACHE": cache, "OMP_NUM_THREADS": str(torch.get_num_threads())}
