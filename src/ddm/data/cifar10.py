"""CIFAR-10 (Krizhevsky 2009)."""

import os
from pathlib import Path
from typing import Literal

from ddm.data.hub import hub
from ddm.data.parquet import parquet
from ddm.data.source import Source, sources
from ddm.errors import RequestError

LOCAL = "DDM_DATA"
"""The environment variable that names a folder with data sets, one folder each."""


@sources.register
def cifar10(*, split: Literal["train", "test"] = "train") -> Source:
    """CIFAR-10: 50,000 (test: 10,000) colour pictures of 32x32 in ten classes.

    The hub's ``uoft-cs/cifar10``, or the folder ``$DDM_DATA/cifar10`` with the same parquet files where that is set.

    Args:
        split: ``train`` or ``test``.

    Raises:
        RequestError: it is not in ``$DDM_DATA``, or the hub cannot be reached.
    """
    root = os.environ.get(LOCAL)
    try:
        if root:
            return parquet(path=str(Path(root, "cifar10")), split=split, column="img", label="label")
        return hub(id="uoft-cs/cifar10", split=split, column="img", label="label")
    except RequestError as error:
        hint = f"{LOCAL} is {root!r}; unset it to use the hub" if root else f"or set {LOCAL} to a folder with cifar10/"
        raise RequestError(f"{error} ({hint})") from error
