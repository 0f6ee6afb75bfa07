"""Every mode, format and oddity of a picture file, through the function that reads one."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ddm.data.pictures import FORMATS, Encoded, Mode, prepare, prepare_all
from ddm.data.source import BadPicture

RED, GREEN, WHITE = (255, 0, 0), (0, 128, 0), (255, 255, 255)


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def level(data: bytes, mode: Mode = "RGB") -> tuple[int, ...]:
    """The colour of the only pixel after reading."""
    return tuple(prepare(data, mode, 1)[:, 0, 0].tolist())


def palette_with_hole() -> Image.Image:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([*RED, 7, 7, 7])
    image.info["transparency"] = 1
    return image


ODD: dict[str, tuple[Image.Image, tuple[int, ...]]] = {
    "1-bit white": (Image.new("1", (1, 1), 1), WHITE),
    "1-bit black": (Image.new("1", (1, 1), 0), (0, 0, 0)),
    "gray": (Image.new("L", (1, 1), 77), (77, 77, 77)),
    "gray, half transparent": (Image.new("LA", (1, 1), (0, 128)), (127, 127, 127)),
    "palette": (Image.new("RGB", (1, 1), RED).quantize(2), RED),
    "palette, transparent": (palette_with_hole(), WHITE),
    "colour": (Image.new("RGB", (1, 1), GREEN), GREEN),
    "opaque": (Image.new("RGBA", (1, 1), (*RED, 255)), RED),
    "transparent": (Image.new("RGBA", (1, 1), (*RED, 0)), WHITE),
    "half transparent": (Image.new("RGBA", (1, 1), (*RED, 128)), (255, 127, 127)),
    "16-bit white": (Image.fromarray(np.full((1, 1), 65535, np.uint16)), WHITE),
    "16-bit middle": (Image.fromarray(np.full((1, 1), 128 * 257, np.uint16)), (128, 128, 128)),
    "16-bit low": (Image.fromarray(np.full((1, 1), 300, np.uint16)), (1, 1, 1)),
}


@pytest.mark.parametrize("name", ODD)
def test_every_mode_becomes_colour_on_white(name: str):
    image, wanted = ODD[name]
    assert level(stored(image)) == wanted


@pytest.mark.parametrize("name", ODD)
def test_every_mode_becomes_gray(name: str):
    image, wanted = ODD[name]
    red, green, blue = wanted
    assert level(stored(image), "L")[0] == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=1)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("gray", (77, 77, 77, 255)),
        ("colour", (*GREEN, 255)),
        ("transparent", (*RED, 0)),
        ("half transparent", (*RED, 128)),
        ("palette, transparent", (7, 7, 7, 0)),
        ("gray, half transparent", (0, 0, 0, 128)),
        ("16-bit middle", (128, 128, 128, 255)),
    ],
)
def test_transparency_is_kept_where_it_is_asked_for(name: str, wanted: tuple[int, ...]):
    assert level(stored(ODD[name][0]), "RGBA") == wanted


def test_cmyk():
    red, green, blue = level(stored(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert red > 240
    assert max(green, blue) < 20


def test_colour_key_of_a_png():
    image = Image.new("RGB", (1, 1), GREEN)
    assert level(stored(image, transparency=GREEN)) == WHITE


def test_32_bit_integers_of_a_16_bit_range_and_others():
    assert level(stored(Image.new("I", (1, 1), 65535), "TIFF")) == WHITE
    for image in (Image.new("I", (1, 1), 70000), Image.new("F", (1, 1), 0.5)):
        with pytest.raises(ValueError, match="have no defined white; save it with 8 or 16 bits"):
            level(stored(image, "TIFF"))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind: str):
    assert level(stored(Image.new("RGB", (4, 4), WHITE), kind)) == WHITE


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA"])
def test_no_other_decoder_is_given_a_file(kind: str):
    (found,) = prepare_all([Encoded("x", stored(Image.new("RGB", (16, 16)), kind))], "RGB", 16)
    assert found == BadPicture("x", "not a PNG, JPEG, WEBP, BMP, GIF, TIFF picture")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert level(stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)) == RED


def test_picture_is_turned_upright():
    lying = Image.new("RGB", (4, 4), RED)
    lying.paste(GREEN, (0, 0, 4, 2))  # green above; orientation 3 says that the camera stood on its head
    exif = Image.Exif()
    exif[0x0112] = 3
    array = prepare(stored(lying, exif=exif), "RGB", 4)
    assert tuple(array[:, 0, 0]) == RED
    assert tuple(array[:, 3, 0]) == GREEN


def test_picture_of_the_right_size_is_untouched():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(prepare(stored(Image.fromarray(noise)), "RGB", 32), noise.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(32, 41), (41, 32), (32, 33)])
def test_picture_of_the_right_height_or_width_is_only_cropped(shape: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    top, left = (shape[0] - 32) // 2, (shape[1] - 32) // 2
    assert np.array_equal(prepare(stored(Image.fromarray(noise)), "L", 32)[0], noise[top : top + 32, left : left + 32])


@pytest.mark.parametrize("size", [(300, 120), (120, 300), (16, 24)])
def test_nothing_is_squashed(size: tuple[int, int]):
    """A disc in the middle stays a disc, reduced and enlarged: as wide as high, with the right area."""
    image = Image.new("L", size)
    radius = min(size) / 4
    x, y = size[0] / 2, size[1] / 2
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius - 1, y + radius - 1), fill=255)
    disc = prepare(stored(image), "L", 64)[0] / 255
    wide, high = disc.sum(1).max(), disc.sum(0).max()
    assert wide == pytest.approx(high, abs=1.5)
    assert disc.sum() == pytest.approx(np.pi * 16**2, rel=0.06)


def test_reducing_averages_instead_of_picking_pixels():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(prepare(stored(Image.fromarray(stripes)), "L", 16)[0, :, 1:-1]) < 20


def test_order_is_kept_and_what_is_bad_is_named():
    good = [stored(Image.new("L", (2, 2), number % 256)) for number in range(600)]
    good[300] = b"no picture"
    good[301] = good[0][:-30]
    found = list(prepare_all((Encoded(str(number), data) for number, data in enumerate(good)), "L", 2))
    assert found[300] == BadPicture("300", "not a PNG, JPEG, WEBP, BMP, GIF, TIFF picture")
    assert isinstance(found[301], BadPicture)
    assert found[301].name == "301"
    levels = {number: array.max() for number, array in enumerate(found) if not isinstance(array, BadPicture)}
    assert levels == {number: number % 256 for number in range(600) if number not in (300, 301)}


def test_large_pictures_take_the_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddm.data.pictures.THUMBNAIL", 0)
    test_order_is_kept_and_what_is_bad_is_named()


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_file_is_bad(kind: str):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = stored(noise, kind)
    (found,) = prepare_all([Encoded("half", data[: len(data) // 2])], "RGB", 64)
    assert isinstance(found, BadPicture)
    assert found.name == "half"
    assert found.reason
    assert "\n" not in found.reason
    assert "0x" not in found.reason, "a reason is the same every time"


def test_empty_picture_is_bad():
    assert list(prepare_all([Encoded("x", None)], "RGB", 8)) == [BadPicture("x", "empty")]


@pytest.mark.parametrize("side", [9_000, 40_000])
def test_bomb_is_refused_before_it_is_decoded(side: int, tmp_path: Path):
    """A header that promises gigabytes; Pillow itself only warns of the first one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))))
    (found,) = prepare_all([Encoded("bomb.png", bomb)], "RGB", 32)
    assert isinstance(found, BadPicture)
    assert "pixels" in found.reason
