"""Pictures from pictures on the command line: ``--from`` with ``--noise``, ``--mask``, ``--invert``; ``--to-seed``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddm as package
from ddm import editing
from ddm.cli import main
from ddm.commands.console import Console
from ddm.commands.editing import in_turn
from ddm.commands.training import train
from ddm.data.pictures import prepare
from ddm.generators import DiffusionGenerator
from ddm.images import save_png, to_float, to_uint8
from ddm.runs.config import override
from ddm.runs.recipes import recipes

CHANGES = {
    "data": "shapes(count=32)",
    "objective": "edm",  # its x0 at the lowest level is the picture itself, however little it has learned
    "weighting": "edm_lambda",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "train.lr": 0.003,
    "train.warmup": 0,
    "every.save": 2,
    "sample.count": 4,
    "sample.steps": 4,
}
CELL = 13 * 8
"""Pixels from one picture of a sheet to the next: 12 times 8 and one between."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    train(override(recipes["shapes"](), CHANGES), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


def sample(*arguments: object) -> int:
    return main(["sample", *(str(each) for each in arguments), "--device=cpu"])


def last_line(capsys: pytest.CaptureFixture) -> str:
    err = capsys.readouterr().err.strip()
    assert "Traceback" not in err
    return err.splitlines()[-1]


def cells(path: Path) -> list[list[np.ndarray]]:
    """The 8 x 8 pictures of a sheet, row by row."""
    with Image.open(path) as sheet:
        small = np.asarray(sheet)[12::12, 12::12]
    rows, columns = (side // 9 for side in small.shape[:2])
    return [[small[9 * row :, 9 * column :][:8, :8] for column in range(columns)] for row in range(rows)]


def facts(path: Path) -> dict:
    with Image.open(path) as picture:
        return json.loads(picture.text["ddm"])


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder of three pictures of the model's size."""
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, picture in enumerate(pixels):
        save_png(tmp_path / "sources" / f"{number}.png", picture)
    return tmp_path / "sources"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """White in the upper left quarter."""
    white = np.zeros((8, 8), np.uint8)
    white[:4, :4] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def pixels_of(sources: Path) -> torch.Tensor:
    found = [np.asarray(Image.open(each)) for each in sorted(sources.iterdir())]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def generator_of(run: Path, **options) -> DiffusionGenerator:
    generator = package.load(run, device="cpu", **options).generator
    assert isinstance(generator, DiffusionGenerator)
    return generator


def finish(steps) -> np.ndarray:
    *_, last = steps
    return to_uint8(last.x).permute(0, 2, 3, 1).numpy()


# --- image to image


def test_image_to_image_is_that_of_the_python_api_and_shows_what_it_came_from(run: Path, sources: Path, tmp_path: Path):
    out = tmp_path / "a.png"
    assert sample(run, "--from", sources, "--noise=2", "--label=star", "--seed=5", "--out", out) == 0
    generator, given = generator_of(run), pixels_of(sources)
    star = package.load(run, device="cpu").classes.index("star")
    expected = finish(editing.from_pictures(generator, to_float(given), 2.0, range(5, 8), [star] * 3))
    found = cells(out)
    assert [len(row) for row in found] == [3, 3, 3]
    noise = generator.noise(range(5, 8))().float()
    noisy = to_uint8((to_float(given) + 2 * noise) / 4).permute(0, 2, 3, 1).numpy()
    for number, (original, start, result) in enumerate(found):
        assert (original == given[number].permute(1, 2, 0).numpy()).all()
        assert (start == noisy[number]).all()
        assert (result == expected[number]).all()


def test_pictures_are_taken_in_turn_and_noise_differs(run: Path, sources: Path, tmp_path: Path):
    assert (
        sample(run, "--from", sources / "0.png", sources / "2.png", "--noise=1", "--count=4", "--out", f"{tmp_path}/a/")
        == 0
    )
    paths = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in paths] == [f"{number:06d}.png" for number in range(4)]
    made = [np.asarray(Image.open(path)) for path in paths]
    assert (made[0] != made[2]).any(), "the same picture with other noise"
    digests = in_turn(pixels_of(sources))
    assert [facts(path)["edit"]["sources"] for path in paths] == [[digests[0]], [digests[2]]] * 2
    assert [facts(path)["seed"] for path in paths] == [0, 1, 2, 3]


