"""Two processes train what one trains: the same pictures and noise, one folder, one set of weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.cli import main
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
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
TWO = [*LAUNCHER, "-m", "ddm.cli"]


def train(launcher: list[str], folder: Path, *more: str) -> subprocess.Popen:
    command = [*launcher, "train", *TINY, "--runs", str(folder), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training on one process and on two."""
    folder = tmp_path_factory.mktemp("runs")
    for launcher, name in ((ALONE, "one"), (TWO, "two")):
        process = train(launcher, folder, f"--name={name}", "--steps=8")
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert out.splitlines() == [str(folder / name)]
    return folder


def assert_same_training(one: Path, other: Path) -> None:
    """Equal to the rounding of sums that another number of processes makes."""
    for ours, theirs in zip(records(one), records(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    loaded = [checkpoints.load(each / "checkpoints" / "000008") for each in (one, other)]
    for name, value in loaded[0].tensors["weights"].items():
        torch.testing.assert_close(value, loaded[1].tensors["weights"][name], rtol=1e-3, atol=1e-5)
    sheets = [np.asarray(Image.open(each / "samples" / "000008.png")).astype(int) for each in (one, other)]
    assert np.abs(sheets[0] - sheets[1]).max() <= 1


def test_two_processes_train_what_one_trains(runs: Path):
    assert_same_training(runs / "one", runs / "two")
    assert '"processes": 2' in (runs / "two" / "environment.json").read_text()
    assert sorted(each.name for each in (runs / "two" / "samples").iterdir()) == ["000008.png"]


@pytest.mark.parametrize("first, then", [("one", TWO), ("two", ALONE)], ids=["one, then two", "two, then one"])
def test_another_number_of_processes_goes_on_alike(runs: Path, tmp_path: Path, first: str, then: list[str]):
    """As if it had been stopped at step 4; steps 5 to 8 see the same pictures and noise."""
    shutil.copytree(runs / first, tmp_path / first)
    shutil.rmtree(tmp_path / first / "checkpoints" / "000008")
    (tmp_path / first / "samples" / "000008.png").unlink()
    _, err = (process := train(then, tmp_path, f"--name={first}", "--steps=8")).communicate(timeout=200)
    assert process.returncode == 0, err
    assert f"resuming {tmp_path / first} at step 4 of 8" in err
    assert_same_training(runs / "one", tmp_path / first)


def several(*commands: list[str]) -> tuple[list[int], str, str]:
    """Exit statuses of commands that two processes of one launch carry out one after the other, and what they said."""
    script = Path(__file__).with_name("several.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*LAUNCHER, script, json.dumps(commands)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    *out, statuses = done.stdout.splitlines()
    return json.loads(statuses), "\n".join(out), done.stderr


def same(name: str, alone: Path, shared: Path) -> bool:
    """Whether two results are equal in every byte."""
    if name.endswith("/"):
        names = sorted(each.name for each in alone.iterdir())
        found = sorted(each.name for each in shared.iterdir())
        return bool(names) and names == found and all(same(each, alone / each, shared / each) for each in names)
    return alone.read_bytes() == shared.read_bytes()


def test_two_processes_sample_what_one_samples(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    names = ("sheet.png", "array.npz", "folder/", "film.webp", "changed.png", "between.png")
    more = {"changed.png": ["--from", str(runs / "one" / "samples" / "000008.png"), "--noise=1"]}
    more |= {"between.png": ["--to-seed=7"]}

    def command(folder: str, name: str, *rest: str) -> list[str]:
        asked = ["--count=5", "--steps=3", "--device=cpu", f"--out={tmp_path / folder}/{name}"]
        return ["sample", str(runs / "one"), *asked, *more.get(name, []), *rest]

    again = [
        "sample",
        "--again",
        str(tmp_path / "two" / "sheet.png"),
        f"--out={tmp_path}/again.png",
        "--runs",
        str(runs),
    ]
    statuses, out, err = several(*(command("two", name) for name in names), again)
    assert statuses == [0] * len(names) + [2]
    assert out.splitlines() == [str(tmp_path / "two" / name) for name in names], "one process speaks"
    assert err.count("5 pictures in") == len(names)
    assert "again: not allowed on 2 processes; allowed: 1" in err
    for name in names:  # in the batches that two processes make: another size may round a level differently
        assert main(command("one", name, "--batch-size=3")) == 0
        assert same(name, tmp_path / "one" / name, tmp_path / "two" / name), name
    capsys.readouterr()
    assert main(again) == 0
    assert "equal in every pixel" in capsys.readouterr().out


def test_machines_without_a_common_folder_are_refused(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "one", tmp_path / "0" / "one")
    shutil.rmtree(tmp_path / "0" / "one" / "checkpoints" / "000008")
    statuses, _, err = several(["train", *TINY, "--runs", str(tmp_path / "{rank}"), "--name=one", "--steps=8"])
    assert statuses == [2]
    assert "holds step 4 here and others on other processes (4, 0); allowed: a folder that all machines share" in err


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
