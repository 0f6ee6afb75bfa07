from pathlib import Path

import pytest
import torch
from PIL import Image

from ddm.images import grid, save_png, to_float, to_pil, to_uint8
from ddm.seeding import PictureNoise, derive, generator


def test_every_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_float(levels)[[0, 255]].tolist() == [-1, 1]


def test_pictures_are_rounded_and_clamped():
    assert to_uint8(torch.tensor([-9.0, -1, 0.0, 1, 9, 1 / 127.5 * 0.6 - 1])).tolist() == [0, 0, 128, 255, 255, 1]


def test_grid_lays_pictures_out_row_by_row():
    pictures = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2)
    sheet = grid(pictures, scale=2)
    assert sheet.shape == (3, 2 * (1 + 2 * 3), 2 * (1 + 3 * 3))
    middles = [[int(sheet[0, 2 * (3 * row + 1), 2 * (3 * column + 1)]) for column in range(3)] for row in range(2)]
    assert middles == [[0, 1, 2], [3, 4, 255]]
    assert sheet[:, :2].min() == 255
    assert grid(pictures, columns=5, gap=0).shape == (3, 2, 10)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_png_holds_the_exact_pixels_and_the_text(tmp_path: Path, channels: int, mode: str):
    pixels = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    save_png(tmp_path / "deep" / "a.png", pixels, text={"ddm": "made by a test"})
    with Image.open(tmp_path / "deep" / "a.png") as picture:
        assert picture.mode == mode
        assert picture.size == (7, 5)
        assert picture.text["ddm"] == "made by a test"
        assert list(picture.tobytes()) == pixels.permute(1, 2, 0).flatten().tolist()
    assert to_pil(pixels).mode == mode


def test_picture_noise_belongs_to_the_seed():
    many, one = PictureNoise([3, 5, 9], (3, 4, 4)), PictureNoise([5], (3, 4, 4), dtype=torch.float64)
    for _ in range(2):
        drawn, alone = many(), one()
        assert torch.equal(drawn[1].double(), alone[0])
        assert not torch.equal(drawn[0], drawn[1])
    sample = PictureNoise(range(200), (1, 16, 16))()
    assert abs(float(sample.mean())) < 0.02
    assert float(sample.std()) == pytest.approx(1, abs=0.02)


def test_seeds_are_told_apart_by_what_they_are_for():
    assert derive(0, "noise", 1) == derive(0, "noise", 1)
    assert len({derive(0, "noise", 1), derive(0, "noise", 11), derive(1, "noise", 1), derive(0, "flip", 1)}) == 4
    assert 0 <= derive("x") < 2**63
    assert torch.equal(torch.rand(3, generator=generator(1)), torch.rand(3, generator=generator(1)))
