import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.data import ImageSet, get_data, sources
from ddm.errors import RequestError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Load = Callable[..., ImageSet]


def test_the_papers_call(load: Load):
    data = load("shapes(count=20)", batch_size=8, image_size=16)
    sizes = []
    for x0, label in data:
        assert x0.shape[1:] == (3, 16, 16)
        assert -1 <= x0.min() < x0.max() <= 1
        sizes.append(len(label))
    assert sizes == [8, 8, 4]
    assert (data.name, data.batch_size) == ("shapes(count=20)", 8)


def test_mean_and_std_are_those_of_the_pictures(load: Load):
    data = load("shapes(count=20)")
    x0 = data.pixels.double() / 127.5 - 1
    assert (data.mean, data.std) == pytest.approx((x0.mean().item(), x0.std(correction=0).item()))


def test_pictures_are_mapped_and_writable_without_harm(load: Load):
    data = load("shapes(count=20)")
    data.pixels.zero_()
    assert load("shapes(count=20)").pixels.max() == 255


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            "cifar",
            "data: 'cifar' is unknown (did you mean 'cifar10'?); "
            "allowed: arrays, cifar10, folder, hub, parquet, shapes",
        ),
        ("shapes(3)", "data: 'shapes(3)' has an option without a name; write shapes(option=value, ...)"),
        ("cifar10(split='val')", "data: cifar10(split='val'): split must be 'train' or 'test'"),
    ],
)
def test_choice_that_is_none(load: Load, choice: str, message: str):
    with pytest.raises(RequestError) as caught:
        load(choice)
    assert str(caught.value) == message


@pytest.mark.parametrize("field", ["batch_size", "image_size"])
def test_sizes_are_checked(load: Load, field: str):
    with pytest.raises(RequestError, match=f"^{field}: 0 is not allowed; allowed: whole numbers from 1$"):
        load("shapes(count=2)", **{field: 0})


def test_every_source_says_what_it_is():
    for name in sources:
        assert sources.summary(name).endswith(".")


def test_importing_is_light():
    heavy = ("datasets", "pyarrow", "pandas", "huggingface_hub")
    code = f"import sys, ddm.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"], capture_output=True
    )
    assert done.stdout.strip() == b"[]", done.stderr.decode()


def test_cifar10_that_is_not_in_ddm_data(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DDM_DATA", str(tmp_path))
    with pytest.raises(RequestError) as caught:
        load()
    assert str(caught.value) == (
        f"data: cifar10: {tmp_path / 'cifar10'} is not there (DDM_DATA is {str(tmp_path)!r}; unset it to use the hub)"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the tests on the whole of CIFAR-10, which takes seconds to decode."""
    return tmp_path_factory.mktemp("whole")


@pytest.mark.parametrize(("split", "count"), [("train", 50_000), ("test", 10_000)])
def test_cifar10_is_exact(cifar10: Path, whole: Path, split: str, count: int):
    import pyarrow.parquet as pq

    data = get_data(f'cifar10(split="{split}")', cache=whole)
    assert data.count == count
    assert data.classes == CLASSES
    assert torch.bincount(data.labels).tolist() == [count // 10] * 10
    files = sorted(cifar10.glob(f"{split}-*.parquet"))
    rows = [
        row for file in files for row in pq.read_table(file, columns=["img", "label"]).slice(0, 2000).to_pylist()[::20]
    ]
    starts = range(0, count, count // len(files))
    numbers = [number for start in starts for number in range(start, start + 2000, 20)]
    assert len(rows) == len(numbers) == 100 * len(files)
    for number, row in zip(numbers, rows):
        picture = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])))
        assert np.array_equal(data.pixels[number].permute(1, 2, 0).numpy(), picture)
        assert data.labels[number] == row["label"]


def test_cifar10_comes_quickly_the_second_time(cifar10: Path, whole: Path):
    get_data("cifar10", cache=whole)
    start = time.perf_counter()
    data = get_data("cifar10", cache=whole)
    assert time.perf_counter() - start < 5
    assert data.name == "cifar10"
    assert data.bad == ()
