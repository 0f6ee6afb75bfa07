"""``ddm train`` as a user meets it: the run folder, resuming, signals, and kills at any moment."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ddm.cli import main
from ddm.errors import RequestError
from ddm.runs import checkpointing, checkpoints, log
from ddm.runs.config import override
from ddm.runs.folder import Run
from ddm.runs.recipes import recipes
from kill_and_compare import assert_same_run, records

TINY = [
    "--data",
    "shapes(count=32)",
    "--image-size",
    "8",
    "--network",
    "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "--batch-size=4",
    "--device=cpu",
    "--sample.count=4",
    "--sample.steps=2",
]


def ddm(*arguments: object) -> int:
    return main([str(each) for each in arguments])


def train(folder: Path, name: str, *more: object) -> int:
    return ddm("train", "shapes", "--runs", folder, "--name", name, *TINY, *more)


def test_a_run_leaves_everything_behind(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert train(tmp_path, "a", "--steps=6", "--every.log=2", "--every.sample=3", "--every.save=3") == 0
    run = tmp_path / "a"
    out, err = capsys.readouterr()
    assert out.strip() == str(run)
    assert f"next: ddm sample {run}" in err
    assert "32 pictures of 8x8" in err
    assert [each["step"] for each in records(run)] == [2, 4, 6]
    assert records(run)[-1]["images"] == 24
    assert {"loss", "lr", "gradient_norm", "skipped"} <= records(run)[-1].keys()
    assert sorted(each.name for each in (run / "samples").iterdir()) == ["000003.png", "000006.png"]
    assert checkpoints.steps(run / "checkpoints") == [3, 6]
    with Image.open(run / "samples" / "000006.png") as sheet:
        assert sheet.size == (152, 152)
    with Image.open(run / "loss.png") as curve:
        assert curve.size[0] > 500
    environment = json.loads((run / "environment.json").read_text())
    assert environment["sessions"][0]["packages"]["torch"] == torch.__version__
    assert environment["sessions"][0]["precision"] in ("bf16", "fp32")


def test_the_same_command_resumes_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ("--steps=6", "--every.save=2", "--every.log=3", "--keep.last=0")
    assert train(tmp_path, "whole", *options) == 0
    assert train(tmp_path, "b", *options) == 0
    for step in (4, 6):  # as if killed after step 2 was saved and 3 was logged
        remove(tmp_path / "b" / "checkpoints" / f"{step:06d}")
    capsys.readouterr()
    assert train(tmp_path, "b", *options) == 0
    assert "resuming" in (said := capsys.readouterr().err)
    assert "at step 2 of 6" in said
    assert_same_run(tmp_path / "whole", tmp_path / "b")
    assert train(tmp_path, "b", *options) == 0
    assert "nothing left to do" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_starts_again_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert train(tmp_path, "d", "--steps=4", "--every.log=1") == 0
    first = records(tmp_path / "d")
    remove(tmp_path / "d" / "checkpoints" / "000004")
    assert train(tmp_path, "d", "--steps=4", "--every.log=1") == 0
    assert "has no checkpoint yet: starting from step 0" in capsys.readouterr().err
    assert records(tmp_path / "d") == first


def remove(folder: Path) -> None:
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()


def test_other_settings_are_refused_and_fresh_moves_aside(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert train(tmp_path, "c", "--steps=2") == 0
    before = (tmp_path / "c" / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert train(tmp_path, "c", "--steps=2", "--lr=0.5") == 2
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1] == (
        f"ddm: name: '{tmp_path / 'c'}' is a run with other settings: train.lr is 0.003 there and 0.5 here; "
        "choose another --name, or --fresh to move the old run aside"
    )
    assert (tmp_path / "c" / "metrics.jsonl").read_bytes() == before
    assert train(tmp_path, "c", "--steps=2", "--lr=0.5", "--fresh") == 0
    (aside,) = tmp_path.glob("c.old-*")
    assert (aside / "metrics.jsonl").read_bytes() == before


def test_a_config_file_is_a_recipe(tmp_path: Path):
    assert train(tmp_path, "d", "--steps=2") == 0
    assert ddm("train", tmp_path / "d" / "config.yaml", "--runs", tmp_path, "--name", "e", "--device=cpu") == 0
    assert_same_run(tmp_path / "d", tmp_path / "e")


def test_dry_run_prints_the_settings_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert train(tmp_path, "f", "--dry-run", "--train.ema", "power(width=0.1)", "constant(decay=0.9)") == 0
    out = capsys.readouterr().out
    assert "power(width=0.1)" in out
    assert not (tmp_path / "f").exists()
    (tmp_path / "copy.yaml").write_text(out)
    assert ddm("train", tmp_path / "copy.yaml", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"]["ema"] == ["power(width=0.1)", "constant(decay=0.9)"]


class Standing:
    """A trainer that stands at a step."""

    def __init__(self, step: int):
        self.step = step

    def tensors(self) -> dict:
        return {"weights": {"w": torch.ones(1)}}

    def counters(self) -> dict:
        return {"step": self.step}


def test_best_and_newest_are_kept(tmp_path: Path):
    config = override(recipes["shapes"](), {"keep.last": 1, "keep.best": "loss"})
    run = Run.start(tmp_path / "g", config)
    data, left = SimpleNamespace(channels=3, classes=(), count=1, digest=""), []
    for step, loss in ((10, 0.95), (20, 0.1), (30, 0.3), (40, 0.35)):
        log.append(run.metrics, {"step": step, "loss": loss, "gradient_norm": 1.0})
        checkpointing.save(run, Standing(step), data, since=step - 10)
        checkpointing.prune(run)
        left.append(checkpoints.steps(run.checkpoints))
    assert left == [[10], [20], [20, 30], [20, 40]]
    run.release()


def test_a_fresh_start_never_pulls_the_folder_from_under_a_trainer(tmp_path: Path):
    config = recipes["shapes"]()
    run = Run.start(tmp_path / "h", config)
    with pytest.raises(RequestError, match="is in use by another process"):
        Run.start(tmp_path / "h", override(config, {"train.lr": 1}), fresh=True)
    assert [each.name for each in tmp_path.iterdir()] == ["h"]
    run.release()


def test_a_name_with_nothing_trained_under_it_is_free(tmp_path: Path):
    config = recipes["shapes"]()
    Run.start(tmp_path / "i", config).release()
    other = override(config, {"train.lr": 1})
    Run.start(tmp_path / "i", other).release()
    assert Run.open(tmp_path / "i").config == other


def test_a_run_without_a_sound_checkpoint_is_not_begun_anew(tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ("--steps=4", "--every.save=2", "--every.log=1")
    assert train(tmp_path, "j", *options) == 0
    before = (tmp_path / "j" / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "j" / "checkpoints").glob("*/ema.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    assert train(tmp_path, "j", *options) == 1
    assert "none of its checkpoints can be used (bad-000002, bad-000004)" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "j" / "metrics.jsonl").read_bytes() == before


def test_a_truncated_newest_checkpoint_falls_back_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    options = ("--steps=4", "--every.save=2", "--every.log=1")
    assert train(tmp_path, "l", *options) == 0
    whole = records(tmp_path / "l")
    damaged = tmp_path / "l" / "checkpoints" / "000004" / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert train(tmp_path, "l", *options) == 0
    err = capsys.readouterr().err
    assert "state.safetensors has" in err
    assert "renamed to bad-000004" in err
    assert "at step 2 of 4" in err
    assert records(tmp_path / "l") == whole


def test_a_disk_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "loss.png")

    monkeypatch.setattr("ddm.runs.curves.draw", full)
    monkeypatch.setattr("ddm.commands.training.save_png", full)
    assert train(tmp_path, "m", "--steps=2", "--every.save=1", "--every.sample=1") == 0
    err = capsys.readouterr().err
    assert "the curve of step 1 was not written" in err
    assert "the grid of step 1 was not written" in err
    assert checkpoints.steps(tmp_path / "m" / "checkpoints") == [1, 2]


LONG = ("--steps=120", "--every.save=5", "--every.log=3", "--every.sample=50", "--keep.last=0")


def start(folder: Path, name: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ddm.cli", "train", "shapes", "--runs", str(folder), "--name", name, *TINY, *LONG]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def finish(process: subprocess.Popen) -> int:
    """Wait for the end, with the output read and closed."""
    err = process.communicate(timeout=200)[1]
    assert process.returncode == 0, err
    return process.returncode


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None or path.exists(), process.communicate()[1]
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    finish(start(folder, "whole"))
    return folder / "whole"


def test_sigkill_at_random_moments_changes_nothing(tmp_path: Path, uninterrupted: Path):
    random.seed(0)
    for after in (5, 25, 60):
        process = start(tmp_path, "k")
        wait_for(tmp_path / "k" / "checkpoints" / f"{after:06d}", process)
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(start(tmp_path, "k"))
    assert_same_run(uninterrupted, tmp_path / "k")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_at_the_step_and_leave(tmp_path: Path, uninterrupted: Path, number: int, status: int):
    process = start(tmp_path, "s")
    wait_for(tmp_path / "s" / "checkpoints" / "000005", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "saving and leaving" in err
    assert "all saved.  next: the same command again" in err
    assert out.strip() == str(tmp_path / "s")
    finish(start(tmp_path, "s"))
    assert records(tmp_path / "s") == records(uninterrupted)


def test_a_second_trainer_on_a_run_is_refused(tmp_path: Path):
    process = start(tmp_path, "two")
    wait_for(tmp_path / "two" / "checkpoints" / "000005", process)
    second = start(tmp_path, "two")
    _, err = second.communicate(timeout=60)
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert "is in use by another process that trains" in err


def test_a_run_that_diverges_says_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A learning rate far too high for fp32 overflows; nothing that is not finite is ever saved."""
    status = train(tmp_path, "n", "--steps=400", "--lr=1e38", "--precision=fp32", "--every.save=20", "--train.clip=0")
    if status == 0:
        pytest.fail("a learning rate of 1e38 must not train")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 1
    assert "not finite" in error
    for step in checkpoints.steps(tmp_path / "n" / "checkpoints"):
        for tensors in checkpoints.load(tmp_path / "n" / "checkpoints" / f"{step:06d}").tensors.values():
            assert all(bool(value.isfinite().all()) for value in tensors.values())
