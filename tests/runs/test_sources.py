"""Everything that may stand where a model is named."""

import hashlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddm
from ddm.commands.console import Console
from ddm.commands.training import train
from ddm.data import get_data
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, FixedPictures, PipelineGenerator
from ddm.images import save_png
from ddm.runs.config import override
from ddm.runs.naming import Named, named
from ddm.runs.recipes import recipes
from ddm.runs.sources import load

CHANGES = {
    "data": "shapes(count=8)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 2,
    "every.save": 1,
    "sample.count": 1,
    "sample.steps": 2,
}
PIXELS = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    train(override(recipes["shapes"](), CHANGES), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, picture in enumerate(PIXELS):
        save_png(tmp_path / "pictures" / ("a", "b")[number // 3] / f"{number}.png", picture)
    return tmp_path / "pictures"


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.savez(tmp_path / "made.npz", images=PIXELS.permute(0, 2, 3, 1).numpy(), seeds=np.arange(6))
    return tmp_path / "made.npz"


# --- names


@pytest.mark.parametrize(
    ("source", "kind", "text", "stem"),
    [
        ("runs/edm", "run", "runs/edm", "edm"),
        ("runs/edm/checkpoints/000002", "run", "runs/edm/checkpoints/000002", "000002"),
        ("./data:x", "run", "./data:x", "data:x"),
        ("C:\\runs\\edm", "run", "C:\\runs\\edm", "C:\\runs\\edm"),
        ("folder:~/cats/", "folder", "~/cats/", "cats"),
        ("npz:a/b.c.npz", "npz", "a/b.c.npz", "b.c"),
        ('data:cifar10(split="test")', "data", 'cifar10(split="test")', "cifar10"),
        ("diffusers:google/ddpm-cifar10-32", "diffusers", "google/ddpm-cifar10-32", "ddpm-cifar10-32"),
        ("diffusers:/a/b.c/d.e", "diffusers", "/a/b.c/d.e", "d.e"),
    ],
)
def test_names(source: str, kind: str, text: str, stem: str):
    assert named(source) == Named(kind, text)
    assert named(source).stem == stem


def test_a_name_of_nothing_is_refused():
    for kind in ("folder", "npz", "data", "diffusers"):
        with pytest.raises(RequestError, match=f"^source: '{kind}: ' names nothing; write {kind}: and then what"):
            named(f"{kind}: ")


def test_names_are_read_without_torch():
    code = "import sys; from ddm.runs.naming import named; named('folder:x'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- runs


def digest_of_weights(checkpoint: Path) -> str:
    return hashlib.sha256((checkpoint / "ema.safetensors").read_bytes()).hexdigest()


def test_a_run(run: Path):
    model = load(run, device="cpu")
    newest = run / "checkpoints" / "000002"
    assert isinstance(model.generator, DiffusionGenerator)
    assert (model.name, model.kind, model.run, model.path, model.step, model.weights) == (
        "tiny", "run", run, newest, 2, "ema",
    )  # fmt: skip
    assert model.config is not None and model.config.data == "shapes(count=8)"
    assert model.digest == digest_of_weights(newest) != load(run, weights="raw", device="cpu").digest
    assert load(str(run), device="cpu", image_size=8).generator.shape == (3, 8, 8)


def test_a_checkpoint(run: Path, tmp_path: Path):
    checkpoint = run / "checkpoints" / "000001"
    model = load(checkpoint, device="cpu")
    assert (model.name, model.run, model.step) == ("tiny/000001", run, 1)
    assert model.digest == digest_of_weights(checkpoint)
    alone = Path(shutil.copytree(checkpoint, tmp_path / "moved"))
    model = load(alone, device="cpu")
    assert (model.name, model.run, model.step) == ("moved", None, 1)


def test_loading_from_python_stays_short(run: Path):
    model = ddm.load(run, device="cpu")
    pictures = model.sample(3, seed=5, label="star")
    label = model.classes.index("star")
    assert torch.equal(pictures, model.generator.generate([5, 6, 7], [label] * 3))
    with pytest.raises(RequestError, match="label: 'sta' is unknown"):
        model.sample(1, label="sta")


def test_a_run_has_pictures_of_one_size(run: Path):
    with pytest.raises(
        RequestError, match="^image_size: 16 is not allowed for a run of 8x8 pictures; allowed: its own"
    ):
        load(run, device="cpu", image_size=16)


# --- pictures that are there


def test_a_folder(folder: Path):
    said: list[str] = []
    model = load(f"folder:{folder}", say=said.append, image_size=8)
    assert isinstance(model.generator, FixedPictures)
    assert (model.name, model.kind, model.classes) == ("pictures", "folder", ("a", "b"))
    assert (model.config, model.run, model.path, model.step, model.weights) == (None,) * 5
    assert torch.equal(model.sample(6), PIXELS)
    assert model.generator.labels_of(range(6)) == [0, 0, 0, 1, 1, 1]
    assert model.digest == get_data(f"folder(path={str(folder)!r})", image_size=8).digest
    assert said == []


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_an_array(array: Path, tmp_path: Path, kind: str):
    path = array
    if kind == "npy":
        path = tmp_path / "made.npy"
        np.save(path, PIXELS.numpy())
    said: list[str] = []
    model = load(f"npz:{path}", say=said.append, image_size=8)
    assert (model.name, model.kind, model.classes, said) == (path.name, "npz", (), [])
    assert torch.equal(model.sample(6), PIXELS)


def test_the_same_pictures_have_one_digest_whatever_file_they_are_in(array: Path, tmp_path: Path):
    np.save(tmp_path / "x.npy", PIXELS.numpy())
    flat = tmp_path / "flat"
    for number, picture in enumerate(PIXELS):
        save_png(flat / f"{number}.png", picture)
    sources = (f"npz:{array}", f"npz:{tmp_path / 'x.npy'}", f"folder:{flat}", f"data:folder(path={str(flat)!r})")
    assert len({load(source, image_size=8).digest for source in sources}) == 1


def test_a_data_set():
    said: list[str] = []
    model = load("data:shapes(count=9)", say=said.append, image_size=16)
    data = get_data("shapes(count=9)", image_size=16)
    assert (model.name, model.kind, model.digest, model.classes) == (
        "shapes(count=9)",
        "data",
        data.digest,
        data.classes,
    )
    assert torch.equal(model.sample(9), data.pixels) and said == []
    assert load("data:shapes(count=9)").generator.shape == (3, 32, 32)


def test_a_quote_in_a_path_is_a_letter_like_others(array: Path, tmp_path: Path):
    strange = tmp_path / 'it\'s "so", (x=1)\\.npz'
    strange.write_bytes(array.read_bytes())
    assert torch.equal(load(f"npz:{strange}", image_size=8).sample(6), PIXELS)


def test_pictures_that_are_not_taken_as_they_are_are_told(folder: Path, array: Path):
    for source in (f"folder:{folder}", f"npz:{array}", f"data:arrays(path={str(array)!r})"):
        said: list[str] = []
        assert load(source, say=said.append).generator.shape == (3, 32, 32)
        assert said == [
            f"{source} has pictures of 8x8; they are cropped and resized to 32x32, which changes what is measured; "
            "an image size of 8 takes them as they are"
        ]


def test_one_large_picture_among_many_is_told(tmp_path: Path):
    for number in range(20):
        Image.new("RGB", (8, 8 if number != 13 else 10)).save(tmp_path / f"{number:02}.png")
    said: list[str] = []
    load(f"folder:{tmp_path}", say=said.append, image_size=8)
    (line,) = said
    assert "has pictures of 8x10; they are cropped and resized to 8x8, which changes what is measured" in line
    assert "as they are" not in line


def test_unreadable_pictures_are_told(tmp_path: Path):
    for number in range(150):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    (tmp_path / "100.png").write_bytes(b"cut")
    said: list[str] = []
    assert load(f"folder:{tmp_path}", say=said.append, image_size=8).generator.limit == 149
    assert said == [f"folder:{tmp_path} has 1 unreadable pictures, which are left out"]


def test_cifar10_is_known_to_be_small(monkeypatch: pytest.MonkeyPatch, array: Path):
    from ddm.data import sources

    monkeypatch.setitem(sources._parts, "cifar10", lambda: sources["arrays"](path=str(array)))
    said: list[str] = []
    load("data:cifar10", say=said.append, image_size=16)
    assert "data:cifar10 has pictures of 32x32; they are cropped and resized to 16x16" in said[0]


# --- pipelines


def test_a_pipeline(pipeline: Path, folder: Path):
    model = load(f"diffusers:{pipeline}", device="cpu", steps=4)
    assert isinstance(model.generator, PipelineGenerator)
    assert (model.name, model.kind, model.classes) == ("theirs", "diffusers", ())
    assert (model.config, model.run, model.path, model.step, model.weights) == (None,) * 5
    assert model.generator.settings()["steps"] == 4 and model.generator.shape == (3, 8, 8)
    assert torch.equal(model.sample(2, seed=7), load(f"diffusers:{pipeline}", device="cpu", steps=4).sample(2, seed=7))
    assert len(model.digest) == 64


# --- refusals


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("runs/none", {}, "source: 'runs/none' is neither a run folder nor a checkpoint; known: cifar10"),
        ("folders:x", {}, "source: 'folders:x' is neither a run folder nor a checkpoint"),
        ("folder:none", {}, "source: folder(path='none'): none is not there"),
        ("npz:none.npz", {}, "source: arrays(path='none.npz'): none.npz is not there"),
        ("folder:pictures/a/0.png", {}, "0.png is a file, not a folder"),
        ("npz:pictures", {}, "pictures is a folder, not a file"),
        (
            "folder:mixed",
            {},
            "source: folder(path='mixed'): mixed has 1 pictures (e.g. beside.png) beside its sub-folders",
        ),
        ("data:cifar11", {}, "source: 'cifar11' is unknown (did you mean 'cifar10'?)"),
        ("data:shapes(cont=3)", {}, "option of shapes: 'cont' is unknown (did you mean 'count'?)"),
        ("data:", {}, "source: 'data:' names nothing"),
        ("diffusers:pictures", {}, "diffusers: 'pictures' is no pipeline: it has no readable model_index.json"),
        (
            "folder:pictures",
            {"sampler": "ddim"},
            "sampler: 'ddim' is not allowed for folder: sources; allowed: none, its",
        ),
        ("npz:made.npz", {"steps": 3}, "steps: 3 is not allowed for npz: sources; allowed: none, its pictures"),
        ("data:shapes", {"clip": "static"}, "clip: 'static' is not allowed for data: sources; allowed: none"),
        ("diffusers:x", {"guide": 3}, "guide: 3 is not allowed for diffusers: sources; allowed: steps"),
        ("folder:pictures", {"weights": "raw"}, "weights: 'raw' is not allowed for folder: sources"),
        ("diffusers:x", {"guidance": 2.0}, "guidance: 2.0 is not allowed for diffusers: sources; allowed: steps"),
        ("diffusers:x", {"weights": "raw"}, "weights: 'raw' is not allowed for diffusers: sources; allowed: steps"),
        ("folder:pictures", {"device": "tpu"}, "device: 'tpu' is unknown"),
    ],
)
def test_what_is_refused_is_one_line(
    folder: Path, array: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: dict, message: str
):
    monkeypatch.chdir(folder.parent)
    shutil.copytree(folder, folder.parent / "mixed")
    (folder.parent / "mixed" / "beside.png").write_bytes(b"")
    with pytest.raises(RequestError) as caught:
        load(source, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipeline_has_pictures_of_one_size(pipeline: Path):
    source = f"diffusers:{pipeline}"
    assert load(source, device="cpu", steps=1, image_size=8).generator.shape == (3, 8, 8)
    with pytest.raises(RequestError, match="^image_size: 32 is not allowed for a pipeline of 8x8 pictures"):
        load(source, device="cpu", steps=1, image_size=32)


def test_a_picture_that_is_not_finite_is_refused_by_number(tmp_path: Path):
    pixels = np.random.default_rng(0).random((6, 8, 8, 3), dtype=np.float32)
    pixels[4, 0, 0, 0] = np.nan
    np.savez(tmp_path / "x.npz", pixels)
    with pytest.raises(RequestError, match=r"^source: arrays\(path=.*\): picture 4 has numbers that are not finite"):
        load(f"npz:{tmp_path / 'x.npz'}")


def test_too_many_are_refused(array: Path):
    with pytest.raises(RequestError, match="^seed: 6 is not allowed; there are 6 pictures, 0 to 5$"):
        load(f"npz:{array}", image_size=8).sample(7)


def test_diffusers_is_imported_for_pipelines_alone(array: Path, tmp_path: Path):
    code = inspect.cleandoc(f"""
        import sys
        from ddm.runs.sources import load
        load({f"npz:{array}"!r}, image_size=8)
        sys.exit("diffusers" in sys.modules)
    """)
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
