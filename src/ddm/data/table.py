"""Which column of a Hugging Face ``datasets`` table holds the pictures and which the labels, and reading them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddm.data.pictures import Encoded
from ddm.errors import RequestError, unknown

if TYPE_CHECKING:  # importing it takes seconds
    from datasets import Dataset

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label", "class")
MAX_CLASSES = 10_000

NO_LABELS = 'label="" goes without labels'


def image_column(table: "Dataset", column: str | None) -> str:
    """The column that was asked for, else the only one of images, or the one of them called ``image`` or ``img``."""
    if column is not None:
        if column not in table.features:
            raise unknown("column", column, table.column_names)
        if not _holds_images(table.features[column]):
            raise RequestError(f"column={column!r} holds no encoded pictures")
        return column
    found = [name for name, feature in table.features.items() if _holds_images(feature)]
    preferred = [name for name in IMAGES if name in found] or found
    if not found:
        raise RequestError(f"no column holds pictures; its columns are {', '.join(table.column_names)}")
    if len(found) > 1 and len(preferred) == len(found):
        raise RequestError(f"several columns hold pictures; write column= and one of {', '.join(found)}")
    return preferred[0]


def label_column(table: "Dataset", label: str | None) -> str | None:
    """The column that was asked for (``""``: none), else the usual name or the only one of classes, if there is one."""
    from datasets import ClassLabel

    if label is not None:
        if label and label not in table.features:
            raise unknown("label", label, table.column_names)
        return label or None
    classes = [name for name, feature in table.features.items() if isinstance(feature, ClassLabel)]
    usual = [name for name in LABELS if name in classes] or [name for name in LABELS if name in table.features]
    if not usual and len(classes) > 1:
        raise RequestError(f"several columns hold classes; write label= and one of {', '.join(classes)}; {NO_LABELS}")
    return next(iter(usual + classes), None)


def labels_of(table: "Dataset", column: str | None) -> tuple[list[int] | None, tuple[str, ...]]:
    """The label of every row as the number of its class, and the names of the classes.

    Names of a ``ClassLabel`` keep their order; other integers, texts and booleans are sorted.
    A column without a single label (test sets) counts as no column.
    """
    from datasets import ClassLabel

    if column is None:
        return None, ()
    feature, values = table.features[column], list(table[column])
    missing = [value is None or (isinstance(feature, ClassLabel) and value < 0) for value in values]
    if all(missing):
        return None, ()
    if any(missing):
        raise RequestError(f"label={column!r} is empty in {sum(missing)} of {len(values)} rows; {NO_LABELS}")
    if isinstance(feature, ClassLabel):
        return values, tuple(feature.names)
    if not all(isinstance(value, (int, str)) for value in values):
        raise RequestError(f"label={column!r} holds neither whole numbers nor texts; {NO_LABELS}")
    names = sorted(set(values))
    if len(names) > MAX_CLASSES:
        raise RequestError(f"label={column!r} has {len(names):,} different values, too many for classes; {NO_LABELS}")
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[value] for value in values], tuple(str(name) for name in names)


def encoded(table: "Dataset", column: str, folders: tuple[Path, ...] = ()) -> Iterator[Encoded]:
    """The pictures of a column as they were stored, named by the number of their row from 0.

    A picture may be a path instead of bytes where that lies in one of ``folders`` (what the hub's own tools unpacked);
    a table could name any file of this machine.
    """
    from datasets import Image

    rows = table.select_columns([column]).cast_column(column, Image(decode=False)).with_format("arrow")
    number = 0
    for part in rows.iter(batch_size=64):
        for row in part[column].to_pylist():  # pyright: ignore
            yield Encoded(f"row {number}", row and (row["bytes"] or _path(row["path"], folders)))
            number += 1


def _path(text: str | None, folders: tuple[Path, ...]) -> Path | None:
    path = Path(text).resolve() if text else None
    return path if path and any(path.is_relative_to(folder) for folder in folders) and path.is_file() else None


def _holds_images(feature: Any) -> bool:
    from datasets import Image, Value

    if isinstance(feature, dict):
        return {"bytes", "path"} <= set(feature)
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in ("binary", "large_binary"))
