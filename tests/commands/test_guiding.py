"""Guidance and clipping on the command line: ``--guide``, ``--guidance-low``, ``--guidance-high``, ``--clip``."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.cli import main
from ddm.commands.console import Console
from ddm.commands.training import train
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator
from ddm.runs.config import override
from ddm.runs.cost import evaluations_of
from ddm.runs.folder import read_config
from ddm.runs.recipes import recipes
from ddm.runs.sources import load

CHANGES = {
    "data": "shapes(count=32)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "train.lr": 0.03,
    "train.warmup": 0,
    "train.ema": ("power(width=0.1)", "constant(decay=0.5)"),
    "every.save": 2,
    "keep.last": 0,
    "sample.count": 1,
    "sample.steps": 3,
    "sample.guidance": 1.0,
}


def make_run(path: Path, **changes: object) -> Path:
    settings = CHANGES | {name.replace("__", "."): value for name, value in changes.items()}
    train(override(recipes["shapes"](), settings), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network that learned the same."""
    network = "residual_unet(width=4, mults=(1, 2), blocks=1)"
    return make_run(tmp_path_factory.mktemp("runs") / "small", network=network, train__steps=2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without labels."""
    return make_run(tmp_path_factory.mktemp("runs") / "plain", conditional=False)


def sample(*arguments: object) -> int:
    return main(["sample", *(str(each) for each in arguments), "--device=cpu"])


def made(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as stored:
        return stored["images"]


def last_line(capsys: pytest.CaptureFixture) -> str:
    err = capsys.readouterr().err.strip()
    assert "Traceback" not in err
    return err.splitlines()[-1]


# --- the guide


def test_a_guide_changes_the_pictures_and_is_on_record_without_a_path(run: Path, tmp_path: Path):
    assert sample(run, "--count=3", "--out", tmp_path / "a.npz") == 0
    assert sample(run, "--count=3", "--out", tmp_path / "b.npz", "--guide=2", "--guidance=2") == 0
    assert (made(tmp_path / "a.npz") != made(tmp_path / "b.npz")).any()
    guide = load(run / "checkpoints" / "000002", device="cpu")
    for text in ("2", run / "checkpoints" / "000002"):
        assert sample(run, "--count=3", "--out", f"{tmp_path}/c/", "--guide", text, "--guidance=2") == 0
        with Image.open(tmp_path / "c" / "000001.png") as picture:
            facts, line = picture.text["ddm"], picture.text["parameters"]
        assert "Guide scale: 2.0" in line and "CFG" not in line
        assert f'"guide": "step 2 ema {guide.digest[:16]}"' in facts and '"guidance_high": null' in facts
        assert "checkpoints" not in facts and str(tmp_path) not in facts and "tiny" not in facts
        json.loads(facts, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@pytest.mark.parametrize(
    ("text", "step", "weights"),
    [
        ("2", 2, "ema"),
        (2, 2, "ema"),
        ("raw", 4, "raw"),
        ("ema-1", 4, "ema-1"),
        ("2/raw", 2, "raw"),
        ("checkpoint", 2, "ema"),
        ("checkpoint/ema-1", 2, "ema-1"),
        ("RUN", 4, "ema"),
        ("RUN/raw", 4, "raw"),
    ],
)
def test_a_guide_is_a_step_or_weights_or_a_run(run: Path, text: str | int, step: int, weights: str):
    place = str(text).replace("checkpoint", f"{run}/checkpoints/000002").replace("RUN", str(run))
    guide = load(run / "checkpoints" / f"{step:06d}", weights=weights, device="cpu")
    model = load(run, device="cpu", guidance=2.0, guide=place if isinstance(text, str) else text)
    assert isinstance(model.generator, DiffusionGenerator) and isinstance(guide.generator, DiffusionGenerator)
    assert model.generator.settings()["guide"] == f"step {step} {weights} {guide.digest[:16]}"
    assert model.generator.guide is not None
    theirs, ours = guide.generator.diffusion.state_dict(), model.generator.guide.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_a_guide_has_the_weights_of_the_model(run: Path):
    for weights in ("raw", "ema-1"):
        model = load(run, weights=weights, guide=2, device="cpu")
        assert model.generator.settings()["guide"].startswith(f"step 2 {weights} ")


def test_another_network_guides_and_autoguidance_is_what_it_does(run: Path, small: Path):
    model = load(run, device="cpu", guide=small, guidance=3.0, sampler="ddim", steps=1)
    alone, guide = (load(each, device="cpu", guidance=1.0, sampler="ddim", steps=1) for each in (run, small))
    floats = [each.generator.floats([5, 6]) for each in (model, alone, guide)]  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(floats[0], floats[2] + 3 * (floats[1] - floats[2]))
    assert (floats[1] - floats[2]).abs().max() > 1e-3
    assert evaluations_of(model.generator) == 2


def test_a_model_without_labels_can_be_guided(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert sample(plain, "--count=2", "--guide=2", "--guidance=2", "--out", tmp_path / "a.npz") == 0
    assert sample(plain, "--count=2", "--guidance=2", "--out", tmp_path / "b.npz") == 2
    assert "sample.guidance: 2.0 is not allowed for a model without labels; allowed: 1, or with a guide" in last_line(
        capsys
    )


def test_a_guide_of_no_use_is_told(run: Path):
    for options, told in (({"guidance": 1.0, "guide": "2"}, "guidance is 1"), ({"guide": "4"}, "it is the model itse")):
        said: list[str] = []
        model = load(run, device="cpu", say=said.append, **{"guidance": 2.0, **options})
        (line,) = said
        assert line.startswith("guide   step ") and told in line
        assert torch.equal(model.sample(2), load(run, device="cpu", guidance=1.0).sample(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guide=3"], "guide: there is no checkpoint of step 3; allowed: 2, 4"),
        (["--guide=ema-7"], "guide: weights: 'ema-7' is unknown (did you mean 'ema-1'?); allowed: ema, ema-1, raw"),
        (["--guide=2/ema-7"], "guide: weights: 'ema-7' is unknown"),
        (["--guide=runs/none"], "guide: 'runs/none' is neither a run folder nor a checkpoint; known: cifar10"),
        (["--guide=diffusers:x"], "guide: 'diffusers:x' is not allowed; allowed: a step, weights such as raw, a run"),
        (["--guide=PLAIN"], "guide: its labels () are not allowed for a model of ('circle', "),
        (["--guidance-low=x"], "--guidance-low: invalid number value: 'x'"),
        (["--guidance-low=-1"], "guidance-low: -1.0 is not allowed; allowed: a number, 0 or more"),
        (["--guidance-low=nan"], "guidance-low: nan is not allowed; allowed: a number, 0 or more"),
        (["--guidance-low=none"], "guidance-low: None is not allowed; allowed: a number, 0 or more"),
        (["--guidance-low=3", "--guidance-high=3"], "guidance-high: 3.0 is not allowed; allowed: more than 3, or none"),
        (["--guidance-high=nan"], "guidance-high: nan is not allowed; allowed: more than 0, or none"),
        (["--clip=hard"], "sample.clip: 'hard' is unknown; allowed: dynamic, none, static"),
        (["--clip=dynamic(quantile=2)"], "sample.clip: dynamic(quantile=2): quantile must be less than or equal to 1"),
        (["--clip"], "--clip: expected one argument"),
    ],
)
def test_bad_requests_exit_2_with_one_line(
    run: Path,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    assert sample(run, *(each.replace("PLAIN", str(plain)) for each in arguments)) == 2
    assert message in last_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_step_needs_a_run_and_a_guide_must_be_sound(run: Path, tmp_path: Path):
    alone = Path(shutil.copytree(run / "checkpoints" / "000004", tmp_path / "moved"))
    with pytest.raises(RequestError, match="^guide: there is no checkpoint of step 2; allowed: none, this checkpoint"):
        load(alone, device="cpu", guide=2)
    assert load(alone, device="cpu", guide="raw").generator.settings()["guide"].startswith("step 4 raw ")
    file = alone / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RequestError, match=r"^guide: .*ema\.safetensors"):
        load(run, device="cpu", guide=alone)


# --- interval and clipping


def test_flags_reach_the_generator(run: Path, tmp_path: Path):
    guidance = 100.0  # so much that a network which has learned little goes beyond [-1, 1]
    base = load(run, device="cpu", guidance=guidance).sample(2)
    for flags in (["--guidance-low=1"], ["--guidance-high=1"], ["--clip=static"], ["--clip=dynamic(quantile=0.6)"]):
        assert sample(run, "--count=2", f"--guidance={guidance}", *flags, "--out", tmp_path / "a.npz") == 0
        assert (made(tmp_path / "a.npz") != base.permute(0, 2, 3, 1).numpy()).any(), flags
    every = ["--guidance-low=0", "--guidance-high=none", "--clip=none"]
    assert sample(run, "--count=2", f"--guidance={guidance}", *every, "--out", tmp_path / "a.npz") == 0
    assert (made(tmp_path / "a.npz") == base.permute(0, 2, 3, 1).numpy()).all()


def test_guidance_outside_its_interval_costs_one_evaluation(run: Path):
    everywhere = load(run, device="cpu", sampler="ddim", steps=6, guidance=4.0)
    nowhere = load(run, device="cpu", sampler="ddim", steps=6, guidance=4.0, guidance_low=200.0)
    assert (evaluations_of(everywhere.generator), evaluations_of(nowhere.generator)) == (12, 6)
    assert torch.equal(nowhere.sample(2), load(run, device="cpu", sampler="ddim", steps=6, guidance=1.0).sample(2))


def test_they_are_settings_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    flags = ["--sample.guidance-low", "0.2", "--sample.guidance_high", "5", "--sample.clip", "dynamic(quantile=0.9)"]
    assert main(["train", "shapes", "--dry-run", *flags]) == 0
    text = capsys.readouterr().out
    (tmp_path / "a.yaml").write_text(text)
    found = read_config(tmp_path / "a.yaml").sample
    assert (found.guidance_low, found.guidance_high, found.clip) == (0.2, 5.0, "dynamic(quantile=0.9)")
    assert main(["train", f"{tmp_path}/a.yaml", "-n", "--sample.guidance_high=none", "--sample.clip=none"]) == 0
    (tmp_path / "b.yaml").write_text(capsys.readouterr().out)
    found = read_config(tmp_path / "b.yaml").sample
    assert (found.guidance_high, found.clip) == (None, "none")


def test_a_run_samples_as_its_settings_say(tmp_path: Path):
    settings = {"sample__guidance": 3.0, "sample__guidance_low": 0.2, "sample__guidance_high": 5.0}
    run = make_run(tmp_path / "a", **settings, sample__clip="dynamic", train__steps=1)
    found = load(run, device="cpu").generator.settings()
    assert (found["guidance"], found["guidance_low"], found["guidance_high"], found["clip"]) == (
        3.0,
        0.2,
        5.0,
        "dynamic",
    )
    assert load(run, device="cpu", guidance_high=None).generator.settings()["guidance_high"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--sample.guidance_low=3", "--sample.guidance_high=2"],
            "sample.guidance_low: 3 is not allowed; allowed: 0 or",
        ),
        (["--sample.guidance_low=-1"], "sample.guidance_low: '-1' is not allowed; must be greater than or equal to 0"),
        (["--sample.guidance_high=inf"], "sample.guidance_high: 'inf' is not allowed; must be a finite number"),
        (["--sample.clip=dinamic"], "sample.clip: 'dinamic' is unknown (did you mean 'dynamic'?)"),
        (["--sample.clip=false"], "sample.clip: 'false' is unknown"),
    ],
)
def test_settings_that_cannot_be(flags: list[str], message: str, capsys: pytest.CaptureFixture):
    assert main(["train", "shapes", "--dry-run", *flags]) == 2
    assert message in last_line(capsys)


@pytest.mark.parametrize("old", ["false", "true", "null"])
def test_the_clip_of_old_settings_is_told(tmp_path: Path, capsys: pytest.CaptureFixture, old: str):
    assert main(["train", "shapes", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.count("  clip: none\n") == 1
    (tmp_path / "old.yaml").write_text(text.replace("  clip: none\n", f"  clip: {old}\n"))
    assert main(["train", f"{tmp_path}/old.yaml", "--dry-run"]) == 2
    assert "is not allowed; allowed: none, static or dynamic(quantile=0.995)" in last_line(capsys)
