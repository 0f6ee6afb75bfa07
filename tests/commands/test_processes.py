"""Two processes train what one trains: the same pictures and noise, one folder, one set of weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from ddm.commands.stopping import Stop
from ddm.commands.training import _Session
from ddm.runs import checkpoints
from kill_and_compare import records

TINY = [
    "shapes",
    "--data=shapes(count=32)",
    "--image-size=8",
    "--network=residual_unet(width=8, mults=(1, 2), blocks=1)",
    "--batch-size=4",
    "--train.accumulate=2",
    "--precision=fp32",
    "--device=cpu",
    "--every.log=2",
    "--every.save=4",
    "--sample.count=4",
    "--sample.steps=2",
]
ALONE = [sys.executable, "-m", "ddm.cli"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "ddm.cli"]


def train(launcher: list[str], folder: Path, *more: str) -> subprocess.Popen:
    command = [*launcher, "train", *TINY, "--runs", str(folder), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_processes_train_what_one_trains(tmp_path: Path):
    for launcher, name in ((ALONE, "one"), (TWO, "two")):
        process = train(launcher, tmp_path, f"--name={name}", "--steps=8")
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert out.splitlines() == [str(tmp_path / name)]
    for ours, theirs in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    sessions = (tmp_path / "two" / "environment.json").read_text()
    assert '"processes": 2' in sessions
    loaded = [checkpoints.load(tmp_path / name / "checkpoints" / "000008") for name in ("one", "two")]
    for name, value in loaded[0].tensors["weights"].items():
        torch.testing.assert_close(value, loaded[1].tensors["weights"][name], rtol=1e-3, atol=1e-5)
    assert sorted(each.name for each in (tmp_path / "two" / "samples").iterdir()) == ["000008.png"]


def test_a_signal_that_comes_while_others_are_waited_for_is_not_forgotten():
    """A process waits for the others in every step, longest while the first one samples or saves."""
    stop = Stop()

    class Accelerator:
        num_processes = 2

        def gather(self, told: torch.Tensor) -> torch.Tensor:
            if stop.signal is None:
                stop(signal.SIGTERM, None)
            return torch.cat([told, torch.zeros(1)])

    trainer = SimpleNamespace(accelerator=Accelerator(), device=torch.device("cpu"))
    session = cast(_Session, SimpleNamespace(stop=stop, trainer=trainer))
    assert not _Session._told_to_stop(session, 1)  # the other one knows nothing of it yet
    assert _Session._told_to_stop(session, 2)
    assert stop.signal == signal.SIGTERM


def test_a_signal_ends_both_with_everything_saved(tmp_path: Path):
    process = train(TWO, tmp_path, "--name=two", "--steps=100000", "--every.save=10")
    first = tmp_path / "two" / "checkpoints" / "000010"
    end = time.monotonic() + 120
    while not first.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "all saved" in err, err
    step = checkpoints.steps(tmp_path / "two" / "checkpoints")[-1]
    assert checkpoints.load(tmp_path / "two" / "checkpoints" / f"{step:06d}").step == step
