"""Parquet files as the hub keeps them."""

import re
from functools import partial
from pathlib import Path

from ddm.data.pictures import PREPARATION, Mode, prepare_all
from ddm.data.source import Reading, Share, Source, sources
from ddm.data.table import encoded, image_column, label_column, labels_of
from ddm.errors import RequestError, unknown
from ddm.storage import digest_of, digest_of_file

SHARD = re.compile(r"-\d+-of-\d+.*$")
SPLITS = ("train", "test", "validation", "valid", "val", "dev")


@sources.register
def parquet(
    *,
    path: str,
    split: str = "train",
    column: str | None = None,
    label: str | None = None,
    mode: Mode = "RGB",
    max_bad: Share = 0.01,
) -> Source:
    """A parquet file, or a folder of them, with a column of encoded pictures.

    In a folder the split is the name before ``-00000-of-00004``: ``train-00000-of-00004.parquet``, ``test.parquet``.
    Where no file is named after a usual split, all of them are ``train``, and so is a single file.

    Args:
        path: the file or the folder, searched at any depth; ``~`` is the home folder.
        split: which of its splits.
        column: of the pictures; detected where there is one, or one called image or img.
        label: column of the labels; detected where its name is usual or it is the only one of classes; "" for none.
        mode: gray, colour, or colour with transparency.
        max_bad: share of unreadable pictures above which the set is refused.

    Raises:
        RequestError: no such file or split, not parquet, no such column, or several to choose from.
    """
    files = _files(Path(path).expanduser(), split)
    try:
        content = [digest_of_file(file) for file in files]
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be read: {error.strerror}") from None
    digest = digest_of("parquet", PREPARATION, content, column, label, mode)
    return Source(digest, partial(_read, files, column, label, mode), max_bad)


def _files(root: Path, split: str) -> list[Path]:
    if root.is_file():
        files = {"train": [root]}
    elif root.is_dir():
        files = {}
        for file in sorted(root.rglob("*.parquet")):
            files.setdefault(SHARD.sub("", file.stem), []).append(file)
        if not files:
            raise RequestError(f"{root} has no .parquet files")
        if not set(files) & set(SPLITS):
            files = {"train": sorted(root.rglob("*.parquet"))}
    else:
        raise RequestError(f"{root} is not there")
    if split not in files:
        raise unknown("split", split, files)
    return files[split]


def _read(files: list[Path], column: str | None, label: str | None, mode: Mode, size: int, scratch: Path) -> Reading:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        table = datasets.Dataset.from_parquet([str(file) for file in files], cache_dir=str(scratch))
    except Exception as error:  # the library wraps pyarrow's own errors in several of its own
        cause = " ".join(str(error.__cause__ or error).split())
        raise RequestError(f"{files[0].parent} cannot be read as parquet: {cause}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    assert isinstance(table, datasets.Dataset)
    pictures = encoded(table, image_column(table, column))
    labels, classes = labels_of(table, label_column(table, label))
    return Reading(prepare_all(pictures, mode, size), labels, classes)
