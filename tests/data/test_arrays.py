from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ddm.data import ImageSet
from ddm.data.arrays import stored_size
from ddm.errors import RequestError

Load = Callable[..., ImageSet]
NOISE = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
NOISE[0, 0, 0, 0], NOISE[0, 0, 0, 1] = 0, 255
PIXELS = torch.from_numpy(NOISE).permute(0, 3, 1, 2)


def saved(path: Path, *positional: np.ndarray, **named: np.ndarray) -> str:
    if path.suffix == ".npy":
        np.save(path, positional[0])
    else:
        np.savez_compressed(path, *positional, **named)
    return str(path)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (NOISE, ""),
        (NOISE.transpose(0, 3, 1, 2), ""),
        ((NOISE / 255).astype(np.float32), ""),
        ((NOISE / 127.5 - 1).astype(np.float32), ""),
        (NOISE / 127.5 - 1, ", low=-1, high=1"),
        (NOISE.astype(np.int64), ", low=0, high=255"),
        (NOISE.astype(np.uint16) * 257, ", low=0, high=65535"),
    ],
)
def test_arrays_become_the_same_pictures(load: Load, tmp_path: Path, array: np.ndarray, options: str):
    data = load(f"arrays(path={saved(tmp_path / 'x.npy', array)!r}{options})", image_size=8)
    assert torch.equal(data.pixels, PIXELS)
    assert data.labels is None


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1"), ("anything", "label")])
def test_npz_with_labels(load: Load, tmp_path: Path, names: tuple[str, str]):
    labels = np.array([4, 2, 2, 4, 9], np.int32)
    path = saved(tmp_path / "x.npz", **{names[0]: NOISE, names[1]: labels})
    data = load(f"arrays(path={path!r})", image_size=8)
    assert torch.equal(data.pixels, PIXELS)
    assert data.classes == ("2", "4", "9")
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 0, 1, 2]
    assert load(f'arrays(path={path!r}, label="")', image_size=8).labels is None


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 7, 5, 3), (2, 3, 7, 5)])
def test_the_size_is_told_by_the_header(tmp_path: Path, shape: tuple[int, ...]):
    array = np.zeros(shape, np.float32)
    assert stored_size(Path(saved(tmp_path / "x.npy", array))) == (5, 7)
    assert stored_size(Path(saved(tmp_path / "x.npz", images=array, seeds=np.arange(2)))) == (5, 7)
    path = Path(saved(tmp_path / "y.npz", a=array, b=np.zeros((2, 9, 9)), z=np.arange(2)))
    assert stored_size(path, "b", "z") == (9, 9)


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 8, 8, 1), (5, 1, 8, 8)])
def test_gray(load: Load, tmp_path: Path, shape: tuple[int, ...]):
    path = saved(tmp_path / "x.npy", NOISE[..., 0].reshape(shape))
    assert torch.equal(load(f"arrays(path={path!r}, mode='L')", image_size=8).pixels, PIXELS[:, :1])
    assert torch.equal(load(f"arrays(path={path!r})", image_size=8).pixels, PIXELS[:, :1].expand(-1, 3, -1, -1))


def test_arrays_are_cropped_and_resized(load: Load, tmp_path: Path):
    path = saved(tmp_path / "x.npy", np.full((2, 10, 6, 3), 9, np.uint8))
    assert load(f"arrays(path={path!r})", image_size=4).image_size == (4, 4)


BAD = [
    (
        NOISE / 256,
        "its numbers are float64 from 0 to 0.996094, which leaves open what is black and what is white; write",
    ),
    (NOISE.astype(np.float32), "float32 from 0 to 255, which leaves open what is black"),
    (NOISE.astype(np.int16), "int16 from 0 to 255, which leaves open"),
    (NOISE / 127.5 * 2 - 2, "from -2 to 2, which leaves open"),
    (np.full((2, 8, 8), np.nan), "picture 0 has numbers that are not finite (NaN or infinity); make it again"),
    (NOISE > 9, "its numbers are bool; write uint8"),
    (NOISE[0, 0], "its shape [8, 3] is not pictures; write [n, h, w], [n, h, w, c] or [n, c, h, w] with c = 1, 3 or 4"),
    (NOISE[..., :2], "its shape [5, 8, 8, 2] is not pictures"),
    (NOISE[:, :3], "its shape [5, 3, 8, 3] could be read in two ways"),
    (NOISE[:0], "it has no pictures"),
]


