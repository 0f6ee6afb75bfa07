"""Parquet files and the hub: what is taken from their columns."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from ddm.data import BadPicture, ImageSet
from ddm.errors import RequestError

Load = Callable[..., ImageSet]
CLASSES = datasets.ClassLabel(names=["zebra", "ape"])


def png(number: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(features: dict[str, Any] | None = None, count: int = 6, **columns: list[Any]) -> datasets.Dataset:
    columns = {"image": [png(number) for number in range(count)], **columns}
    features = {"image": datasets.Image(decode=False), **(features or {})}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def written(made: datasets.Dataset, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    made.to_parquet(str(path))
    return str(path)


def test_file_with_classes(load: Load, tmp_path: Path):
    path = written(table({"label": CLASSES}, label=[0, 1, 1, 0, 1, 1]), tmp_path / "x.parquet")
    data = load(f"parquet(path={path!r})", image_size=8)
    assert data.classes == ("zebra", "ape")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1, 0, 1, 1]
    wanted = np.asarray(Image.open(io.BytesIO(png(3)["bytes"]))).copy()
    assert torch.equal(data.pixels[3], torch.from_numpy(wanted).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("feature", "values", "classes", "labels"),
    [
        (datasets.Value("int64"), [7, 3, 3, 7, 7, 3], ("3", "7"), [1, 0, 0, 1, 1, 0]),
        (datasets.Value("string"), ["b", "a", "b", "c", "a", "b"], ("a", "b", "c"), [1, 0, 1, 2, 0, 1]),
        (datasets.Value("bool"), [True, False] * 3, ("False", "True"), [1, 0] * 3),
        (CLASSES, [-1] * 6, (), None),
        (datasets.Value("int64"), [None] * 6, (), None),
    ],
)
def test_labels_of_other_types(load: Load, tmp_path: Path, feature: Any, values: list, classes: tuple, labels: Any):
    path = written(table({"label": feature}, label=values), tmp_path / "x.parquet")
    data = load(f"parquet(path={path!r})", image_size=8)
    assert data.classes == classes
    assert (None if data.labels is None else data.labels.tolist()) == labels


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (CLASSES, [0, -1, 0, 1, 1, 1], "label='label' is empty in 1 of 6 rows; label=\"\" goes without labels"),
        (datasets.Value("float32"), [0.5] * 6, "label='label' holds neither whole numbers nor texts; label="),
        (datasets.Value("int64"), list(range(6)), "has 6 different values, too many for classes; label="),
    ],
)
def test_labels_that_are_none(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feature: Any, values: list, message: str
):
    monkeypatch.setattr("ddm.data.table.MAX_CLASSES", 5)
    path = written(table({"label": feature}, label=values), tmp_path / "x.parquet")
    with pytest.raises(RequestError) as caught:
        load(f"parquet(path={path!r})", image_size=8)
    assert message in str(caught.value)
    assert load(f'parquet(path={path!r}, label="")', image_size=8).labels is None


def test_fine_labels_are_preferred_and_others_can_be_asked_for(load: Load, tmp_path: Path):
    made = table({"coarse": CLASSES, "fine_label": CLASSES}, coarse=[0] * 6, fine_label=[1] * 6)
    path = written(made, tmp_path / "x.parquet")
    assert load(f"parquet(path={path!r})", image_size=8).labels.tolist() == [1] * 6
    assert load(f"parquet(path={path!r}, label='coarse')", image_size=8).labels.tolist() == [0] * 6


def test_only_column_of_classes_is_the_label(load: Load, tmp_path: Path):
    path = written(
        table({"kind": CLASSES, "n": datasets.Value("int64")}, kind=[0] * 6, n=[5] * 6), tmp_path / "x.parquet"
    )
    assert load(f"parquet(path={path!r})", image_size=8).classes == ("zebra", "ape")


def test_several_columns_of_classes_are_ambiguous(load: Load, tmp_path: Path):
    path = written(table({"a": CLASSES, "b": CLASSES}, a=[0] * 6, b=[1] * 6), tmp_path / "x.parquet")
    with pytest.raises(RequestError, match="several columns hold classes; write label= and one of a, b; label="):
        load(f"parquet(path={path!r})")


def test_columns_of_images(load: Load, tmp_path: Path):
    other = [png(100 + number) for number in range(6)]
    two = table({"other": datasets.Image(decode=False)}, other=other)
    path = written(two, tmp_path / "x.parquet")
    first, second = load(f"parquet(path={path!r})"), load(f"parquet(path={path!r}, column='other')")
    assert first.digest != second.digest
    path = written(two.rename_column("image", "more"), tmp_path / "y.parquet")
    with pytest.raises(RequestError, match="several columns hold pictures; write column= and one of more, other"):
        load(f"parquet(path={path!r})")
    with pytest.raises(RequestError, match=r"column: 'mor' is unknown \(did you mean 'more'\?\); allowed: more, other"):
        load(f"parquet(path={path!r}, column='mor')")
    with pytest.raises(RequestError, match="label: 'x' is unknown; allowed: more, other"):
        load(f"parquet(path={path!r}, column='more', label='x')")


def test_columns_without_a_description_are_recognised(load: Load, tmp_path: Path):
    """Written by another program than ``datasets``: a struct of bytes and path, or nothing but bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [png(number) for number in range(6)]
    for name, column in (("struct", pa.array(rows)), ("bytes", pa.array([row["bytes"] for row in rows]))):
        pq.write_table(pa.table({"x": column}), tmp_path / f"{name}.parquet")
    one, other = (load(f"parquet(path={str(tmp_path / name)!r})") for name in ("struct.parquet", "bytes.parquet"))
    assert one.digest == other.digest
    assert one.count == 6


