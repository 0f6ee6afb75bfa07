"""A training that begins with the weights of another: once, of the same network, and towards consistency."""

from pathlib import Path

import pytest
import torch

from ddm.cli import main
from ddm.runs import checkpoints

TINY = [
    "shapes",
    "--data=shapes(count=32)",
    "--image-size=8",
    "--network=residual_unet(width=8, mults=(1, 2), blocks=1)",
    "--batch-size=4",
    "--every.save=2",
    "--every.sample=0",
    "--sample.steps=3",
    "--device=cpu",
    "--quiet",
]


def train(*arguments: str) -> int:
    return main(["train", *TINY, *arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert train("--name=first", "--steps=4", f"--runs={folder}") == 0
    return folder


def weights(run: Path, step: int, group: str) -> dict[str, torch.Tensor]:
    return checkpoints.load(checkpoints.place_of(run / "checkpoints", step), groups=[group]).tensors[group]


def test_it_begins_where_the_other_ended(runs: Path, capsys: pytest.CaptureFixture):
    """With a learning rate of nearly nothing the first step leaves the other's averaged weights as they were."""
    assert train("--name=second", "--steps=1", f"--runs={runs}", f"--init={runs}/first", "--lr=1e-12") == 0
    start = weights(runs / "first", 4, "ema")
    for group in ("weights", "ema"):
        found = weights(runs / "second", 1, group)
        assert all(torch.allclose(found[name], start[name], atol=1e-9) for name in start)


def test_resuming_takes_the_runs_own_weights(runs: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed after step 2 and started again it ends as it would have, though the other run is gone meanwhile."""
    monkeypatch.chdir(runs)
    (runs / "other").mkdir()
    whole = ["--steps=4", f"--runs={runs}", "--init=first"]
    assert train("--name=whole", *whole) == 0
    (runs / "whole" / "checkpoints" / "000004").rename(runs / "other" / "000004")
    (runs / "first").rename(runs / "gone")
    assert train("--name=whole", *whole) == 0
    (runs / "gone").rename(runs / "first")
    again, before = weights(runs / "whole", 4, "ema"), checkpoints.load(runs / "other" / "000004").tensors["ema"]
    assert all(torch.equal(again[name], before[name]) for name in before)


def test_towards_consistency(runs: Path):
    task = ["--task=consistency(stages=2)", "--sample.sampler=consistency", "--sample.steps=1"]
    assert train("--name=tuned", "--steps=4", f"--runs={runs}", f"--init={runs}/first", *task) == 0
    assert main(["sample", f"{runs}/tuned", "--count=2", f"--out={runs}/tuned.png", "--device=cpu", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init=nothing"], "init: 'nothing' is neither a run folder nor a checkpoint"),
        (["--init=npz:a.npz"], "init: 'npz:a.npz' is not allowed; allowed: a run or a checkpoint"),
        (["--objective=eps"], "is of another model: objective is 'x0' there and 'eps' in this run"),
        (["--task=consistensy"], "task: 'consistensy' is unknown (did you mean 'consistency'?)"),
        (["--task=consistency(factor=1)"], "task: consistency(factor=1): factor must be greater than 1"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_made(
    runs: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
):
    init = [] if arguments[0].startswith("--init") else [f"--init={runs}/first"]
    assert train("--name=never", "--steps=2", f"--runs={runs}", *init, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (runs / "never").exists()