def test_the_metadata_say_what_was_done_and_name_no_file(run: Path, sources: Path, mask: Path, tmp_path: Path):
    options = ("--noise=2.5", "--mask", mask, "--guidance=1.5", "--sampler=ddim(eta=1)")
    assert sample(run, "--from", sources, *options, "--count=2", "--out", tmp_path / "a.png") == 0
    found = facts(tmp_path / "a.png")
    assert found["edit"].keys() == {"way", "noise", "mask", "sources"}
    assert (found["edit"]["way"], found["edit"]["noise"], found["guidance"]) == ("from", 2.5, 1.5)
    assert found["edit"]["sources"] == in_turn(pixels_of(sources)[:2])
    assert found["labels"] == [None, None] and found["label"] is None
    assert len(found["edit"]["mask"]) == 64
    text = json.dumps(found)
    assert str(tmp_path) not in text and "sources/" not in text and "mask.png" not in text and "tiny" not in text


def test_any_picture_becomes_one_of_the_models(run: Path, tmp_path: Path):
    """As the data pipeline does it: upright, the centre square, resized, transparency on white."""
    wide = np.zeros((16, 32, 4), np.uint8)
    wide[:, 8:24] = (255, 0, 0, 255)  # the centre square is red, the rest transparent
    turned = Image.new("RGB", (32, 16), "blue")
    exif = turned.getexif()
    exif[0x0112] = 6
    Image.fromarray(wide).save(tmp_path / "wide.png")
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("L", (8, 8), 77).save(tmp_path / "gray.gif")
    files = [tmp_path / name for name in ("wide.png", "turned.jpg", "gray.gif")]
    assert sample(run, "--from", *files, "--noise=1", "--out", tmp_path / "a.png") == 0
    originals = [row[0] for row in cells(tmp_path / "a.png")]
    for original, file in zip(originals, files):
        assert (original == prepare(file, "RGB", 8).transpose(1, 2, 0)).all()
    assert (originals[0][:, 1:7] >= (250, 0, 0)).all() and (originals[2] == 77).all()


# --- inpainting


def test_what_is_black_in_the_mask_is_kept_in_every_pixel(run: Path, sources: Path, mask: Path, tmp_path: Path):
    for name, noise in (("a.png", ()), ("b.png", ("--noise=3",))):
        assert sample(run, "--from", sources, "--mask", mask, *noise, "--out", tmp_path / name) == 0
        for original, start, result in cells(tmp_path / name):
            kept = np.ones((8, 8), bool)
            kept[:4, :4] = False
            assert (result[kept] == original[kept]).all() and (start[kept] == original[kept]).all()
            assert (result[~kept] != original[~kept]).any() and (start[~kept] != original[~kept]).any()
    assert any((a[2] != b[2]).any() for a, b in zip(cells(tmp_path / "a.png"), cells(tmp_path / "b.png")))


def test_a_mask_may_be_of_the_size_of_the_picture_as_it_is_stored(run: Path, tmp_path: Path):
    Image.new("RGB", (48, 32), "green").save(tmp_path / "large.png")
    white = np.zeros((32, 48), np.uint8)
    white[:, :24] = 255  # of the centre square the left half
    Image.fromarray(white).save(tmp_path / "mask.png")
    assert (
        sample(run, "--from", tmp_path / "large.png", "--mask", tmp_path / "mask.png", "--out", tmp_path / "a.png") == 0
    )
    ((original, _, result),) = cells(tmp_path / "a.png")
    assert (result[:, 4:] == original[:, 4:]).all() and (result[:, :4] != original[:, :4]).any(axis=2).all()


# --- to noise and back