def test_no_pictures_in_the_table(load: Load, tmp_path: Path):
    made = datasets.Dataset.from_dict({"text": ["a"], "n": [1]})
    path = written(made, tmp_path / "x.parquet")
    with pytest.raises(RequestError, match=r"no column holds pictures; its columns are text, n$"):
        load(f"parquet(path={path!r})")
    with pytest.raises(RequestError, match=r"column='text' holds no encoded pictures$"):
        load(f"parquet(path={path!r}, column='text')")


def test_bad_rows_are_named_by_number_and_paths_are_not_followed(load: Load, tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    rows = [png(number) for number in range(6)]
    rows[2]["bytes"] = rows[2]["bytes"][:60]
    rows[4] = {"bytes": None, "path": str(tmp_path / "secret.png")}
    path = written(table({"label": CLASSES}, image=rows, label=[0, 0, 1, 0, 1, 1]), tmp_path / "x.parquet")
    data = load(f"parquet(path={path!r}, max_bad=0.5)", image_size=8)
    assert [bad.name for bad in data.bad] == ["row 2", "row 4"]
    assert data.bad[1] == BadPicture("row 4", "empty")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1]


def test_splits_of_a_folder(load: Load, tmp_path: Path):
    root = tmp_path / "set"
    for number, count in enumerate((3, 4)):
        written(table(count=count), root / "plain_text" / f"train-0000{number}-of-00002.parquet")
    written(table(count=2), root / "test.parquet")
    counts = [load(f"parquet(path={str(root)!r}, split={split!r})").count for split in ("train", "test")]
    assert counts == [7, 2]
    assert load(f"parquet(path={str(root)!r})").count == 7
    with pytest.raises(
        RequestError, match=r"split: 'tset' is unknown \(did you mean 'test'\?\); allowed: test, train$"
    ):
        load(f"parquet(path={str(root)!r}, split='tset')")


def test_folder_without_usual_splits_is_all_train(load: Load, tmp_path: Path):
    for number in range(2):
        written(table(count=2), tmp_path / "set" / f"part{number}.parquet")
    assert load(f"parquet(path={str(tmp_path / 'set')!r})").count == 4
    with pytest.raises(RequestError, match=r"split: 'test' is unknown; allowed: train$"):
        load(f"parquet(path={str(tmp_path / 'set')!r}, split='test')")


def test_parquet_that_is_not_there_or_not_parquet(load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(RequestError, match=r"^data: parquet\(path='/no/such'\): /no/such is not there$"):
        load('parquet(path="/no/such")')
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"empty has no \.parquet files$"):
        load(f"parquet(path={str(tmp_path / 'empty')!r})")
    (tmp_path / "x.parquet").write_text("something else altogether")
    with pytest.raises(RequestError, match="cannot be read as parquet: Parquet magic bytes not found") as caught:
        load(f"parquet(path={str(tmp_path / 'x.parquet')!r})")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_progress_bars_are_as_they_were(load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = written(table(), tmp_path / "x.parquet")
    datasets.enable_progress_bars()
    load(f"parquet(path={path!r})", image_size=8)
    assert not datasets.are_progress_bars_disabled()
    assert capfd.readouterr() == ("", "")


def test_nothing_is_left_beside_the_cache(load: Load, tmp_path: Path):
    load(f"parquet(path={written(table(), tmp_path / 'x.parquet')!r})")
    (kept,) = (tmp_path / "cache").iterdir()
    assert sorted(each.name for each in kept.iterdir()) == ["info.json", "pixels.npy"]


def test_hub(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_dataset(*arguments: Any, **options: Any) -> datasets.Dataset:
        asked.append((arguments, options))
        return made

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "downloads")
    (tmp_path / "downloads").mkdir()
    rows = [png(number) for number in range(4)]
    for number, folder in ((1, "downloads"), (2, "elsewhere")):
        path = tmp_path / folder / "x.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(rows[number]["bytes"])
        rows[number] = {"bytes": None, "path": str(path)}
    made = table({"label": CLASSES}, image=rows, label=[0, 1, 1, 1])
    data = load('hub(id="me/cats", config="small", split="test", max_bad=0.3)', image_size=8)
    assert asked == [(("me/cats", "small"), {"split": "test", "revision": None})]
    assert data.classes == ("zebra", "ape")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]
    assert data.bad == (BadPicture("row 2", "empty"),)
    made = made.select([0, 1, 3])
    assert load('hub(id="me/cats")', image_size=8).digest == data.digest


def test_hub_that_cannot_be_reached(load: Load, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RequestError) as caught:
        load('hub(id="me/cats")')
    message = str(caught.value)
    assert message.startswith("data: hub(id='me/cats'): the Hugging Face hub cannot be reached (")
    assert message.endswith('; without it, name files of your own: parquet(path="...") or folder(path="...")')
    assert "\n" not in message
    monkeypatch.delenv("DDM_DATA", raising=False)
    with pytest.raises(RequestError, match=r"cannot be reached .* \(or set DDM_DATA to a folder with cifar10/\)$"):
        load("cifar10")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("Unknown split \"x\". Should be one of ['train']."), 'Unknown split "x". Should be one of'),
        (RuntimeError("Dataset scripts are no longer supported"), "Dataset scripts are no longer supported"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'me/cats' doesn't exist"), "is the name right, and are you"),
    ],
)
def test_hub_refuses(load: Load, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str):
    def load_dataset(*arguments: Any, **options: Any):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(RequestError) as caught:
        load('hub(id="me/cats")')
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["../cats", "a/b/c", "here"])
def test_hub_never_reads_a_folder_of_this_machine(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(RequestError, match=r"is not a name on the hub; write owner/name, or folder\(path=...\)"):
        load(f"hub(id={name!r})")
