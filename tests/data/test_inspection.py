from pathlib import Path

import pytest
import torch

from ddm.data import BadPicture, ImageSet, inspect


def noise(count: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_sound_set_has_no_warnings():
    pixels = noise(2500)
    found = inspect(ImageSet(pixels, torch.arange(2500) % 2, ("a", "b"), name="made", digest="d"))
    assert found.classes == {"a": 1250, "b": 1250}
    assert (found.name, found.digest, found.count, found.channels, found.image_size) == ("made", "d", 2500, 3, (4, 4))
    scaled = pixels.double() / 127.5 - 1
    assert found.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert found.std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist())
    assert (found.duplicates, found.flat, found.gray, found.bad, found.warnings) == (0, 0, 0, (), ())


def test_set_with_everything_wrong():
    pixels = noise(300, 1).expand(-1, 3, -1, -1).clone()
    pixels[100:110] = pixels[0]
    pixels[200:205] = torch.arange(100, 105, dtype=torch.uint8)[:, None, None, None]
    labels = torch.zeros(300, dtype=torch.int64)
    labels[:7] = 1
    bad = (BadPicture("x.png", "torn"),)
    found = inspect(ImageSet(pixels, labels, ("many", "few"), bad=bad))
    assert (found.duplicates, found.flat, found.gray) == (10, 5, 300)
    tiny, uneven, duplicates, flat, gray, unread = found.warnings
    assert tiny.startswith("Only 300 pictures: a network learns so few by heart")
    assert uneven == "Labels are very uneven: 293 of 'many' and 7 of 'few'; rare ones will look worse."
    assert duplicates.startswith("10 pictures equal an earlier one")
    assert flat == "5 pictures are of nearly one colour: are they broken or empty?"
    assert gray == 'All pictures are gray but stored in 3 channels; mode="L" trains faster on one.'
    assert unread == "1 pictures could not be read and were left out, first x.png."


def test_gray_and_transparent_sets():
    assert inspect(ImageSet(noise(10, 1))).gray == 0
    transparent = torch.cat((noise(10, 1).expand(-1, 3, -1, -1), noise(10, 1)), dim=1)
    assert inspect(ImageSet(transparent)).gray == 10


def test_nothing_is_printed_or_changed(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    pixels = noise(20)
    before = pixels.clone()
    assert inspect(ImageSet(pixels)) == inspect(ImageSet(pixels))
    assert torch.equal(pixels, before)
    assert capfd.readouterr() == ("", "")
