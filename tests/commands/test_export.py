"""A run that is given away makes the same pictures, tells nothing of where it was made, and is found by its name."""

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
from ddm.images import save_png
from ddm.runs import checkpoints, naming, searched
from ddm.runs.config import override
from ddm.runs.naming import named, shipped
from ddm.runs.recipes import recipes
from ddm.runs.shipping import export
from ddm.runs.sources import load

CHANGES = {
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "train.ema": ("power(width=0.1)", "power(width=0.05)"),
    "conditional": False,
    "every.save": 2,
    "every.sample": 0,
    "sample.guidance": 1.0,
    "sample.steps": 3,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    secret = tmp_path_factory.mktemp("secret")
    for number in range(4):
        save_png(secret / f"{number}.png", torch.full((3, 8, 8), 60 * number, dtype=torch.uint8))
    path = tmp_path_factory.mktemp("runs") / "tiny"
    config = override(recipes["shapes"](), {**CHANGES, "data": f'folder(path="{secret}")'})
    train(config, path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


@pytest.mark.parametrize("weights", ["ema", "ema-1", "raw"])
def test_the_copy_makes_the_same_pictures_but_for_rounding(run: Path, tmp_path: Path, weights: str):
    made = export(run, tmp_path / "gift", weights=weights)
    ours, theirs = (load(each, weights=name, device="cpu") for each, name in ((run, weights), (made.path, "ema")))
    difference = (ours.sample(8).int() - theirs.sample(8).int()).abs()
    assert difference.max() <= 1
    assert ours.step == theirs.step == 4
    assert checkpoints.steps(made.checkpoints) == [4]


def test_the_copy_is_small_and_says_nothing_of_this_machine(run: Path, tmp_path: Path):
    made = export(run, tmp_path / "gift")
    files = {each.name: each for each in made.path.rglob("*") if each.is_file()}
    assert set(files) == {"config.yaml", "manifest.json", "state.json", "ema.safetensors"}
    for name in ("config.yaml", "manifest.json", "state.json"):
        assert "secret" not in files[name].read_text()
        assert "/" not in files[name].read_text().replace("uint8/", "")
    full = (checkpoints.place_of(run / "checkpoints", 4) / "ema.safetensors").stat().st_size
    assert files["ema.safetensors"].stat().st_size < 0.7 * full  # the header is as long


def test_searched_grids_go_with_the_weights(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(searched, "PICTURES", 2)
    monkeypatch.setattr(searched, "LEVELS", 8)
    monkeypatch.setattr(searched, "MOST", 4)
    asked = load(run, device="cpu", grid="searched", steps=3, sampler="ddim").generator
    (run / "grids.json").rename(tmp_path / "aside")
    bare = export(run, tmp_path / "bare")
    shutil.copy(tmp_path / "aside", run / "grids.json")
    gift = export(run, tmp_path / "gift")
    (run / "grids.json").unlink()
    found, without = (load(each.path, device="cpu", steps=3, sampler="ddim").generator for each in (gift, bare))
    assert isinstance(asked, DiffusionGenerator) and isinstance(found, DiffusionGenerator)
    assert isinstance(without, DiffusionGenerator)
    assert torch.equal(found.grid, asked.grid) and not torch.equal(without.grid, asked.grid)
    assert not (bare.path / "grids.json").exists()


def test_weights_too_large_for_half_precision_are_refused(run: Path, tmp_path: Path):
    loaded = checkpoints.load(checkpoints.place_of(run / "checkpoints", 4))
    next(iter(loaded.tensors["ema"].values())).view(-1)[0] = 1e6
    path = checkpoints.save(tmp_path / "checkpoints", 4, loaded.tensors, loaded.state)
    with pytest.raises(checkpoints.NotFinite, match=r"ema/.* holds a NaN or an infinity"):
        export(path, tmp_path / "gift")


def test_what_is_there_is_never_replaced(run: Path, tmp_path: Path):
    (tmp_path / "gift").mkdir()
    with pytest.raises(RequestError, match=r"out: '.*gift' is there already"):
        export(run, tmp_path / "gift")


def test_the_command_and_the_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "shipped/toy"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == "shipped/toy"
    assert err.strip().endswith("next: ddm sample shipped/toy")
    monkeypatch.setattr(naming, "SHIPPED", tmp_path / "shipped")
    assert list(shipped()) == ["toy"]
    assert main(["sample", "toy", "--count=2", "--device=cpu", "--quiet"]) == 0
    assert main(["sample", "--again", "toy.png", "--out=again.png", "--device=cpu", "--quiet"]) == 0
    assert np.array_equal(*(np.asarray(Image.open(name)) for name in ("toy.png", "again.png")))
    measure = [
        "evaluate",
        "toy",
        "--metrics=kid",
        "--features=efficientnet(size=32)",
        "--images=4",
        "--device=cpu",
        "--quiet",
    ]
    assert main([*measure, f"--reference={load(run, device='cpu').config.data}"]) == 0
    assert not Path("shipped/toy/evaluations.jsonl").exists(), "the package is not written to"
    Path("toy").mkdir()
    assert named("toy").text == "toy", "what the user has goes first"
    assert main(["sample", "cat"]) == 2
    assert "; known: toy" in capsys.readouterr().err
