"""``ddm sample --again``: pictures made again from their own metadata; and files that lie."""

import json
import shutil
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.cli import main
from ddm.commands.console import Console
from ddm.commands.training import train
from ddm.diffusion import samplers
from ddm.images import save_png
from ddm.runs.config import override
from ddm.runs.recipes import recipes

CHANGES = {
    "data": "shapes(count=32)",
    "objective": "edm",
    "weighting": "edm_lambda",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "train.lr": 0.003,
    "train.warmup": 0,
    "train.ema": ("power(width=0.1)", "constant(decay=0.5)"),
    "every.save": 2,
    "keep.last": 0,
    "sample.count": 1,
    "sample.steps": 3,
}


def make_run(path: Path, **changes: object) -> Path:
    settings = CHANGES | {name.replace("__", "."): value for name, value in changes.items()}
    train(override(recipes["shapes"](), settings), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/`` in it: one with labels, one without."""
    path = tmp_path_factory.mktemp("home")
    make_run(path / "runs" / "tiny")
    make_run(path / "runs" / "plain", conditional=False, train__seed=1, sample__guidance=1.0)
    return path


@pytest.fixture(autouse=True)
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with the same runs."""
    (tmp_path / "runs").symlink_to(home / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sample(*arguments: object) -> int:
    return main(["sample", *(str(each) for each in arguments), "--device=cpu"])


def again(*arguments: object, capsys: pytest.CaptureFixture) -> dict:
    """The result of --again, as JSON."""
    capsys.readouterr()
    assert sample("--again", *arguments, "--json") == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def last_line(capsys: pytest.CaptureFixture) -> str:
    err = capsys.readouterr().err.strip()
    assert "Traceback" not in err
    return err.splitlines()[-1]


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# --- equal in every pixel


@pytest.mark.parametrize("sampler", [*samplers, "heun(churn=40)", "ddim(eta=0.7)", "ddpm(variance='large')"])
def test_every_sampler_is_made_again(sampler: str, capsys: pytest.CaptureFixture):
    assert sample("runs/tiny", f"--sampler={sampler}", "--count=5", "--batch-size=2", "--seed=7", "--out=a.png") == 0
    found = again("a.png", capsys=capsys)
    assert (found["equal"], found["pixels_differ"], found["most"], found["out"]) == (True, 0, 0, "a-again.png")
    assert (pixels("a.png") == pixels("a-again.png")).all()
    assert Image.open("a.png").text == Image.open("a-again.png").text, "which can be made again itself"


@pytest.mark.parametrize(
    "options",
    [
        ("--label=star",),
        ("--guidance=3", "--guidance-low=0.3", "--guidance-high=5"),
        ("--guidance=2.5", "--guidance-high=none"),
        ("--clip=dynamic(quantile=0.9)",),
        ("--grid=levels(at=(80, 3.25, 0.1))",),
        ("--grid=searched",),
        ("--weights=raw",),
        ("--weights=ema-1",),
        ("--guide=2", "--guidance=1.7"),
        ("--guide=2/raw", "--guidance=1.7"),
        ("--seed=9000000000000000000",),
    ],
)
def test_every_setting_is_kept(options: tuple, capsys: pytest.CaptureFixture):
    assert sample("runs/tiny", *options, "--count=3", "--out=a.png") == 0
    assert again("a.png", capsys=capsys)["equal"]
    assert sample("runs/tiny", "--grid=karras", "--count=3", "--out=b.png") == 0
    assert (pixels("a.png") != pixels("b.png")).any(), "the settings do matter"


def test_a_checkpoint_that_is_not_the_newest_and_a_run_without_labels(capsys: pytest.CaptureFixture):
    for source in ("runs/tiny/checkpoints/000002", "runs/plain"):
        assert sample(source, "--count=2", "--out=a.png") == 0
        found = again("a.png", capsys=capsys)
        assert found["equal"] and found["checkpoint"].startswith(source)
        assert again("a.png", source, capsys=capsys)["equal"]
        assert again("a.png", source.partition("/checkpoints")[0], capsys=capsys)["checkpoint"].startswith(source)


def test_a_picture_of_a_folder_is_made_again_alone_and_if_need_be_as_it_was(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    assert sample("runs/tiny", "--count=5", "--seed=2", "--batch-size=4", "--out=many/") == 0
    for name in ("000002", "000005", "000006"):
        assert again(f"many/{name}.png", capsys=capsys)["equal"]
    # A device on which a picture depends a little on how many are made at once.
    forward = torch.nn.Conv2d.forward
    monkeypatch.setattr("torch.nn.Conv2d.forward", lambda self, x: forward(self, x) + 0.01 * len(x))
    assert sample("runs/tiny", "--count=5", "--batch-size=3", "--label=star", "--out=many/") == 0
    assert sample("runs/tiny", "--count=1", "--seed=4", "--label=star", "--out=alone.png") == 0
    assert (pixels("many/000004.png") != pixels("alone.png")[12::12, 12::12][:8, :8]).any()
    assert again("many/000004.png", capsys=capsys)["equal"]


@pytest.mark.parametrize("ways", [("--noise=2",), ("--mask=mask.png",), ("--mask=mask.png", "--noise=3")])
@pytest.mark.parametrize("sampler", ["heun", "ddpm"])
def test_changed_pictures_are_made_again_from_the_same(ways: tuple, sampler: str, capsys: pytest.CaptureFixture):
    given(3)
    assert sample("runs/tiny", "--from=in", *ways, f"--sampler={sampler}", "--count=4", "--out=a.png") == 0
    assert sample("runs/tiny", "--from=in", *ways, f"--sampler={sampler}", "--count=4", "--out=a/") == 0
    masks = [each for each in ways if each.startswith("--mask")]
    assert again("a.png", "--from=in", *masks, capsys=capsys)["equal"]
    assert again("a.png", "--from", "in/2.png", "in/0.png", "in/1.png", *masks, capsys=capsys)["equal"]
    assert again("a/000001.png", "--from=in/1.png", *masks, capsys=capsys)["equal"]
    assert sample("--again=a.png") == 2
    assert "from: 'a.png' was made from one; give the same again with --from" in last_line(capsys)
    assert sample("--again=a.png", "--from", "in/0.png", "in/1.png", *masks) == 2
    assert "is not among those given" in last_line(capsys)
    if masks:
        Image.new("L", (8, 8), 255).save("other.png")
        assert sample("--again=a.png", "--from=in", "--mask=other.png") == 2
        assert "mask: 'other.png' is not the one it was made with" in last_line(capsys)
    else:
        assert sample("--again=a.png", "--from=in", "--mask=mask.png") == 2
        assert "mask: not allowed, 'a.png' was made without one" in last_line(capsys)


def given(count: int) -> None:
    """Pictures in ``in/`` and a mask."""
    drawn = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for number, picture in enumerate(drawn):
        save_png(f"in/{number}.png", picture)
    white = np.zeros((8, 8), np.uint8)
    white[2:6, 2:6] = 255
    Image.fromarray(white).save("mask.png")


def test_inversions_and_interpolations_are_made_again(capsys: pytest.CaptureFixture):
    given(2)
    options = ("--invert=circle", "--label=star", "--guidance=2")
    for name in ("a.png", "a/"):
        assert sample("runs/tiny", "--from=in", *options, f"--out={name}") == 0
    assert again("a.png", "--from=in", capsys=capsys)["equal"]
    assert again("a/000001.png", "--from=in", capsys=capsys)["equal"]
    for name in ("b.png", "b/"):
        assert sample("runs/tiny", "--to-seed=5", "--sampler=ddpm", "--count=4", f"--out={name}") == 0
    assert again("b.png", capsys=capsys)["equal"]
    assert again("b/000002.png", capsys=capsys)["equal"]
    assert sample("--again=b.png", "--from=in") == 2
    assert "from: not allowed, 'b.png' was made without one" in last_line(capsys)


def test_stored_pictures_are_made_again_where_their_source_is_named(capsys: pytest.CaptureFixture):
    assert sample("data:shapes(count=5)", "--image-size=8", "--out=a.png") == 0
    assert again("a.png", "data:shapes(count=5)", capsys=capsys)["equal"]
    assert sample("--again=a.png") == 2
    assert "source: 'a.png' was made of a data: source; name it as SOURCE" in last_line(capsys)
    assert sample("--again=a.png", "data:shapes(count=6)") == 2
    assert "source: 'data:shapes(count=6)' is not what 'a.png' was made with: SHA-256 " in last_line(capsys)


# --- not equal


def test_pixels_that_differ_are_counted(capsys: pytest.CaptureFixture):
    assert sample("runs/tiny", "--count=1", "--out=a/") == 0
    with Image.open("a/000000.png") as picture:
        changed, text = np.array(picture), picture.text
    changed[0, 0, 1] ^= 8
    changed[5, 2] ^= 1
    save_png("b.png", torch.from_numpy(changed).permute(2, 0, 1), text=text)
    found = again("b.png", capsys=capsys)
    assert (found["equal"], found["pixels_differ"], found["most"]) == (False, 2, 8)
    assert (pixels("b-again.png") == pixels("a/000000.png")).all()
    assert sample("--again=b.png") == 0
    out, err = capsys.readouterr()
    assert out == "b-again.png  2 of 64 pixels differ, by at most 8 of 255\n"
    assert f"made    with torch {torch.__version__} on cpu, here with torch {torch.__version__}; other " in err


def test_the_picture_itself_is_never_written_over(here: Path, capsys: pytest.CaptureFixture):
    assert sample("runs/tiny", "--count=1", "--out=a.png") == 0
    before = Path("a.png").read_bytes()
    Path("link.png").symlink_to("a.png")
    for out in ("a.png", str(here / "a.png"), "link.png"):
        assert sample("--again=a.png", f"--out={out}") == 2
        assert "is the picture itself, which is not written over; allowed: another" in last_line(capsys)
    for out in ("a.npz", "a.webp", "folder"):
        assert sample("--again=a.png", f"--out={out}") == 2
        assert "is not allowed beside --again; allowed: a .png file" in last_line(capsys)
    assert Path("a.png").read_bytes() == before
    assert again("a.png", "--out=deep/b.png", capsys=capsys)["out"] == "deep/b.png"


# --- the model


def test_another_model_is_refused(home: Path, capsys: pytest.CaptureFixture):
    assert sample("runs/tiny", "--count=1", "--out=a.png") == 0
    assert sample("--again=a.png", "runs/plain") == 2
    line = last_line(capsys)
    assert "source: none of the 2 checkpoints in 'runs/plain' is what 'a.png' was made with: SHA-256 " in line
    assert ", step 4; name the run" in line
    assert sample("--again=a.png", "--runs=elsewhere") == 2
    assert "source: none of the 0 checkpoints in 'elsewhere' is what" in last_line(capsys)
    assert again("a.png", "--runs", home / "runs", capsys=capsys)["equal"]
    assert sample("--again=a.png", "runs/none") == 2
    assert "source: 'runs/none' is neither a run folder nor a checkpoint" in last_line(capsys)


def test_a_copy_under_another_name_will_do_and_a_damaged_one_not(home: Path, capsys: pytest.CaptureFixture):
    assert sample("runs/tiny", "--count=1", "--out=a.png") == 0
    shutil.copytree(home / "runs" / "tiny", "copies/other")
    assert again("a.png", "--runs=copies", capsys=capsys)["equal"]
    weights = Path("copies/other/checkpoints/000004/ema.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert sample("--again=a.png", "--runs=copies") == 2
    assert "ema.safetensors is damaged" in last_line(capsys)


@pytest.mark.parametrize(
    "flag",
    [
        "--seed=0",
        "--count=64",
        "--label=star",
        "--steps=3",
        "--sampler=heun",
        "--grid=karras",
        "--guidance=1",
        "--guidance-low=0",
        "--guide=2",
        "--clip=none",
        "--weights=ema",
        "--noise=1",
        "--invert",
        "--to-seed=4",
        "--image-size=8",
    ],
)
def test_what_the_picture_says_cannot_be_said_otherwise(flag: str, capsys: pytest.CaptureFixture):
    Path("a.png").write_bytes(b"never looked at")
    assert sample("--again=a.png", flag) == 2
    name = flag.strip("-").partition("=")[0]
    assert last_line(capsys) == f"ddm: {name}: not allowed beside --again, the picture says it; leave it out"


# --- files that lie


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*texts: bytes, side: tuple[int, int] = (8, 8), after: bytes = b"") -> bytes:
    """A black picture with chunks before and after its pixels."""
    width, height = side
    rows = zlib.compress(b"\0" * ((3 * min(width, 8) + 1) * min(height, 8)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(texts) + chunk(b"IDAT", rows) + after + chunk(b"IEND", b"")


def text(value: str | bytes) -> bytes:
    return chunk(b"tEXt", b"ddm\0" + (value.encode() if isinstance(value, str) else value))


def bomb(megabytes: int) -> bytes:
    return zlib.compress(b"[" * (megabytes * 2**20), 9)


@pytest.fixture(scope="module")
def honest(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a true picture says."""
    out = tmp_path_factory.mktemp("honest")
    assert sample(home / "runs" / "tiny", "--count=1", "--out", f"{out}/") == 0
    with Image.open(out / "000000.png") as picture:
        return json.loads(picture.text["ddm"])


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "cannot be read as PNG"),
    "no picture": (lambda: b"hello", "cannot be read as PNG"),
    "a JPEG": (lambda: b"\xff\xd8\xff\xe0" + b"0" * 100, "cannot be read as PNG"),
    "cut": (lambda: png(text("{}"))[:30], "cannot be read as PNG"),
    "no text": (png, "does not say how it was made"),
    "somebody else's text": (lambda: png(chunk(b"tEXt", b"parameters\0Steps: 20")), "does not say how it was made"),
    "text after the pixels": (lambda: png(after=text("{}")), "does not say how it was made"),
    "no JSON": (lambda: png(text("seed 4")), "all of it: Invalid JSON"),
    "no object": (lambda: png(text("[1]")), "all of it: must be an object"),
    "nested": (lambda: png(text("[" * 900_000)), "all of it: Invalid JSON: recursion limit exceeded"),
    "nested objects": (lambda: png(text('{"a":' * 150_000)), "all of it: Invalid JSON: recursion limit exceeded"),
    "a number of a million digits": (lambda: png(text("9" * 1_000_000)), "Invalid JSON: number out of range"),
    "long": (
        lambda: png(text('{"a": "' + "x" * 5_000_000 + '"}')),
        "has metadata of 5,000,009 characters; allowed: 1,048,576",
    ),
    "zTXt bomb": (lambda: png(chunk(b"zTXt", b"ddm\0\0" + bomb(500))), "cannot be read as PNG"),
    "iTXt bomb": (lambda: png(chunk(b"iTXt", b"ddm\0\1\0\0\0" + bomb(500))), "cannot be read as PNG"),
    "many texts": (lambda: png(*[text("x" * 900_000)] * 90), "cannot be read as PNG"),
    "older": (lambda: png(text('{"format": 1}')), "format: must be 2"),
    "newer": (lambda: png(text('{"format": 3}')), "format: must be 2"),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_and_hostile_files_are_one_line_in_bounded_time_and_memory(name: str, capsys: pytest.CaptureFixture):
    make, message = FILES[name]
    Path("a.png").write_bytes(make())
    assert sample("--again=none.png") == 2  # imports are not what is measured
    capsys.readouterr()
    tracemalloc.start()
    started = time.monotonic()
    try:
        assert sample("--again=a.png") == 2
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 10
    assert most < 200 * 2**20
    err = capsys.readouterr().err
    assert message in err and "again: 'a.png' " in err
    assert err.count("\n") == 1 and len(err) < 500
    assert not Path("a-again.png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "0"}, "seed: must be a valid integer"),
        ({"seed": -1}, "seed: must be greater than or equal to 0"),
        ({"seed": 2**63}, "seed: must be less than 9223372036854775808"),
        ({"count": 10**9}, "count: must be less than or equal to 64000000"),
        ({"count": 2}, "there are not as many labels or shares as pictures"),
        ({"count": 60_000_000, "layout": "sheet", "labels": None}, "has labels that a model of 8 classes has not"),
        ({"layout": "sheet"}, "is not the size of 1 pictures of [3, 8, 8]; it was changed after it was made"),
        ({"layout": "film"}, "layout: must be 'sheet' or 'picture'"),
        ({"labels": [77]}, "has labels that a model of 8 classes has not"),
        ({"labels": [[0]]}, "labels.0: must be a valid integer"),
        ({"kind": "pickle"}, "kind: must be 'run', "),
        ({"checkpoint_sha256": "../../etc"}, "checkpoint_sha256: String should match pattern"),
        ({"checkpoint_sha256": None}, "the digest of the model is missing"),
        ({"checkpoint_sha256": "0" * 64}, "source: none of the 4 checkpoints in 'runs' is what 'a.png' was made with"),
        ({"shape": [3, 16, 16]}, "shows [3, 16, 16], not [3, 8, 8]"),
        ({"sampler": ["heun"]}, "sampler: must be a word, a finite number or null"),
        ({"sampler": "__import__('os')"}, "sample.sampler: \"__import__('os')\" has an option without a name"),
        ({"sampler": "x" * 200_000}, "sample.sampler: 'xxx"),
        ({"sampler": "(" * 100_000}, "sample.sampler: '((("),
        (
            {"sampler": "adaptive(iterations=1000000000)"},
            "sample.sampler: iterations: 1000000000 is not allowed; allowed: 1 to 10000",
        ),
        ({"grid": "searched"}, "again: sample.grid: 'searched' is not allowed; allowed: levels(at=...)"),
        ({"steps": 10**5}, "again: steps: 100000 is not allowed; allowed: 1 to 10000"),
        ({"steps": 0}, "again: sample.steps: must be greater than or equal to 1"),
        ({"steps": "3"}, "again: sample.steps: must be a valid integer"),
        ({"guidance": 1e999}, "guidance: must be a word, a finite number or null"),
        ({"grid": "levels(at=open('x'))"}, "has a value that is not a plain literal"),
        ({"guide": "/etc/passwd"}, "again: guide: its name is none of ours"),
        (
            {"guide": "step 2 ema 0123456789abcdef"},
            "guide: no checkpoint in 'runs' is the guide, step 2 ema 0123456789abcdef",
        ),
        ({"image_size": 8}, "again: sample.image_size: there is no such setting"),
        ({"\x1b[2J": 1}, "there is no such setting"),
        ({"batch": [0, 10**9]}, "batch.1: must be less than or equal to 65536"),
        ({"edit": {"way": "from"}}, "edit.from.noise: Field required"),
        (
            {"edit": {"way": "from", "noise": 1.0, "mask": None, "sources": ["in/0.png"]}},
            "sources.0: String should match",
        ),
        ({"edit": {"way": "from", "noise": 1.0, "mask": None, "sources": []}}, "sources: List should have at least 1"),
        ({"edit": {"way": "from", "noise": 1e6, "mask": None, "sources": ["SOURCE"]}}, "noise: 1e+06 is not allowed"),
        (
            {"edit": {"way": "between", "last": 3, "shares": [2.0]}},
            "edit.between.shares.0: must be less than or equal to 1",
        ),
        ({"edit": {"way": "run", "command": "ls"}}, "edit: Input tag 'run' found using 'way' does not match"),
    ],
)
def test_metadata_that_we_never_write_are_refused(
    honest: dict, change: dict, message: str, capsys: pytest.CaptureFixture
):
    given(1)
    said = json.dumps(honest | change).replace("Infinity", "1e99999")
    if "SOURCE" in said:
        digest = png_digest()
        said = said.replace("SOURCE", digest)
    Path("a.png").write_bytes(png(text(said)))
    started = time.monotonic()
    assert (
        sample("--again=a.png", *(["--from=in"] if "way" in str(change.get("edit")) and "from" in str(change) else []))
        == 2
    )
    assert time.monotonic() - started < 10
    err = capsys.readouterr().err
    assert message in err
    assert len(err) < 700 and err.count("\n") == 1 and "\x1b" not in err
    assert not Path("a-again.png").exists()


def png_digest() -> str:
    from ddm.commands.editing import digest_of

    return digest_of(torch.from_numpy(pixels("in/0.png").copy()).permute(2, 0, 1))


def test_a_picture_of_too_many_pixels_is_not_unpacked(honest: dict, capsys: pytest.CaptureFixture):
    Path("a.png").write_bytes(png(text(json.dumps(honest)), side=(30_000, 30_000)))
    assert sample("--again=a.png") == 2
    assert "again: 'a.png' cannot be read as PNG: Image size (900000000 pixels) exceeds" in last_line(capsys)
    Path("a.png").write_bytes(png(text(json.dumps(honest)), side=(9000, 9000)))
    assert sample("--again=a.png") == 2
    assert "again: 'a.png' has 9000x9000 pixels of mode RGB; allowed: 64,000,000, L, RGB or RGBA" in last_line(capsys)
    Path("b.png").write_bytes(png(text(json.dumps(honest)), side=(7000, 7000)))
    assert sample("--again=b.png") == 2, "said to be large, and cut"
    assert last_line(capsys).startswith("ddm: again: 'b.png' ")


def test_what_is_no_file_is_not_waited_for(capsys: pytest.CaptureFixture):
    assert sample("--again=runs") == 2
    assert "again: 'runs' is not a file" in last_line(capsys)
    assert sample("--again=none.png") == 2
    assert "again: 'none.png' is not there" in last_line(capsys)