def test_inversion_shows_noise_and_gives_the_picture_back(run: Path, sources: Path, tmp_path: Path):
    assert sample(run, "--from", sources, "--invert", "--steps=300", "--out", tmp_path / "a.png") == 0
    generator, given = generator_of(run, guidance=1.0, steps=300), pixels_of(sources)
    *_, top = editing.invert(generator, to_float(given))
    expected = to_uint8(top.x.float() / (2 * float(generator.grid[0]))).permute(0, 2, 3, 1).numpy()
    for number, (original, noise, result) in enumerate(cells(tmp_path / "a.png")):
        assert (original == given[number].permute(1, 2, 0).numpy()).all()
        assert np.abs(result.astype(int) - original).max() <= 3
        assert (noise == expected[number]).all()
    found = facts(tmp_path / "a.png")
    assert found["guidance"] == 1, "the run's own would not lead back"
    assert (found["edit"]["way"], found["edit"]["shows"]) == ("invert", None)


def test_the_way_back_may_be_another(run: Path, sources: Path, tmp_path: Path):
    options = ("--invert", "circle", "--label=star", "--guidance=3", "--steps=40")
    assert sample(run, "--from", sources, *options, "--out", tmp_path / "a.png") == 0
    model = package.load(run, device="cpu", guidance=3.0, steps=40)
    circle, star = model.classes.index("circle"), model.classes.index("star")
    given = to_float(pixels_of(sources))
    generator = generator_of(run, guidance=3.0, steps=40)
    expected = finish(editing.reconstruct(generator, given, range(3), [star] * 3, shown=[circle] * 3))
    for row, picture in zip(cells(tmp_path / "a.png"), expected):
        assert (row[2] == picture).all()
    found = facts(tmp_path / "a.png")
    assert (found["edit"]["shows"], found["labels"], found["guidance"]) == (circle, [star] * 3, 3)


# --- between seeds


def test_between_seeds_the_ends_are_their_pictures_and_stand_in_one_row(run: Path, tmp_path: Path):
    for sampler in ("heun", "ddpm"):
        options = ("--seed=3", "--to-seed=8", "--label=star", f"--sampler={sampler}", "--count=5", "--batch-size=2")
        assert sample(run, *options, "--out", tmp_path / "a.png") == 0
        (row,) = cells(tmp_path / "a.png")
        assert len(row) == 5
        model = package.load(run, device="cpu", sampler=sampler)
        for seed, picture in ((3, row[0]), (8, row[-1])):
            alone = model.sample(1, seed=seed, label="star")[0].permute(1, 2, 0).numpy()
            assert np.abs(alone.astype(int) - picture).max() <= 1
        assert all((a != b).any() for a, b in zip(row, row[1:]))
    found = facts(tmp_path / "a.png")
    assert (found["seed"], found["edit"]) == (3, {"way": "between", "last": 8, "shares": [0, 0.25, 0.5, 0.75, 1]})
    assert sample(run, "--seed=3", "--to-seed=8", "--count=3", "--out", f"{tmp_path}/b/") == 0
    assert [each.name for each in sorted((tmp_path / "b").iterdir())] == ["000000.png", "000001.png", "000002.png"]
    assert facts(tmp_path / "b" / "000001.png")["edit"]["shares"] == [0.5]
    assert facts(tmp_path / "b" / "000001.png")["labels"] == [3], "all are of the class of the first"


# --- films and arrays of all of them


@pytest.mark.parametrize("ways", [("--noise=2",), ("--mask",), ("--invert",), ("--to-seed=4",)])
def test_every_way_gives_a_film_and_an_array(run: Path, sources: Path, mask: Path, tmp_path: Path, ways: tuple):
    pictures = () if ways[0].startswith("--to-seed") else ("--from", sources)
    ways = (*ways, mask) if ways == ("--mask",) else ways
    for name in ("a.webp", "a.npz", "a.png"):
        assert sample(run, *pictures, *ways, "--count=3", "--out", tmp_path / name) == 0
    with Image.open(tmp_path / "a.webp") as film:
        assert film.n_frames > 2
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        images, said = stored["images"], json.loads(str(stored["ddm"]))
        assert ("labels" in stored.files) == (not pictures), "no class is no label"
    assert said["edit"] == facts(tmp_path / "a.png")["edit"]
    results = [row[-1] for row in cells(tmp_path / "a.png")] if pictures else cells(tmp_path / "a.png")[0]
    assert (np.stack(results) == images).all()


