"""Uploads: what a browser, or anybody, may send as a picture or a mask, and what happens to everything else."""

import base64
import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from ddm.commands.studio.uploads import SCANS, mask_from, picture_from
from ddm.data.pictures import prepare
from ddm.errors import RequestError

SHAPE = (3, 16, 16)
BYTES, PIXELS = 200_000, 500_000


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def picture(data: bytes | str, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    text = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    return picture_from(text, shape, most_bytes=BYTES, most_pixels=PIXELS)


def attempt(data: bytes) -> str:
    """``read``, or why it was refused; nothing else may be raised."""
    try:
        return "read" if picture(data).shape == SHAPE else "of another shape"
    except RequestError as error:
        return str(error)


def some(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(levels.squeeze(), mode if channels > 1 else "L")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG whose header says so, whatever its pixels are."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format, options", [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True})])
def test_pictures_become_what_the_data_pipeline_makes_of_them(format: str, options: dict):
    data = encoded(some(), format, **options)
    assert picture(data).equal(torch.tensor(prepare(data, "RGB", 16)))
    assert picture(data).shape == SHAPE


def test_a_picture_of_the_models_size_comes_through_in_every_pixel():
    image = some(16, 16)
    found = picture("data:image/png;base64," + base64.b64encode(encoded(image)).decode())
    assert found.permute(1, 2, 0).equal(torch.tensor(np.array(image)))


def test_the_mode_is_that_of_the_model():
    assert picture(encoded(some()), (1, 16, 16)).shape == (1, 16, 16)
    assert picture(encoded(some(mode="RGBA")), (4, 16, 16)).shape == (4, 16, 16)


def test_cmyk_is_converted():
    image = Image.new("CMYK", (20, 20), (255, 0, 0, 0))
    red, green, blue = picture(encoded(image, "JPEG", quality=100)).float().flatten(1).mean(1).tolist()
    assert red < 30 and green > 200 and blue > 200


def test_sixteen_bits_become_eight_and_not_white():
    levels = np.full((20, 20), 257 * 77, dtype=np.uint16)
    assert set(picture(encoded(Image.fromarray(levels))).flatten().tolist()) == {77}


def test_what_is_transparent_is_white():
    assert set(picture(encoded(Image.new("RGBA", (8, 8), (9, 9, 9, 0)))).flatten().tolist()) == {255}


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    for format in ("PNG", "WEBP"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
        assert picture(data)[:, 5, 5].tolist() == [255, 0, 0], format


def test_a_camera_held_sideways_is_turned_upright():
    image, exif = Image.new("RGB", (30, 30), "white"), Image.Exif()
    image.paste("black", (0, 0, 30, 15))
    exif[0x0112] = 6
    found = picture(encoded(image, "JPEG", exif=exif, quality=100))
    assert found[:, 8, 14].float().mean() < 60 and found[:, 8, 1].float().mean() > 200, "the top is at the right now"


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "ICO", "PPM", "PDF", "EPS", "JPEG2000", "TGA", "DDS"])
def test_other_types_are_refused_by_their_content(format: str):
    data = encoded(some(), format)
    with pytest.raises(RequestError, match="this type of file is not allowed; allowed: a PNG, JPEG or WebP file"):
        picture(data)
    with pytest.raises(RequestError, match="this type of file"):
        picture("data:image/png;base64," + base64.b64encode(data).decode())


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "there is none yet"),
        ("", "there is none yet"),
        ("   ", "there is none yet"),
        (7, "there is none yet"),
        (["a"], "there is none yet"),
        ({"path": "/etc/passwd"}, "there is none yet"),
        ("/etc/passwd", "not allowed|not a file in base64|damaged"),
        ("http://localhost/a.png", "not a file in base64"),
        ("data:image/png;base64,???", "not a file in base64"),
        ("ä" * 10, "not a file in base64"),
        ("data:,", "not allowed"),
        (base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(), "this type of file"),
        (base64.b64encode(b"#!/bin/sh\nexit 1").decode(), "this type of file"),
    ],
)
def test_what_is_no_file_is_refused(text: object, words: str):
    with pytest.raises(RequestError, match=words) as caught:
        picture_from(text, SHAPE, most_bytes=BYTES, most_pixels=PIXELS)
    assert "passwd" not in str(caught.value)


def test_too_many_bytes_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(RequestError, match="a file of 225 kB is not allowed; allowed: up to 200 kB"):
        picture("A" * 300_000)


def test_the_limit_of_bytes_itself_is_allowed():
    data = encoded(some())
    text = base64.b64encode(data).decode()
    assert picture_from(text, SHAPE, most_bytes=len(data), most_pixels=PIXELS).shape == SHAPE
    with pytest.raises(RequestError, match="is not allowed"):
        picture_from(text, SHAPE, most_bytes=len(data) - 6, most_pixels=PIXELS)


