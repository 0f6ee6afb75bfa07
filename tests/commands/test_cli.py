import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import ddm
from ddm.cli import VERBS, main


def last_line(capsys: pytest.CaptureFixture) -> str:
    err = capsys.readouterr().err.strip()
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "trian",
            "command: 'trian' is unknown (did you mean 'train'?); allowed: " + ", ".join(sorted(VERBS)),
        ),
        ("train", "the following arguments are required: RECIPE"),
        (
            "train papre",
            "recipe: 'papre' is unknown (did you mean 'paper'?); allowed: ddpm, edm, fast10, fast20, paper, shapes, small",
        ),
        ("train nothere.yaml", "recipe: 'nothere.yaml' is unknown"),
        ("train paper --train.step 3", "--train.step: there is no such argument (did you mean --train.steps?)"),
        ("train paper --steps -3", "train.steps: '-3' is not allowed; must be greater than or equal to 1"),
        ("train paper --steps many", "train.steps: 'many' is not allowed; must be a valid integer"),
        ("train paper --lr nan", "train.lr: 'nan' is not allowed; must be a finite number"),
        (
            "train paper --precision fp8",
            "train.precision: 'fp8' is not allowed; must be 'auto', 'fp32', 'bf16' or 'fp16'",
        ),
        (
            "train paper --network unett",
            "network: 'unett' is unknown (did you mean 'unet'?); allowed: residual_unet, unet",
        ),
        ("train paper --network unet(dmi=3)", "network: option of unet: 'dmi' is unknown (did you mean 'dim'?)"),
        ("train paper --schedule cosin", "schedule: 'cosin' is unknown (did you mean 'cosine'?)"),
        ("train paper --objective vv", "objective: 'vv' is unknown"),
        ("train paper --weighting snrr", "weighting: 'snrr' is unknown"),
        ("train paper --train.ema constant(decay=2)", "train.ema: constant(decay=2): decay must be less than 1"),
        ("train paper --train.ema", "train.ema: no average is not allowed"),
        ("train paper --sample.sampler huen", "sample.sampler: 'huen' is unknown (did you mean 'heun'?)"),
        (
            "train paper --sample.guidance 2",
            "sample.guidance: 2.0 is not allowed when conditional is False; allowed: 1",
        ),
        (
            "train paper --image-size 30",
            "image_size: 30 is not divisible by 8, the down-sampling of this network; allowed:",
        ),
        ("train paper --trackers wandbb", "trackers: 'wandbb' is unknown (did you mean 'wandb'?)"),
        ("train paper --data cifar11", "data: 'cifar11' is unknown (did you mean 'cifar10'?)"),
        ("train paper --data folder", "data: folder needs path; write folder(path"),
        ("train paper --data folder(path='/not/there')", "/not/there"),
        (
            "train paper --data shapes --conditional --name ../up",
            "name: '../up' is not allowed; allowed: a folder name",
        ),
        ("train paper --device gpu --data shapes(count=8)", "device: 'gpu' is unknown; allowed: auto, cpu, cuda, mps"),
        ("list sampler", "kind: 'sampler' is unknown (did you mean 'samplers'?)"),
        ("data cifar11", "data: 'cifar11' is unknown (did you mean 'cifar10'?)"),
        ("data shapes --image-size 0", "image-size: 0 is not allowed; allowed: 1 or more"),
        ("data shapes --out a.jpg", "out: 'a.jpg' is not allowed; allowed: a .png file"),
    ],
)
def test_bad_requests_exit_2_with_one_line_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: str, message: str
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split(" ")) == 2
    line = last_line(capsys)
    assert line.startswith("ddm: ")
    assert message in line
    assert [each for each in tmp_path.rglob("*") if each.is_file() and each.name != ".lock"] == []


def test_folders_that_cannot_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["train", "shapes", "--data", "folder(path='empty')", "--no-such"]) == 2
    capsys.readouterr()
    assert main(["train", "shapes", "--data", "folder(path='empty')", "--device=cpu"]) == 2
    assert "data: folder(path='empty')" in last_line(capsys)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("this is no picture")
    assert main(["train", "shapes", "--data", "folder(path='text')", "--device=cpu"]) == 2
    assert "a.png" in last_line(capsys)
    Image.new("RGB", (9, 9)).save(tmp_path / "text" / "b.png")
    assert main(["train", "shapes", "--data", "folder(path='text')", "--device=cpu"]) == 2
    line = last_line(capsys)
    assert "a.png" in line
    assert "max_bad" in line
    assert main(["train", "shapes", "--data", "folder(path='text', max_bad=0.5)", "--device=cpu"]) == 2
    assert "conditional: True is not allowed, folder(path='text', max_bad=0.5) has no labels" in last_line(capsys)


@pytest.mark.parametrize("verb", ["", "train", "sample", "data", "list", "doctor"])
def test_help_shows_examples(verb: str, capsys: pytest.CaptureFixture):
    if verb:
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
    else:
        assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: ddm {verb or 'COMMAND'}" in text
    assert "ddm train shapes" in text or "examples:" in text


def test_version_and_module():
    done = subprocess.run([sys.executable, "-m", "ddm.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"ddm {ddm.__version__}"


def test_list_names_every_part(capsys: pytest.CaptureFixture):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for part in ("heun(churn=0.0", "cifar10", "paper", "residual_unet(", "min_snr(gamma=5.0)", "karras(rho=7.0"):
        assert part in text
    assert main(["list", "samplers", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed) == {"samplers"}
    for parts in listed.values():
        assert all(each["summary"] for each in parts.values())


def test_data_tells_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture):
    sheet = tmp_path / "sheet.png"
    assert main(["data", "shapes(count=64)", "--image-size=16", "--out", str(sheet)]) == 0
    out, err = capsys.readouterr()
    assert "64 of 16x16, 3 channels" in out
    assert "label star" in out
    assert "Only 64 pictures" in out
    assert "next: ddm train" in err
    with Image.open(sheet) as picture:
        assert picture.size[0] > 300
    assert main(["data", "shapes(count=64)", "--image-size=16", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 64


def test_doctor_does_a_real_run(capsys: pytest.CaptureFixture):
    assert main(["doctor", "--device=cpu"]) == 0
    out, err = capsys.readouterr()
    assert "one real run: data, 2 training steps, save, load and 4 pictures" in out
    assert "all is well" in err


def test_debug_gives_the_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DDM_DEBUG", "1")
    with pytest.raises(ddm.errors.RequestError):  # pyright: ignore[reportAttributeAccessIssue]
        main(["trian"])


def test_a_console_without_unicode_is_no_failure(tmp_path: Path):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-m", "ddm.cli", "list"], capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
