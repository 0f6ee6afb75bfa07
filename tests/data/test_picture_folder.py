import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.data import BadPicture, ImageSet
from ddm.errors import RequestError

Load = Callable[..., ImageSet]


def test_sub_folders_are_labels(load: Load, pictures: Path):
    data = load(f"folder(path={str(pictures)!r})", image_size=8)
    assert data.classes == ("ant", "bee", "cat")
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.name == f"folder(path={str(pictures)!r})"
    first = torch.from_numpy(np.asarray(Image.open(pictures / "ant" / "01.png")).copy()).permute(2, 0, 1)
    assert torch.equal(data.pixels[0], first)
    assert (data.count, data.channels, data.image_size, data.bad) == (12, 3, (8, 8), ())


def test_sub_folders_below_sub_folders_belong_to_the_label(load: Load, pictures: Path):
    shutil.move(str(pictures / "cat"), pictures / "bee" / "inner")
    data = load(f"folder(path={str(pictures)!r})", image_size=8)
    assert data.classes == ("ant", "bee")
    assert torch.bincount(data.labels).tolist() == [4, 8]


@pytest.mark.parametrize("choice", ["folder(path={!r})", "folder(path={!r}, labels=False)"])
def test_pictures_side_by_side_have_no_labels(load: Load, pictures: Path, choice: str):
    data = load(choice.format(str(pictures / "ant")), image_size=8)
    assert (data.labels, data.classes, data.count) == (None, (), 4)


def test_home_folder(load: Load, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(pictures.parent))
    monkeypatch.setenv("USERPROFILE", str(pictures.parent))
    data = load('folder(path="~/pictures", mode="L")', image_size=8)
    assert (data.count, data.channels) == (12, 1)
    assert data.name == "folder(path='~/pictures', mode='L')"


def test_links_are_followed_but_not_in_circles(load: Load, pictures: Path, tmp_path: Path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "all").symlink_to(pictures, target_is_directory=True)
    (pictures / "ant" / "again").symlink_to(pictures, target_is_directory=True)
    assert load(f"folder(path={str(tmp_path / 'linked')!r})", image_size=8).count == 12


def test_digest_is_of_the_content_not_of_the_place(load: Load, pictures: Path, tmp_path: Path):
    one = load(f"folder(path={str(pictures)!r})", image_size=8)
    other = load(f"folder(path={str(shutil.move(pictures, tmp_path / 'moved'))!r})", image_size=8)
    assert one.digest == other.digest
    assert len(list((tmp_path / "cache").iterdir())) == 1
    (tmp_path / "moved" / "ant" / "01.png").unlink()
    assert load(f"folder(path={str(tmp_path / 'moved')!r})", image_size=8).digest != one.digest


def test_size_and_mode_are_kept_apart(load: Load, pictures: Path):
    choice = f"folder(path={str(pictures)!r})"
    digests = {load(choice, image_size=size).digest for size in (4, 8, 16)}
    gray = load(f"folder(path={str(pictures)!r}, mode='L')", image_size=8)
    assert len(digests | {gray.digest}) == 4
    assert load(choice, image_size=16).image_size == (16, 16)


def fifty(root: Path) -> Path:
    root.mkdir()
    for number in range(50):
        Image.new("L", (4, 4), 5 * number).save(root / f"{number:02d}.png")
    (root / "07.png").write_text("I only say that I am a picture")
    return root


def test_bad_picture_is_counted_named_and_left_out(load: Load, tmp_path: Path):
    root = fifty(tmp_path / "fifty")
    data = load(f"folder(path={str(root)!r}, max_bad=0.05, mode='L')", image_size=4)
    assert data.count == 49
    assert data.bad == (BadPicture("07.png", "not a PNG, JPEG, WEBP, BMP, GIF, TIFF picture"),)
    assert data.pixels[:, 0, 0, 0].tolist() == [5 * number for number in range(50) if number != 7]


def test_labels_stay_with_their_pictures_when_one_is_bad(load: Load, pictures: Path):
    (pictures / "bee" / "02.png").write_bytes(b"")
    data = load(f"folder(path={str(pictures)!r}, max_bad=0.1)", image_size=8)
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    assert data.bad[0].name == "bee/02.png"


