"""The scripts that find the flagship: a training ends when its time is up, with its schedule fitted to it."""

import json
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import ablations
import flagship
import pytest
import torch
from budget import timed
from budget.timed import MEASURED, REPLAN, WARM, train_for

from ddm.runs import build
from ddm.runs.config import Config, override
from ddm.runs.recipes import recipes
from ddm.runs.sources import load


def tiny(**changes: object) -> Config:
    return override(recipes["shapes"](), {**flagship.TINY, "train.warmup": 0, "train.decay": 0.25, **changes})


class Clock:
    """Every step takes a tenth of a second, compiling five."""

    def __init__(self):
        self.trainer = None

    def __call__(self, device: str) -> float:
        return 0.0 if self.trainer is None else 0.1 * self.trainer.step + 5 * (self.trainer.step > 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, make = Clock(), build.make_trainer

    def made(*given: object, **named: object):
        clock.trainer = make(*given, **named)
        return clock.trainer

    monkeypatch.setattr(timed, "now", clock)
    monkeypatch.setattr(build, "make_trainer", made)
    return clock


@pytest.mark.parametrize(("compiling_counts", "steps"), [(True, 150), (False, 220)])
def test_as_many_steps_as_the_seconds_allow(clock: Clock, compiling_counts: bool, steps: int):
    config = tiny()
    found = train_for(
        config, build.make_data(config), seconds=20, device="cpu", compiling_counts=compiling_counts, snapshots=4
    )
    assert found.trainer.step == found.trainer.total == steps
    assert found.seconds == pytest.approx(20)
    assert found.warm_seconds == pytest.approx(5 + 0.1 * WARM)
    assert found.trainer.lr_at(steps) == pytest.approx(config.train.lr / (0.25 * steps)), "the rate falls to the end"
    assert found.images == steps * config.train.batch
    assert [each.images for each in found.snapshots][-1] == found.images
    assert len(found.snapshots) == 4
    last, live = found.snapshots[-1].averages["ema"], found.trainer.ema.networks[0].state_dict()
    assert all(torch.equal(last[name], live[name]) for name in live)


def test_the_learning_rate_does_not_fall_before_the_last_planning():
    highest = max(recipes[name]().train.decay for name in ("fast10", "fast20", "edm", "shapes"))
    assert max(REPLAN) < 1 - highest


def test_without_seconds_the_steps_of_the_settings(clock: Clock):
    config = tiny(**{"train.steps": WARM + MEASURED + 3})
    found = train_for(config, build.make_data(config), seconds=None, device="cpu")
    assert found.trainer.step == WARM + MEASURED + 3


def test_what_is_a_result_and_what_is_noise():
    rows = [
        {"name": f"as it is, seed {i}", "predicted": "", "fid": [100.0 + i, 0, 0], "average": "a"} for i in range(3)
    ]
    rows += [{"name": name, "predicted": "?", "fid": [value, 0, 0], "average": "a"} for name, value in OTHERS.items()]
    rows = [row | {"images": 10**6, "images_per_second": 10} for row in rows]
    lines = ablations.table([*rows, {"name": "broken", "predicted": "?", "problem": "no"}]).splitlines()
    said = {line.split(" | ")[0][2:]: line.split("|")[-2].strip() for line in lines[4:]}
    assert lines[0] == "as it is: 101.00, standard deviation of 3 seeds 1.00"
    assert said == {
        **{f"as it is, seed {i}": "" for i in range(3)},
        "good": "better",
        "bad": "worse",
        "same": "within the noise",
        "broken": "",
    }


OTHERS = {"good": 98.9, "bad": 103.1, "same": 102.9}


@pytest.mark.parametrize("change", ablations.PLAN, ids=lambda change: change.name)
def test_every_change_is_possible(change: ablations.Change):
    config = override(ablations.base("fast10", tiny=False), change.fields)
    build.check(config)
    with torch.device("meta"):
        build.make_network(config, channels=3, classes=10)


@pytest.mark.parametrize("name", ["fast10", "fast20"])
def test_what_is_wrong_with_a_change_is_told(name: str):
    arguments = SimpleNamespace(recipe=name, set=["train.lr=2e-3"], tiny=False)
    assert flagship.settings(arguments).train.lr == 2e-3
    with pytest.raises(Exception, match="FIELD=VALUE"):
        flagship.settings(SimpleNamespace(recipe=name, set=["train.lr"], tiny=False))


def test_a_flagship_from_nothing_to_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["flagship.py", "shapes", "--device=cpu", "--tiny", f"--out={tmp_path / 'made'}"])
    monkeypatch.setattr(flagship, "PART", 50_000)
    assert flagship.main() == 0
    found = json.loads((tmp_path / "made" / "results.json").read_text())
    kinds = [row["kind"] for row in found["rows"]]
    assert kinds == ["training", "snapshot", "snapshot", "final", "final"]
    assert found["rows"][0]["steps"] == flagship.TINY["train.steps"]
    parts = sorted((tmp_path / "made").glob("run.tar.*"))
    assert len(parts) > 1
    with tarfile.open(fileobj=BytesIO(b"".join(part.read_bytes() for part in parts))) as tar:
        tar.extractall(tmp_path / "back", filter="data")
    assert load(tmp_path / "back" / "shapes", device="cpu").sample(2).shape == (2, 3, 16, 16)


@pytest.mark.skipif(find_spec("denoising_diffusion_pytorch") is None, reason="the paper's library is not installed")
def test_the_papers_library_from_nothing_to_numbers(tmp_path: Path):
    script = Path(flagship.__file__).with_name("paper.py")  # a process: its pretended torchvision is not the tests'
    subprocess.run([sys.executable, script, "--device=cpu", "--tiny", f"--out={tmp_path}"], check=True, timeout=200)
    training, final = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert (training["images"], final["evaluations"], final["images_judged"]) == (3 * 16, 2, 16)
    assert (tmp_path / "grid.png").exists()