@pytest.mark.parametrize(("array", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_arrays_that_are_refused(load: Load, tmp_path: Path, array: np.ndarray, message: str):
    path = saved(tmp_path / "x.npy", array)
    with pytest.raises(RequestError) as caught:
        load(f"arrays(path={path!r})", image_size=8)
    assert str(caught.value).startswith(f"data: arrays(path={path!r}): ")
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", ["", ", low=-1, high=1"])
@pytest.mark.parametrize("shape", [(5, 8, 8, 3), (5, 3, 8, 8)])
def test_the_first_picture_that_is_not_finite_is_named(
    load: Load, tmp_path: Path, value: float, options: str, shape: tuple[int, ...]
):
    array = np.linspace(-1, 1, 960, dtype=np.float16).reshape(shape)
    array[2, 1, 2, 1] = array[4, 0, 0, 0] = value
    path = saved(tmp_path / "x.npz", array)
    with pytest.raises(RequestError, match=r"picture 2 has numbers that are not finite \(NaN or infinity\)"):
        load(f"arrays(path={path!r}{options})", image_size=8)


@pytest.mark.parametrize("options", ["low=0, high=1", "low=1, high=0", "low=0", "low=5, high=5"])
def test_ends_that_do_not_fit(load: Load, tmp_path: Path, options: str):
    path = saved(tmp_path / "x.npy", NOISE / 127.5 - 1)
    with pytest.raises(RequestError, match=r"which do not lie between low=|write both low= and high="):
        load(f"arrays(path={path!r}, {options})", image_size=8)


def test_names_in_the_archive(load: Load, tmp_path: Path):
    path = saved(tmp_path / "x.npz", a=NOISE, b=NOISE)
    with pytest.raises(RequestError, match="it has several arrays; write column= and one of a, b"):
        load(f"arrays(path={path!r})")
    with pytest.raises(RequestError, match="column: 'c' is unknown; allowed: a, b"):
        load(f"arrays(path={path!r}, column='c')")
    assert load(f"arrays(path={path!r}, column='b')", image_size=8).count == 5


def test_labels_that_do_not_fit(load: Load, tmp_path: Path):
    path = saved(tmp_path / "x.npz", images=NOISE, labels=np.zeros((5, 10)))
    with pytest.raises(RequestError, match=r"labels are float64 \[5, 10\], not a whole number for each picture"):
        load(f"arrays(path={path!r})")


def test_nothing_pickled_is_loaded(load: Load, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RequestError, match=r"cannot be read as \.npy or \.npz: .*objects"):
        load(f"arrays(path={str(tmp_path / 'x.npy')!r})")


def test_damaged_or_missing_file(load: Load, tmp_path: Path):
    path = Path(saved(tmp_path / "x.npz", NOISE))
    path.write_bytes(path.read_bytes()[:300])
    for choice in (str(path), str(tmp_path / "y.npy")):
        (tmp_path / "y.npy").write_text("no array")
        with pytest.raises(RequestError, match=r"cannot be read as \.npy or \.npz"):
            load(f"arrays(path={choice!r})")
    with pytest.raises(RequestError, match=r"/no/such\.npy is not there"):
        load('arrays(path="/no/such.npy")')
    with pytest.raises(RequestError, match="is a folder, not a file"):
        load(f"arrays(path={str(tmp_path)!r})")


def test_archive_that_claims_too_much(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddm.data.arrays.MAX_BYTES", 1000)
    with pytest.raises(RequestError, match=r"arr_0 would unpack to 1,088 bytes; allowed: 1,000"):
        load(f"arrays(path={saved(tmp_path / 'x.npz', NOISE)!r})")