# --- wrong requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--noise=1"], "noise: needs pictures to begin with; add --from PICTURE"),
        (["--mask=mask.png"], "mask: needs pictures to begin with; add --from PICTURE"),
        (["--invert"], "invert: needs pictures to begin with; add --from PICTURE"),
        (["--from=0.png"], "from: what becomes of the pictures is missing; add --noise SIGMA, --mask PNG or --invert"),
        (["--from=none.png", "--noise=1"], "from: 'none.png' is not there"),
        (["--from=0.png", "--mask=none.png"], "mask: 'none.png' is not there"),
        (["--from=text.png", "--noise=1"], "from: 'text.png' cannot be read: not a PNG, JPEG, "),
        (["--from=cut.png", "--noise=1"], "from: 'cut.png' cannot be read: "),
        (["--from=empty", "--noise=1"], "from: 'empty' has no pictures; allowed: PNG, JPEG, "),
        (["--from=0.png", "--mask=text.png"], "mask: 'text.png' cannot be read: not a PNG, "),
        (["--from=0.png", "--mask=wide.png"], "mask: 'wide.png' is 9x8; allowed: 8x8, the size of the pictures"),
        (["--from=large.png", "--mask=wide.png"], "mask: 'wide.png' is 9x8; allowed: 8x8 or 16x16, the size"),
        (["--from=0.png", "--mask=black.png"], "mask: 'black.png' has no white, so that nothing would be made anew"),
        (["--from=0.png", "--noise=81"], "noise: 81 is not allowed; allowed: more than 0.002, up to 80"),
        (["--from=0.png", "--noise=0.001"], "noise: 0.001 is not allowed; allowed: more than 0.002, up to 80"),
        (["--from=0.png", "--noise=nan"], "noise: nan is not allowed; allowed: more than 0.002, up to 80"),
        (["--from=0.png", "--noise=x"], "--noise: invalid float value: 'x'"),
        (["--from=0.png", "--noise=1", "--invert"], "invert: not allowed beside --noise; allowed: one of them"),
        (["--from=0.png", "--invert=sta"], "label: 'sta' is unknown (did you mean 'star'?)"),
        (
            ["--from=0.png", "--invert", "--sampler=ddpm"],
            "sampler: 'ddpm' is not allowed with --invert, since it draws",
        ),
        (["--from=0.png", "--invert", "--steps=1"], "sample.steps: 1 is not allowed where pictures are inverted; "),
        (["--from=0.png", "--noise=1", "--to-seed=3"], "to-seed: not allowed beside --from; allowed: one of them"),
        (["--to-seed=0"], "to-seed: 0 is not allowed; allowed: 0 or more, another than --seed"),
        (["--to-seed=-4"], "to-seed: -4 is not allowed; allowed: 0 or more, another than --seed"),
        (["--to-seed=4", "--count=1"], "count: 1 is not allowed beside --to-seed; allowed: 2 or more"),
        (["--runs=runs"], "runs: only allowed beside --again; name the run itself as SOURCE"),
    ],
)
def test_wrong_requests_are_one_line_before_anything_is_computed(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list,
    message: str,
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("0.png")
    Image.new("RGB", (16, 16), "green").save("large.png")
    Image.new("L", (9, 8), 255).save("wide.png")
    Image.new("L", (8, 8), 127).save("black.png")
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(Path("large.png").read_bytes()[:50])
    Path("empty").mkdir()
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("torch.nn.Conv2d.forward", None)  # nothing is computed
    assert main(["sample", str(run), *arguments, "--device=cpu"]) == 2
    assert message in last_line(capsys)
    assert sorted(tmp_path.iterdir()) == before


def test_other_sources_cannot_be_edited(capsys: pytest.CaptureFixture, tmp_path: Path):
    assert main(["sample", "data:shapes", "--to-seed=3"]) == 2
    assert "to-seed: not allowed for data: sources; allowed: runs and checkpoints" in last_line(capsys)