@pytest.mark.parametrize("width, height", [(1000, 501), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)])
def test_too_many_pixels_are_refused_by_the_header(width: int, height: int):
    data = png(width, height, chunk(b"IDAT", zlib.compress(bytes(1000))))
    with pytest.raises(
        RequestError, match=r"pixels are not allowed; allowed: 500,000|too many pixels; allowed: 500,000"
    ):
        picture(data)


def bombs() -> dict[str, bytes]:
    """Small files that unpack to much."""
    zeros = zlib.compressobj(9)
    rows = b"".join(zeros.compress(bytes(3 * 15_000 + 1)) for _ in range(9000)) + zeros.flush()
    text = zlib.compress(bytes(150_000_000), 9)
    return {
        "pixels": png(15_000, 9000, chunk(b"IDAT", rows[:140_000])),
        "webp": encoded(Image.new("RGB", (16_383, 8000)), "WEBP", lossless=True, quality=0, method=0),
        "text": png(16, 16, chunk(b"zTXt", b"a\0\0" + text), chunk(b"IDAT", zlib.compress(bytes(16 * 49)))),
        "profile": png(16, 16, chunk(b"iCCP", b"a\0\0" + text), chunk(b"IDAT", zlib.compress(bytes(16 * 49)))),
        "more": png(16, 16, chunk(b"IDAT", text)),
    }


WATCHED = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from test_studio_uploads import attempt, bombs, encoded, some

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

attempt(encoded(some()))
files = {path.name: path.read_bytes() for path in sorted(pathlib.Path(sys.argv[2]).iterdir())}
for name, data in files.items():
    before, started = peak(), time.monotonic()
    outcome = attempt(data)
    print(name, peak() - before, round(time.monotonic() - started, 3), outcome, sep="|")
before = peak()
_ = bytearray(b"a" * 100_000_000)
print("seen", peak() - before, 0, "", sep="|")
"""
"""Reads every file of a folder and says how many kilobytes the peak of its memory rose, in a process of its own: a peak
never falls, and the tests before this one had theirs."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of the memory is not told here")
def test_bombs_take_neither_time_nor_memory(tmp_path: Path):
    for name, data in bombs().items():
        assert len(data) < BYTES
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", WATCHED, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = {name: rest for name, *rest in (line.split("|") for line in done.stdout.splitlines())}
    assert int(found.pop("seen")[0]) > 80 * 1024, "a peak is seen"
    assert len(found) == 5
    for name, (kilobytes, seconds, outcome) in found.items():
        assert outcome.startswith("picture: ") or (outcome == "read" and name in ("profile", "more")), (name, outcome)
        assert float(seconds) < 1 and int(kilobytes) < 32 * 1024, (name, kilobytes, seconds)


def test_a_jpeg_of_very_many_passes_is_refused():
    plain = encoded(some(400, 400), "JPEG", progressive=True)
    assert picture(plain).shape == SHAPE, "a usual progressive one is allowed"
    start = plain.rindex(b"\xff\xda")
    header = plain[start : start + 2 + int.from_bytes(plain[start + 2 : start + 4], "big")]
    with pytest.raises(RequestError, match=f"passes over a JPEG are not allowed; allowed: {SCANS}"):
        picture(plain[:start] + header * 2000 + plain[start:])


def test_cut_and_changed_files_are_refused_or_read_and_nothing_else():
    random.seed(0)
    outcomes = set()
    for format in ("PNG", "JPEG", "WEBP"):
        whole = encoded(some(60, 50), format)
        for cut in range(0, len(whole), max(1, len(whole) // 40)):
            changed = bytearray(whole)
            changed[random.randrange(len(whole))] ^= 1 << random.randrange(8)
            for data in (whole[:cut], bytes(changed)):
                outcomes.add(attempt(data))
    assert "read" in outcomes and len(outcomes) > 1
    assert all(each == "read" or each.startswith("picture: ") for each in outcomes)


def test_a_colour_profile_does_no_harm():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert picture(encoded(some(), icc_profile=profile)).shape == SHAPE


def test_masks_are_read_row_by_row():
    rows = ["1" + "0" * 15, *["0" * 16] * 14, "0" * 15 + "1"]
    found = mask_from("\n".join(rows), SHAPE)
    assert found.dtype == torch.bool and found.shape == (1, 16, 16)
    assert found.nonzero().tolist() == [[0, 0, 0], [0, 15, 15]]
    assert found.equal(mask_from("".join(rows), SHAPE))


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "that is no mask; allowed: 256 digits 0 and 1"),
        (1, "that is no mask"),
        (["1"] * 256, "that is no mask"),
        ("1" * 10_000, "that is no mask"),
        ("", "nothing is painted"),
        ("0" * 256, "nothing is painted"),
        ("1" * 255, "255 signs are not allowed; allowed: 256 digits"),
        ("2" * 256, "256 signs are not allowed"),
        ("1" * 255 + "\u0661", "256 signs are not allowed"),
    ],
)
def test_bad_masks_are_refused(text: object, words: str):
    with pytest.raises(RequestError, match=words):
        mask_from(text, SHAPE)
