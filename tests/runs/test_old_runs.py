"""Runs that earlier releases made: kept in tests/old_runs, never made again, and readable for ever."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ddm.cli import main
from ddm.runs import checkpoints, log, searched
from ddm.runs.folder import Run
from ddm.runs.recorded import read_recorded

KEPT = Path(__file__).parent.parent / "old_runs"
DIGESTS = {"0.1": "175c2d6be74114299a663bfa21f84842a8e734f605b3a50f17552fcda3eddbd1"}
LOSSES = {"0.1": {4: 1.4705, 8: 1.4736, 12: 1.4416, 16: 1.2314, 20: 1.1265, 24: 1.0188}}
"""Of an uninterrupted training; the last three are of steps after the checkpoint that is kept."""


@pytest.fixture(params=DIGESTS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT / request.param, tmp_path / request.param))


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return whole.hexdigest()


@pytest.mark.parametrize("name", DIGESTS)
def test_nobody_has_made_it_again(name: str):
    assert digest(KEPT / name) == DIGESTS[name], "an old run is what it was: mend the reader, not the run"
    assert sum(path.stat().st_size for path in (KEPT / name).rglob("*")) < 200_000


def test_every_run_is_kept_by_name():
    assert sorted(path.name for path in KEPT.iterdir() if path.is_dir()) == sorted(DIGESTS)


def test_every_file_says_its_format(old: Path):
    for path in old.rglob("*"):
        if path.suffix == ".jsonl":
            assert all(json.loads(line)["format"] == 1 for line in path.read_text().splitlines()), path
        elif path.name == "state.json":
            assert json.loads(path.read_text())["config"]["format"] == 1
        elif path.suffix in (".json", ".yaml"):
            assert yaml.safe_load(path.read_text())["format"] == 1, path
        elif path.is_file():  # the manifest beside it, and the picture's own format
            assert path.suffix == ".png" or (path.parent / "manifest.json").exists(), path


def test_it_loads_and_makes_its_pictures(old: Path, tmp_path: Path):
    assert checkpoints.load(old / "checkpoints" / "000012").step == 12
    out = tmp_path / "new.png"
    assert main(["sample", str(old), "--count=4", "--steps=4", "--device=cpu", "--grid=searched", f"--out={out}"]) == 0
    with Image.open(out) as new, Image.open(KEPT / f"{old.name}.png") as kept:
        difference = np.abs(np.asarray(new, dtype=int) - np.asarray(kept, dtype=int))
    assert difference.max() <= 2, "rounding of another machine moves a pixel by a level, not more"


def test_its_records_are_shown(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    run = Run.open(old)
    losses = LOSSES[old.name]
    assert {each["step"]: round(each["loss"], 4) for each in log.read(run.metrics)} == {
        step: loss for step, loss in losses.items() if step <= 12
    }
    assert set(read_recorded(old).records) == {"FD [efficientnet]", "KID [efficientnet]"}
    assert len(searched.read_grids(old, pytest.fail)) == 20
    assert main(["report", str(old), "--device=cpu", f"--out={tmp_path / 'page.html'}"]) == 0
    assert "damaged" not in capsys.readouterr().err
    page = (tmp_path / "page.html").read_text()
    assert "FD [efficientnet]" in page


def test_it_resumes_as_if_it_had_never_stopped(old: Path, capsys: pytest.CaptureFixture):
    assert main(["train", str(old / "config.yaml"), "--runs", str(old.parent), "--name", old.name, "--device=cpu"]) == 0
    assert "at step 12 of 24" in capsys.readouterr().err
    found = {each["step"]: each["loss"] for each in log.read(old / "metrics.jsonl")}
    assert found == pytest.approx(LOSSES[old.name], rel=1e-3)
    assert checkpoints.steps(old / "checkpoints") == [12, 24]


def test_a_later_format_is_refused_in_words(old: Path, capsys: pytest.CaptureFixture):
    """So that a run of the next release says what to do here, and not something about keys."""
    with (old / "metrics.jsonl").open("a") as file:
        file.write('{"format": 2, "steps": [16]}\n')
    (old / "config.yaml").write_text((old / "config.yaml").read_text().replace("format: 1", "format: 2", 1))
    assert main(["sample", str(old), "--device=cpu"]) == 2
    assert "was made by a newer ddm" in capsys.readouterr().err
    with pytest.raises(Exception, match=r"metrics\.jsonl was made by a newer ddm \(format 2; this one reads 1\)"):
        log.read(old / "metrics.jsonl")
