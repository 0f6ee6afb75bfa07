import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import ddm as package
from ddm.cli import main
from ddm.commands import films
from ddm.commands.console import Console
from ddm.commands.films import FRAMES, thinned, write_film
from ddm.commands.training import train
from ddm.diffusion import Step
from ddm.generators import DiffusionGenerator
from ddm.images import to_pil
from ddm.runs.config import override
from ddm.runs.recipes import recipes

CHANGES = {
    "data": "shapes(count=32)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "every.save": 2,
    "sample.count": 4,
    "sample.steps": 3,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    train(override(recipes["shapes"](), CHANGES), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


def sample(*arguments: object) -> int:
    return main(["sample", *(str(each) for each in arguments), "--device=cpu"])


def pictures(path: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(each)) for each in sorted(path.glob("*.png"))]


def test_grid_folder_and_npz_hold_the_same_pictures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert sample(run, "--count=5", "--out", tmp_path / "a.png") == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "a.png")
    assert "5 pictures in" in err
    assert sample(run, "--count=5", "--out", tmp_path / "a.npz") == 0
    assert sample(run, "--count=5", "--out", f"{tmp_path}/a/", "--batch-size=2", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["count"] == 5
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        images, seeds, labels, said = (stored[name] for name in ("images", "seeds", "labels", "ddm"))
    with Image.open(tmp_path / "a.png") as sheet:
        of_sheet = json.loads(sheet.text["ddm"])
    assert (said.shape, said.dtype.kind, labels.tolist()) == ((), "U", [0, 1, 2, 3, 4])
    assert json.loads(str(said)) == {**of_sheet, "layout": "array"}
    assert of_sheet["labels"] == [0, 1, 2, 3, 4], "of every picture, where all take turns"
    assert images.shape == (5, 8, 8, 3)
    assert images.dtype == np.uint8
    assert seeds.tolist() == [0, 1, 2, 3, 4]
    # Another batch size may round a level differently, no more.
    assert np.abs(np.stack(pictures(tmp_path / "a")).astype(int) - images).max() <= 1
    with Image.open(tmp_path / "a" / "000003.png") as picture:
        facts, line = json.loads(picture.text["ddm"]), picture.text["parameters"]
    assert (facts["seed"], facts["sampler"], facts["steps"], facts["step"]) == (3, "heun", 3, 4)
    assert line.startswith("Steps: 3, Sampler: heun, CFG scale: 2.0, Seed: 3, Size: 8x8, Model hash: ")
    assert str(tmp_path) not in str(facts)
    with Image.open(tmp_path / "a.png") as sheet:
        first = np.asarray(sheet)[12:108:12, 12:108:12]
    assert (first == images[0]).all()


def test_the_same_seed_is_the_same_picture_in_a_batch_of_1_and_of_16(run: Path):
    model = package.load(run, device="cpu")
    many = model.sample(16, seed=0)
    for seed in (0, 7, 15):
        alone = model.sample(1, seed=seed)
        assert (alone[0].int() - many[seed].int()).abs().max() <= 1
    assert not torch.equal(many[0], many[6])


def test_films_show_every_step(run: Path, tmp_path: Path):
    for name in ("film.gif", "film.webp"):
        assert sample(run, "--count=4", "--steps=5", "--out", tmp_path / name) == 0
        with Image.open(tmp_path / name) as film:
            # Noise and five guesses; Pillow leaves out a frame that equals the one before, as this tiny model has some.
            assert 1 < sum(1 for _ in ImageSequence.Iterator(film)) <= 6
    with Image.open(tmp_path / "film.webp") as film:
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"))
    model = package.load(run, device="cpu", steps=5)
    first = np.asarray(to_pil(model.sample(1)[0]))
    assert np.abs(last[12:108:12, 12:108:12].astype(int) - first).max() <= 2  # the last x0 against the last x


FAKE_FFMPEG = """#!{python}
import sys
given = sys.argv[1:]
size = given[given.index("-s") + 1]
data = sys.stdin.buffer.read()
open(given[-1], "w").write(" ".join([size, given[given.index("-pix_fmt") + 1], str(len(data)), *given]))
if {fails}:
    sys.exit("no such encoder")
"""


def put_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
    """A program of that name which writes down what it is told."""
    folder.mkdir()
    (folder / "ffmpeg").write_text(FAKE_FFMPEG.format(python=sys.executable, fails=fails))
    (folder / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_video_is_piped_to_ffmpeg_in_even_frames(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_ffmpeg(tmp_path / "bin", monkeypatch)
    # 7 pictures in 3 columns and rows: 3 * 9 * 12 + 12 = 336 pixels a side; 1 of them: 120.
    assert sample(run, "--count=7", "--steps=5", "--out", tmp_path / "a.mp4") == 0
    size, kind, length, *told = (tmp_path / "a.mp4").read_text().split()
    assert (size, kind) == ("336x336", "rgb24")
    frames = 6 + 7  # noise and five steps of 333 ms, and the last held for two seconds
    assert int(length) == frames * 336 * 336 * 3
    assert told[told.index("-framerate") + 1] == "1000/333"
    assert "yuv420p" in told and "libx264" in told
    odd = torch.zeros(3, 5, 7, dtype=torch.uint8)
    write_film(tmp_path / "b.mp4", [odd, odd])
    size, _, length, *_ = (tmp_path / "b.mp4").read_text().split()
    assert size == "8x6" and int(length) % (8 * 6 * 3) == 0


def test_what_ffmpeg_says_is_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    put_ffmpeg(tmp_path / "bin", monkeypatch, fails=True)
    assert sample(run, "--count=1", "--out", tmp_path / "a.mp4") == 1
    assert last_line(capsys) == f"ddm: {tmp_path}/a.mp4 was not written: ffmpeg: no such encoder"
    assert not (tmp_path / "a.mp4").exists()


def test_without_ffmpeg_there_is_no_video(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sample(run, "--out", tmp_path / "a.mp4") == 2
    assert "a.mp4' needs the program ffmpeg, which is not there; allowed: a .webp or .gif file" in last_line(capsys)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_video_shows_the_pictures(run: Path, tmp_path: Path):
    assert sample(run, "--count=1", "--steps=5", "--out", tmp_path / "a.mp4") == 0
    command = ["ffmpeg", "-loglevel", "error", "-i", tmp_path / "a.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    frames = np.frombuffer(data, np.uint8).reshape(-1, 120, 120, 3)
    assert len(frames) == 6 + 7
    expected = np.asarray(to_pil(package.load(run, device="cpu", steps=5).sample(1)[0]))
    # In the middle of each enlarged pixel: colour has half the resolution. Brightness is kept, hue nearly.
    middle = frames[-1][18:108:12, 18:108:12].astype(int)
    assert np.abs(middle.mean(axis=2) - expected.mean(axis=2)).max() < 12


def test_long_films_are_thinned_evenly_and_keep_both_ends():
    for count in (1, 2, 3, 149, 150, 151, 300, 1001, 5000):
        made = iter(torch.tensor([[[number]]]) for number in range(count))
        numbers = [int(frame) for frame in thinned(made)]
        assert numbers[0] == 0 and numbers[-1] == count - 1
        assert len(numbers) <= FRAMES and len(numbers) >= min(count, FRAMES // 2)
        assert len(set(np.diff(numbers[:-1]))) <= 1, "evenly but for the last"


def test_large_frames_are_thinned_further_and_never_held_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(films, "BYTES", 1000)
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def made() -> Iterator[torch.Tensor]:
        nonlocal most
        for number in range(200):
            frame = torch.full((100,), number, dtype=torch.uint8)
            alive.add(frame)
            most = max(most, len(alive))
            yield frame

    kept = thinned(made())
    assert [int(kept[0][0]), int(kept[-1][0])] == [0, 199]
    assert len(kept) <= 10 and most <= 12


def test_films_of_too_many_pixels_are_refused_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("torch.nn.Conv2d.forward", None)
    monkeypatch.setitem(films.LARGEST, ".webp", 300)
    assert sample(run, "--count=9", "--out", tmp_path / "a.webp") == 2
    assert "out: frames of 336x336 pixels are not allowed; allowed: up to 300 a side in a .webp file" in last_line(
        capsys
    )


def test_options_change_the_pictures(run: Path):
    base = package.load(run, device="cpu").sample(2)
    for option in (
        {"sampler": "ddpm"},
        {"sampler": "heun(churn=40)"},
        {"steps": 6},
        {"grid": "trailing"},
        {"guidance": 3.0},
        {"weights": "raw"},
    ):
        assert not torch.equal(package.load(run, device="cpu", **option).sample(2), base), option


def test_labels_are_asked_for_by_name(run: Path):
    model = package.load(run, device="cpu", guidance=4.0)
    assert "star" in model.classes
    star, circle = model.sample(1, label="star"), model.sample(1, label="circle")
    assert not torch.equal(star, circle)
    assert torch.equal(model.sample(1, seed=0), model.sample(1, seed=0, label=model.classes[0]))


def test_a_checkpoint_folder_is_a_source_too(run: Path, tmp_path: Path):
    assert sample(run / "checkpoints" / "000002", "--count=1", "--out", tmp_path / "c.png") == 0


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    return copy


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    truncate(broken / "checkpoints" / "000004" / "ema.safetensors")
    assert sample(broken, "--count=1", "--out", tmp_path / "o.png") == 0
    err = capsys.readouterr().err
    assert "ema.safetensors" in err
    assert "000002" in err
    assert (broken / "checkpoints" / "000004").exists()  # only the process that trains renames


def last_line(capsys: pytest.CaptureFixture) -> str:
    err = capsys.readouterr().err.strip()
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_no_sound_checkpoint_at_all(broken: Path, capsys: pytest.CaptureFixture):
    for step in ("000002", "000004"):
        truncate(broken / "checkpoints" / step / "ema.safetensors")
    assert sample(broken) == 2
    assert "has no checkpoint" in last_line(capsys)


def test_a_checkpoint_of_another_network_is_refused(broken: Path, capsys: pytest.CaptureFixture):
    config = broken / "config.yaml"
    config.write_text(config.read_text().replace("width=8", "width=16"))
    assert sample(broken) == 2
    line = last_line(capsys)
    assert "is of another model: network is 'residual_unet(width=8" in line
    assert "'residual_unet(width=16" in line


def test_a_run_of_a_newer_format_is_refused(broken: Path, capsys: pytest.CaptureFixture):
    config = broken / "config.yaml"
    config.write_text(config.read_text().replace("format: 1", "format: 99"))
    assert sample(broken) == 2
    assert "format: 99 was made by a newer ddm; allowed: 1 to 1" in last_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler=huen"], "sample.sampler: 'huen' is unknown (did you mean 'heun'?); allowed: adaptive, "),
        (["--sampler=heun(chrn=4)"], "sample.sampler: option of heun: 'chrn' is unknown (did you mean 'churn'?)"),
        (["--steps=0"], "steps: 0 is not allowed; allowed: 1 or more"),
        (["--count=-1"], "count: -1 is not allowed; allowed: 1 or more"),
        (["--count=x"], "--count: invalid int value: 'x'"),
        (["--guidance=nan"], "guidance: nan is not allowed; allowed: 0 or more"),
        (["--grid=karras(low=100)"], "sample.grid: 'karras(low=100)' does not descend between"),
        (["--out=/dev/null/x.png"], "out: '/dev/null/x.png' cannot be made: "),
        (["--seed=-1"], "seed: -1 is not allowed; allowed: 0 or more"),
        (["--label=sta"], "label: 'sta' is unknown (did you mean 'star'?)"),
        (["--weights=ema-7"], "weights: 'ema-7' is unknown (did you mean 'ema'?); allowed: ema, raw"),
        (["--out=a.jpg"], "out: 'a.jpg' is not allowed; allowed: a .png, .npz, .gif, .webp or .mp4 file, or a folder/"),
        (
            ["--grid=trailing", "--steps=2000"],
            "sample.steps: 2000 is not allowed with the trailing grid; allowed: 1 to 1000",
        ),
        (["--device=tpu"], "device: 'tpu' is unknown"),
        (["--stepz=3"], "--stepz: there is no such argument (did you mean --steps?)"),
    ],
)
def test_bad_requests_exit_2_with_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list,
    message: str,
):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", str(run), *arguments]) == 2
    assert message in last_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_missing_and_wrong_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    assert sample("runs/none") == 2
    assert "source: 'runs/none' is neither a run folder nor a checkpoint; known: cifar10" in last_line(capsys)
    (tmp_path / "empty").mkdir()
    assert sample("empty") == 2
    assert "source: 'empty' is neither" in last_line(capsys)
    assert sample() == 2
    assert "the following arguments are required: SOURCE" in last_line(capsys)


# --- sources that are no runs


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    diffusers: Any = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, **blocks
    )
    path = tmp_path_factory.mktemp("pipelines") / "theirs"
    diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(num_train_timesteps=100)).save_pretrained(path)
    return path


def test_a_pipeline_gives_a_grid_a_folder_and_an_npz(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    source, out = f"diffusers:{pipeline}", tmp_path / "out"
    options = ("--count=5", "--steps=4", "--seed=2")
    for name in ("a.png", "a.npz", "a/"):
        assert sample(source, *options, "--out", f"{out}/{name}", "--batch-size=2") == 0
    assert "model   theirs\n" in capsys.readouterr().err
    with np.load(out / "a.npz", allow_pickle=False) as stored:
        images = stored["images"]
        assert stored["seeds"].tolist() == [2, 3, 4, 5, 6]
    expected = package.load(source, device="cpu", steps=4).sample(5, seed=2).permute(0, 2, 3, 1).numpy()
    assert np.abs(images.astype(int) - expected).max() <= 1
    assert (np.stack(pictures(out / "a")) == images).all()
    with Image.open(out / "a" / "000003.png") as picture:
        facts, line = json.loads(picture.text["ddm"]), picture.text["parameters"]
    assert (facts["kind"], facts["pipeline"], facts["steps"], facts["seed"]) == ("diffusers", "DDIMPipeline", 4, 3)
    assert line.startswith("Steps: 4, Sampler: DDIMScheduler, Seed: 3, Size: 8x8, Model hash: ")
    assert str(pipeline.parent) not in str(facts) and "theirs" not in str(facts), "never a name of the user's"


def test_what_was_sampled_is_a_source_itself(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for name in ("made.npz", "made/"):
        assert sample(run, "--count=5", "--out", f"{tmp_path}/{name}") == 0
    made = package.load(run, device="cpu").sample(5)
    for source in (f"npz:{tmp_path}/made.npz", f"folder:{tmp_path}/made"):
        assert torch.equal(package.load(source, image_size=8).sample(5), made)
        assert sample(source, "--image-size=8", "--batch-size=2", "--json", "--out", tmp_path / "again.npz") == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (result["count"], result["checkpoint"]) == (5, None), "as many as there are"
        with np.load(tmp_path / "again.npz", allow_pickle=False) as stored:
            assert (stored["images"] == made.permute(0, 2, 3, 1).numpy()).all()


def test_the_sheet_is_named_after_the_source(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert sample("data:shapes(count=3)", "--image-size=8") == 0
    assert sample(f"diffusers:{pipeline}", "--count=1", "--steps=1") == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["shapes.png", "theirs.png"]
    with Image.open("shapes.png") as sheet:
        assert json.loads(sheet.text["ddm"])["count"] == 3


def test_resized_pictures_are_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert sample(f"folder:{tmp_path}", "--out", tmp_path / "b.npz") == 0
    assert "has pictures of 8x8; they are cropped and resized to 32x32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        (
            "diffusers:theirs",
            ["--out=film.webp"],
            "out: 'film.webp' is not allowed for diffusers: sources, whose denoising is",
        ),
        (
            "folder:x",
            ["--out=FILM.GIF"],
            "out: 'FILM.GIF' is not allowed for folder: sources, whose denoising is not seen; ",
        ),
        (
            "diffusers:theirs",
            ["--sampler=ddim"],
            "sampler: 'ddim' is not allowed for diffusers: sources; allowed: steps",
        ),
        ("diffusers:theirs", ["--label=cat"], "label: 'cat' is unknown; allowed: none: this model has no labels"),
        ("diffusers:theirs", ["--steps=101"], "steps: 101 is not allowed: "),
        ("diffusers:nowhere/none", [], "is neither a folder here nor in the hub's cache"),
        ("data:shapes(count=3)", ["--count=4"], "seed: 3 is not allowed; there are 3 pictures, 0 to 2"),
        ("data:shapes(count=3)", ["--seed=3"], "seed: 3 is not allowed; there are 3 pictures, 0 to 2"),
        ("data:shapes", ["--label=star"], "label: stored pictures cannot be asked for by class; allowed: none"),
        ("data:shapes", ["--image-size=0"], "image-size: 0 is not allowed; allowed: 1 or more"),
        ("data:shapes", ["--clip=none"], "clip: 'none' is not allowed for data: sources"),
        ("folder:none", [], "source: folder(path='none'): none is not there"),
        ("npz:", [], "source: 'npz:' names nothing; write npz: and then what is meant"),
    ],
)
def test_bad_requests_of_other_sources(
    pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    source: str,
    arguments: list,
    message: str,
):
    monkeypatch.chdir(tmp_path)
    source = source.replace("theirs", str(pipeline))
    assert main(["sample", source, *arguments]) == 2
    assert message in last_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_are_not_finite_are_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    stream = DiffusionGenerator.stream

    def spoiled(self: DiffusionGenerator, seeds: range, labels: object = None) -> Iterator[Step]:
        for step in stream(self, seeds, labels):
            bad = torch.tensor([seed == 3 for seed in seeds])[:, None, None, None]
            yield Step(step.x.masked_fill(bad, torch.nan), step.x0.masked_fill(bad, torch.nan))

    monkeypatch.setattr(DiffusionGenerator, "stream", spoiled)
    for name in ("a.png", "a.npz", "a.gif"):
        assert sample(run, "--count=5", "--out", tmp_path / name) == 1
        assert last_line(capsys).startswith("ddm: the picture of seed 3 is not finite: ")
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch():
    code = "import sys; from ddm.cli import main\ntry: main(['sample', '--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
