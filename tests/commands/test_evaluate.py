"""``ddm evaluate`` and evaluation while training, as a user meets them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddm.cli import main
from ddm.commands.console import Console
from ddm.commands.training import train
from ddm.runs import checkpoints, log
from ddm.runs.config import override
from ddm.runs.recipes import recipes
from kill_and_compare import assert_same_run
from metrics.toys import toys

__all__ = ["toys"]

CHANGES = {
    "data": "shapes(count=40)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "every.save": 2,
    "sample.count": 4,
    "sample.steps": 2,
    "sample.guidance": 1.0,
    "evaluate.features": "toy_features",
    "evaluate.metrics": ("mean_gap",),
    "evaluate.images": 12,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


def make_run(path: Path, **changes: object) -> Path:
    settings = override(
        recipes["shapes"](), CHANGES | {name.replace("__", "."): value for name, value in changes.items()}
    )
    train(settings, path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"evaluate__features": "inception", "evaluate__metrics": ("fid",)}  # the toys are not there yet
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", **changes)


def evaluate(*arguments: object) -> int:
    toy = ["--features=toy_features", "--metrics", "mean_gap"]
    return main(["evaluate", *(str(each) for each in arguments), *toy, "--device=cpu"])


def test_numbers_go_to_stdout_and_into_the_run(run: Path, toys: None, capsys: pytest.CaptureFixture):
    before = len(log.read(run / "evaluations.jsonl"))
    assert evaluate(run, "--images=20") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"mean_gap \[toy_features\] +[\d.]+  \[[\d.]+, [\d.]+\]   lower is better\n", out)
    assert "20 against 40 of shapes(count=40), toy_features, protocol" in err
    assert "warning mean_gap [toy_features]: a toy" in err
    assert f"next: ddm report {run}" in err
    (record,) = log.read(run / "evaluations.jsonl")[before:]
    assert record["by"] == "evaluate" and record["step"] == 4 and record["weights"] == "ema"
    assert record["generation"]["sampler"] == "heun" and record["generation"]["steps"] == 2
    assert record["protocol"]["n_fake"] == 20 and record["images_made"] == 20
    assert record["model_digest"] == checkpoint_digest(run)


def checkpoint_digest(run: Path) -> str:
    manifest = json.loads((run / "checkpoints" / "000004" / "manifest.json").read_text())
    return manifest["files"]["ema.safetensors"]["sha256"]


def test_json_is_the_records(run: Path, toys: None, capsys: pytest.CaptureFixture):
    assert evaluate(run, "--images=8", "--json", "--seed=5", "--weights=raw", "--steps=3") == 0
    (record,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert record["protocol"]["first_seed"] == 5 and record["weights"] == "raw" and record["generation"]["steps"] == 3


def test_the_same_again_makes_no_picture_twice(run: Path, toys: None, capsys: pytest.CaptureFixture):
    values = []
    for made in (16, 0):
        assert evaluate(run, "--images=16", "--json") == 0
        (record,) = json.loads(capsys.readouterr().out)["evaluations"]
        assert record["images_made"] == made
        values.append(record["value"])
    assert values[0] == values[1]


def test_another_reference(run: Path, toys: None, capsys: pytest.CaptureFixture):
    assert evaluate(run, "--images=8", "--reference=shapes(count=30)", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert (record["protocol"]["reference"], record["protocol"]["n_real"]) == ("shapes(count=30)", 30)


def test_data_as_a_source(toys: None, capsys: pytest.CaptureFixture):
    same = ("data:shapes(count=50)", "--reference=shapes(count=50)", "--image-size=8")
    assert evaluate(*same, "--images=50", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert record["value"] == 0
    assert evaluate(*same, "--images=51") == 2
    assert "images: 51 is not allowed; there are only 50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images=1",), "images: 1 is not allowed; allowed: 2 or more"),
        (("--images=0",), "images: 0 is not allowed; allowed: 1 or more"),
        (("--reference=cifar11",), "'cifar11' is unknown"),
        (("--steps=0",), "steps: 0 is not allowed"),
        (("--weights=ema-9",), "weights: 'ema-9' is unknown"),
        (("--imagess=9",), "--imagess: there is no such argument"),
    ],
)
def test_bad_requests_are_one_line(
    run: Path, toys: None, capsys: pytest.CaptureFixture, arguments: tuple[str, ...], message: str
):
    assert evaluate(run, *arguments) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert message in err[-1] and len([line for line in err if line.startswith("ddm:")]) == 1


def test_an_unknown_metric_or_space_is_told_before_work(run: Path, capsys: pytest.CaptureFixture):
    assert main(["evaluate", str(run), "--metrics", "fidd"]) == 2
    assert "evaluate.metrics: 'fidd' is unknown (did you mean 'fid'?)" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--features", "dino"]) == 2
    assert "evaluate.features: 'dino' is unknown; allowed: efficientnet, inception" in capsys.readouterr().err


def test_weights_that_cannot_be_had_are_one_line(run: Path, capsys: pytest.CaptureFixture):
    assert main(["evaluate", str(run), "--device=cpu"]) == 1
    err = capsys.readouterr().err
    assert "efficientnet" in err and "DDM_WEIGHTS" in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("ddm:")]) == 1


# --- while training


def test_a_run_measures_itself(tmp_path: Path, toys: None):
    run = make_run(tmp_path / "a", train__steps=6, every__evaluate=2, every__log=1)
    found = log.read(run / "evaluations.jsonl")
    assert [(each["step"], each["by"], each["metric"]) for each in found] == [
        (s, "train", "mean_gap") for s in (2, 4, 6)
    ]
    assert all(each["generation"]["sampler"] == "heun" and each["model"] == "a" for each in found)
    assert all(each["protocol"]["n_fake"] == 12 and each["protocol"]["n_real"] == 40 for each in found)
    with Image.open(run / "loss.png") as curves:
        assert curves.width > 1500, "the distance beside the loss"


def test_measuring_changes_no_weight(tmp_path: Path, toys: None):
    make_run(tmp_path / "with", every__evaluate=1)
    make_run(tmp_path / "without", every__evaluate=0)
    assert assert_same_run(tmp_path / "with", tmp_path / "without") > 50


def test_the_same_number_as_ddm_evaluate(tmp_path: Path, toys: None, capsys: pytest.CaptureFixture):
    run = make_run(tmp_path / "a", every__evaluate=4)
    capsys.readouterr()
    assert evaluate(run, "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)["evaluations"]
    trained = log.read(run / "evaluations.jsonl")[0]
    assert record["value"] == trained["value"] and record["protocol_digest"] == trained["protocol_digest"]


def test_a_run_stopped_before_it_measured_does_so_later(tmp_path: Path, toys: None):
    run = make_run(tmp_path / "a", every__evaluate=2)
    whole = log.read(run / "evaluations.jsonl")
    (run / "evaluations.jsonl").write_text("")
    make_run(run, every__evaluate=2)
    again = log.read(run / "evaluations.jsonl")
    assert [(each["step"], each["value"]) for each in again] == [(4, whole[-1]["value"])]


def test_the_best_checkpoint_may_be_told_by_distance(tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch):
    from ddm.metrics import Embedded, Measurement, metrics

    values = iter([3.0, 1.0, 2.0, 4.0])

    def fid(real: Embedded, fake: Embedded) -> Measurement:
        """Numbers that are known."""
        value = next(values)
        return Measurement(value, value, value)

    monkeypatch.setitem(metrics._parts, "fid", fid)
    run = make_run(
        tmp_path / "a", train__steps=8, every__evaluate=2, keep__best="fid", keep__last=1, evaluate__metrics=("fid",)
    )
    assert checkpoints.steps(run / "checkpoints") == [4, 8]


def test_the_best_by_a_distance_that_is_not_measured_is_refused(capsys: pytest.CaptureFixture):
    assert main(["train", "shapes", "--keep.best=fid", "--dry-run"]) == 2
    assert "keep.best: 'fid' is not allowed when every.evaluate is 0" in capsys.readouterr().err


def test_a_failing_evaluation_ends_no_training(tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch):
    from ddm.errors import DdmError
    from ddm.generators import DiffusionGenerator

    def fail(*_: object, **__: object) -> torch.Tensor:
        raise DdmError("pictures of seeds 3 are not finite")

    monkeypatch.setattr(DiffusionGenerator, "generate", fail)
    run = make_run(tmp_path / "a", every__evaluate=2)
    assert checkpoints.steps(run / "checkpoints")[-1] == 4
    assert log.read(run / "evaluations.jsonl") == []


# --- other processes

SMALL = ["--metrics", "kid", "--features=efficientnet(size=32)", "--device=cpu", "--json"]


def start(launcher: list[str], *arguments: object, home: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(home), "HF_ASSETS_CACHE": str(home / "assets")}
    command = [*launcher, "evaluate", *(str(each) for each in arguments), *SMALL]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


ALONE = [sys.executable, "-m", "ddm.cli"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "ddm.cli"]


def test_after_sigkill_it_goes_on_and_two_processes_agree(run: Path, tmp_path: Path):
    pytest.importorskip("efficientnet_lite_pytorch")
    options = (run, "--images=120", "--batch-size=4", "--steps=20")
    killed = start(ALONE, *options, home=tmp_path / "one")
    end = time.monotonic() + 120
    while len(list((tmp_path / "one").rglob("pictures/**/*.safetensors"))) < 3:
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    results = {}
    for name, launcher in (("one", ALONE), ("two", TWO)):
        process = start(launcher, *options, home=tmp_path / name)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        (results[name],) = json.loads(out)["evaluations"]
    assert 0 < results["one"]["images_made"] < 118, "it went on where it was"
    assert results["two"]["images_made"] == 120
    assert results["one"]["value"] == pytest.approx(results["two"]["value"], rel=1e-4)
    assert results["one"]["protocol_digest"] == results["two"]["protocol_digest"]


def test_a_metric_that_fails_on_one_of_two_processes_ends_neither(run: Path, tmp_path: Path):
    pytest.importorskip("efficientnet_lite_pytorch")
    arguments = (
        run,
        "--images=20",
        "--metrics",
        "kid",
        "fid_infinity",
        "--features=efficientnet(size=32)",
        "--device=cpu",
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_ASSETS_CACHE": str(tmp_path / "assets")}
    command = [*TWO, "evaluate", *(str(each) for each in arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    (record,) = json.loads(done.stdout)["evaluations"]
    assert record["metric"] == "kid" and done.returncode == 1
    assert "fid_infinity was not measured" in done.stderr and "collective" not in done.stderr
