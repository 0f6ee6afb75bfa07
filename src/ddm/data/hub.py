"""Data sets on the Hugging Face hub."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ddm.data.pictures import PREPARATION, Encoded, Mode, prepare_all
from ddm.data.source import Reading, Share, Source, sources
from ddm.data.table import encoded, image_column, label_column, labels_of
from ddm.errors import RequestError
from ddm.storage import digest_of

if TYPE_CHECKING:
    from datasets import Dataset

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@sources.register
def hub(
    *,
    id: str,
    config: str | None = None,
    revision: str | None = None,
    split: str = "train",
    column: str | None = None,
    label: str | None = None,
    mode: Mode = "RGB",
    max_bad: Share = 0.01,
) -> Source:
    """A data set of the Hugging Face hub, downloaded once into the hub's own cache.

    Args:
        id: ``owner/name`` as in its address.
        config: which of its configurations, where there are several.
        revision: branch, tag or commit; the newest by default.
        split: which of its splits.
        column: of the pictures; detected where there is one, or one called image or img.
        label: column of the labels; detected where its name is usual or it is the only one of classes; "" for none.
        mode: gray, colour, or colour with transparency.
        max_bad: share of unreadable pictures above which the set is refused.

    Raises:
        RequestError: no such data set, split or column, or the hub cannot be reached.
    """
    if not NAME.fullmatch(id) or os.path.exists(id):
        raise RequestError(f"id={id!r} is not a name on the hub; write owner/name, or folder(path=...) for a folder")
    table = _download(id, config, split, revision)
    images = image_column(table, column)
    labels, classes = labels_of(table, label_column(table, label))
    downloads = _downloads()

    def read(size: int, scratch: Path) -> Reading:
        return Reading(prepare_all(encoded(table, images, downloads), mode, size), labels, classes)

    content = _digest_of_pictures(encoded(table, images, downloads))
    return Source(digest_of("hub", PREPARATION, content, labels, classes, mode), read, max_bad)


def _download(id: str, config: str | None, split: str, revision: str | None) -> "Dataset":
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        table = datasets.load_dataset(id, config, split=split, revision=revision)
    except DatasetNotFoundError as error:
        raise RequestError(f"{_line(error)}; is the name right, and are you logged in where it is private?") from error
    except (OSError, HfHubHTTPError) as error:
        raise RequestError(
            f"the Hugging Face hub cannot be reached ({_line(error)}); "
            'without it, name files of your own: parquet(path="...") or folder(path="...")'
        ) from error
    except (ValueError, RuntimeError, DatasetsError) as error:
        raise RequestError(_line(error)) from error
    assert isinstance(table, datasets.Dataset)
    return table


def _downloads() -> tuple[Path, ...]:
    """The folders where the libraries put what they downloaded."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_DATASETS_CACHE).resolve(), Path(HF_HUB_CACHE).resolve()


def _digest_of_pictures(pictures: Iterable[Encoded]) -> str:
    content = hashlib.sha256()
    for picture in pictures:
        data = picture.data.read_bytes() if isinstance(picture.data, Path) else picture.data or b""
        content.update(len(data).to_bytes(8, "little") + data)
    return content.hexdigest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
