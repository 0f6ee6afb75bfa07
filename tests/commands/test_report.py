"""``ddm report`` as a user meets it, on runs that were really trained."""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddm.cli import main
from ddm.commands.console import Console
from ddm.commands.training import train
from ddm.images import grid, save_png
from ddm.runs.config import override
from ddm.runs.manifest import read_manifest
from ddm.runs.recipes import recipes
from ddm.runs.sources import load
from pages import Page, check

CHANGES = {
    "data": "shapes(count=60)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 6,
    "train.flip": True,
    "every.log": 2,
    "every.save": 3,
    "every.sample": 2,
    "sample.count": 16,
    "sample.steps": 3,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


def make_run(path: Path, **changes: object) -> Path:
    settings = override(
        recipes["shapes"](), CHANGES | {name.replace("__", "."): each for name, each in changes.items()}
    )
    train(settings, path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("where-it-was-trained") / "tiny")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of the test's own."""
    return Path(shutil.copytree(trained, tmp_path / "somewhere" / "tiny"))


def report(*arguments: object) -> int:
    return main(["report", *(str(each) for each in arguments), "--device=cpu"])


def test_one_file_shows_the_run(run: Path, capsys: pytest.CaptureFixture):
    assert report(run) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(run / "report.html") and "one file that needs no other" in err
    html = (run / "report.html").read_text(encoding="utf-8")
    page = check(html)
    assert str(run.parent) not in html and os.environ["HOME"] + "/" not in re.sub(r"base64,[\w+/=]+", "", html)
    for words in ("tiny", "6 of 6, finished", "Images seen 24 until", "Newest checkpoint 6 weights: ema"):
        assert words in page.text, words
    assert [slider["max"] for slider in page.all("input")] == ["2"]  # steps 2, 4 and 6
    alts = [picture["alt"] for picture in page.all("img")]
    assert [each for each in alts if "at step" in each] == [f"pictures of seeds 0 to 15 at step {n}" for n in (2, 4, 6)]
    assert "samples of seeds 0 to 63, eight in a row" in alts
    assert alts.count("4 pictures, noise") == 1 and alts.count("4 pictures, step 3") == 1
    assert sum(each.startswith("sample of seed") for each in alts) == 8
    assert sum(each.startswith("training picture") for each in alts) == 24
    files = read_manifest(run / "checkpoints" / "000006").files
    assert {"ema.safetensors", "weights.safetensors"} <= files.keys()
    assert all(about["sha256"] in page.text for name, about in files.items() if name.endswith(".safetensors"))
    state = json.loads((run / "checkpoints" / "000006" / "state.json").read_text())
    assert state["pictures"]["digest"] in page.text


def test_the_samples_are_those_of_the_seeds(run: Path):
    assert report(run) == 0
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    (samples,) = [each["src"] for each in page.all("img") if each["alt"].startswith("samples of seeds")]
    with Image.open(io.BytesIO(base64.b64decode(samples.partition(",")[2]))) as image:
        levels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        pixels = levels.view(image.height, image.width, 3).permute(2, 0, 1)
    wanted = load(run, device="cpu").sample(64)
    for seed in (0, 7, 8, 63):
        top, left = seed // 8 * 9, seed % 8 * 9
        assert torch.equal(pixels[:, top : top + 8, left : left + 8], wanted[seed])


def test_json_and_another_place(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    place = tmp_path / "new" / "page.html"
    assert report(run, "--out", place, "--json", "--quiet") == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert err == "" and facts["out"] == str(place) and facts["bytes"] == place.stat().st_size
    assert (facts["step"], facts["total"], facts["images"]) == (6, 6, 24)
    assert not (run / "report.html").exists()


def test_in_the_middle_of_training(run: Path, capsys: pytest.CaptureFixture):
    """As a run looks while another process has just pruned and has not saved again."""
    shutil.rmtree(run / "checkpoints" / "000006")
    shutil.rmtree(run / "samples")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # being written
    assert report(run) == 0
    words = check((run / "report.html").read_text(encoding="utf-8")).text
    assert "Newest checkpoint 3" in words and "There is no grid of the training yet" in words
    shutil.rmtree(run / "checkpoints")
    assert report(run) == 0
    words = check((run / "report.html").read_text(encoding="utf-8")).text
    assert words.count("There is no checkpoint that can be used yet") == 3 and "Step 6 of 6" in words


def test_training_pictures_that_are_gone_or_others(tmp_path: Path, capsys: pytest.CaptureFixture):
    cats = tmp_path / "anna-of-the-tests" / "cats"
    for number in range(12):
        save_png(cats / f"{number}.png", torch.full((3, 8, 8), number * 9, dtype=torch.uint8))
    run = make_run(tmp_path / "a", data=f'folder(path="{cats}")', conditional=False, sample__guidance=1.0)
    assert report(run) == 0
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "anna-of-the-tests" not in html
    assert sum(str(each["alt"]).startswith("training picture") for each in check(html).all("img")) == 24
    (cats / "0.png").unlink()
    assert report(run) == 0
    assert "no longer holds the pictures of the training" in capsys.readouterr().err
    shutil.rmtree(cats)
    assert report(run) == 0
    assert str(cats) in capsys.readouterr().err, "the reason is for the one at the terminal"
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "The training pictures cannot be read where this page was made" in check(html).text
    assert "anna-of-the-tests" not in html and 'ddm data folder(path="…")' in check(html).text


def test_a_checkpoint_that_makes_no_pictures(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr("ddm.diffusion.GaussianDiffusion.denoise", lambda _, x, *__, **___: x * float("nan"))
    assert report(run) == 0
    assert "not finite" in capsys.readouterr().err
    assert "no checkpoint that can be used" in check((run / "report.html").read_text(encoding="utf-8")).text


def test_hostile_names_of_classes_and_run(tmp_path: Path):
    for name in ("<b>", "&amp;'\""):
        for number in range(3):
            save_png(tmp_path / "pictures" / name / f"{number}.png", torch.full((3, 8, 8), number, dtype=torch.uint8))
    run = make_run(tmp_path / "<script>alert(1)<∕script>", data=f'folder(path="{tmp_path / "pictures"}")')
    assert report(run) == 0
    page = check((run / "report.html").read_text(encoding="utf-8"))
    assert "The classes take turns: &amp;'\", <b>." in page.text
    assert "<script>alert(1)<∕script>" in page.text


def test_gray_pictures(tmp_path: Path):
    for number in range(5):
        save_png(tmp_path / "pictures" / f"{number}.png", torch.full((1, 8, 8), number * 50, dtype=torch.uint8))
    data = f'folder(path="{tmp_path / "pictures"}", mode="L")'
    run = make_run(tmp_path / "gray", data=data, conditional=False, sample__guidance=1.0)
    assert report(run) == 0
    assert "pictures of seeds 0 to 15 at step 6" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "source: 'nowhere' is not a run: it has no config.yaml"),
        (("RUN", "--out=page.txt"), "out: 'page.txt' is not allowed; allowed: a .html file"),
        (("RUN", "--out=."), "out: '.' is not allowed; allowed: a .html file"),
        (("RUN", "--count=3"), "--count: there is no such argument"),
    ],
)
def test_wrong_requests(run: Path, arguments: tuple, message: str, capsys: pytest.CaptureFixture):
    assert report(*(run if each == "RUN" else each for each in arguments)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_place_that_cannot_be_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").write_text("")
    assert report(run, "--out", tmp_path / "file" / "x.html") == 1
    assert "Not a directory" in capsys.readouterr().err.splitlines()[-1]


def test_the_page_of_pictures_like_cifar10_is_small(tmp_path: Path):
    """20 grids of 64 pictures of 32x32 and 18 steps of a sampler; noise is the worst that there can be."""
    sizes = {"image_size": 32, "train__steps": 1, "every__sample": 0, "sample__count": 64, "sample__steps": 18}
    cheap = {"conditional": False, "sample__guidance": 1.0, "sample__sampler": "ddim"}
    run = make_run(tmp_path / "a", **sizes, **cheap)
    for step in range(20):
        noise = torch.randint(256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(step)).byte()
        save_png(run / "samples" / f"{step:06d}.png", grid(noise, scale=2))
    assert report(run) == 0
    page = check((run / "report.html").read_text(encoding="utf-8"))
    assert [slider["max"] for slider in page.all("input")] == ["19"]
    assert (run / "report.html").stat().st_size < 5e6
