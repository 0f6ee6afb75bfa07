"""``ddm train`` where numbers go wrong: said in one line, nothing of it saved, and what was saved stays."""

import math
from pathlib import Path

import pytest
import torch
from test_train import train

from ddm.diffusion import GaussianDiffusion
from ddm.runs import checkpoints
from ddm.training import Trainer
from kill_and_compare import records


def poison(monkeypatch: pytest.MonkeyPatch, calls: range) -> None:
    """These calls of the loss, counted from 1, give a NaN."""
    original, count = GaussianDiffusion.forward, 0

    def forward(self, *arguments, **options):
        nonlocal count
        count += 1
        return original(self, *arguments, **options) * (math.nan if count in calls else 1.0)

    monkeypatch.setattr(GaussianDiffusion, "forward", forward)


OPTIONS = ("--steps=60", "--every.log=5", "--every.save=2", "--every.sample=0", "--keep.last=2")


def test_a_few_are_told_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    poison(monkeypatch, range(7, 10))
    assert train(tmp_path, "a", "--steps=20", *OPTIONS[1:]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "step 10: 3 more steps were not finite and not applied; 20 in a row end the training" in said
    assert "step 8: no checkpoint, the last 2 steps were not finite" in said
    assert [each["skipped"] for each in records(tmp_path / "a")] == [0, 3, 3, 3]
    assert checkpoints.steps(tmp_path / "a" / "checkpoints") == [18, 20]


def test_too_many_end_it_and_the_last_good_checkpoints_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    poison(monkeypatch, range(8, 1000))
    assert train(tmp_path, "b", *OPTIONS) == 1
    run = tmp_path / "b"
    assert capsys.readouterr().err.splitlines()[-1] == (
        "ddm: at step 40: the last 33 steps had a loss or gradient that is not finite and were not applied; try a lower "
        f"train.lr, or train.precision bf16 or fp32, under another --name; {run} stands at its checkpoint of step 6"
    )
    assert checkpoints.steps(run / "checkpoints") == [4, 6]  # not pruned by ones that nobody could go on from
    monkeypatch.undo()
    assert train(tmp_path, "b", *OPTIONS) == 0
    assert "at step 6 of 60" in capsys.readouterr().err


def test_what_is_not_finite_ends_the_training_at_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Even where no step looked at it: going on would train for days what can never be saved."""
    original = Trainer._advance

    def advance(self):
        if self.step == 5:
            with torch.no_grad():
                next(self.ema.networks[0].parameters()).view(-1)[0] = math.inf
        return original(self)

    monkeypatch.setattr(Trainer, "_advance", advance)
    monkeypatch.setattr(Trainer, "_kept", lambda self: [torch.zeros(1)])
    assert train(tmp_path, "c", *OPTIONS) == 1
    assert "000006 was not saved: ema/" in (error := capsys.readouterr().err.splitlines()[-1])
    assert error.endswith(f"{tmp_path / 'c'} stands at its checkpoint of step 4")
    assert checkpoints.steps(tmp_path / "c" / "checkpoints") == [2, 4]