def test_too_many_bad_pictures_are_refused_also_from_the_cache(load: Load, tmp_path: Path):
    path = str(fifty(tmp_path / "fifty"))
    message = (
        f"data: folder(path={path!r}): 1 of 50 pictures cannot be read (07.png: not a PNG, JPEG, WEBP, BMP, GIF, TIFF "
        "picture); repair or remove them, or leave them out with max_bad=0.03 (it is 0.01)"
    )
    for _ in range(2):
        with pytest.raises(RequestError) as caught:
            load(f"folder(path={path!r})", image_size=4)
        assert str(caught.value) == message
    assert load(f"folder(path={path!r}, max_bad=0.03)", image_size=4).count == 49


def test_no_picture_that_can_be_read(load: Load, tmp_path: Path):
    for number in range(4):
        (tmp_path / f"{number}.png").write_text("x")
    reason = "not a PNG, JPEG, WEBP, BMP, GIF, TIFF picture"
    with pytest.raises(RequestError) as caught:
        load(f"folder(path={str(tmp_path)!r}, max_bad=1)", image_size=4)
    assert str(caught.value) == (
        f"data: folder(path={str(tmp_path)!r}, max_bad=1.0): none of its 4 pictures can be read "
        f"(0.png: {reason}; 1.png: {reason}; 2.png: {reason})"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_folder_that_is_not_there(load: Load):
    with pytest.raises(RequestError, match=r"^data: folder\(path='/no/such'\): /no/such is not there$"):
        load('folder(path="/no/such")')


def test_file_instead_of_a_folder(load: Load, pictures: Path):
    with pytest.raises(RequestError, match=r"readme.txt is a file, not a folder$"):
        load(f"folder(path={str(pictures / 'readme.txt')!r})")


def test_folder_without_pictures_says_what_it_has(load: Load, tmp_path: Path):
    (tmp_path / "x").mkdir()
    with pytest.raises(RequestError, match=r"x has no pictures; found: nothing; allowed: .bmp, .gif, .jpeg, .jpg, "):
        load(f"folder(path={str(tmp_path / 'x')!r})")
    for name in ("1.HEIC", "2.heic", "3.mov", "notes"):
        (tmp_path / "x" / name).write_text("x")
    with pytest.raises(RequestError, match=r"found: \.heic \(2\), \.mov \(1\), no ending \(1\); allowed: \.bmp"):
        load(f"folder(path={str(tmp_path / 'x')!r})")


def test_pictures_beside_sub_folders_are_ambiguous(load: Load, pictures: Path):
    shutil.copy(pictures / "ant" / "01.png", pictures / "lost.png")
    with pytest.raises(RequestError) as caught:
        load(f"folder(path={str(pictures)!r})")
    assert str(caught.value).endswith(
        "has 1 pictures (e.g. lost.png) beside its sub-folders (ant, bee, cat); "
        "move them into one, or take all without labels with labels=False"
    )
    assert load(f"folder(path={str(pictures)!r}, labels=False)", image_size=8).count == 13


def test_splits_are_not_taken_for_labels(load: Load, pictures: Path, tmp_path: Path):
    for name in ("train", "test"):
        shutil.copytree(pictures / "ant", tmp_path / "both" / name)
    with pytest.raises(RequestError, match=r"sub-folders test, train look like splits, not labels; write one of them"):
        load(f"folder(path={str(tmp_path / 'both')!r})")
    assert load(f"folder(path={str(tmp_path / 'both' / 'train')!r})", image_size=8).count == 4


def test_options_are_checked(load: Load):
    with pytest.raises(RequestError, match=r"data: folder needs path; write folder\(path, labels=True, mode='RGB'"):
        load("folder")
    with pytest.raises(RequestError, match=r"mode must be 'L', 'RGB' or 'RGBA'"):
        load('folder(path="x", mode="BGR")')
    with pytest.raises(RequestError, match=r"max_bad must be less than or equal to 1"):
        load('folder(path="x", max_bad=2)')
    with pytest.raises(RequestError, match=r"'split' is unknown.*allowed: labels, max_bad, mode, path"):
        load('folder(path="x", split="test")')
