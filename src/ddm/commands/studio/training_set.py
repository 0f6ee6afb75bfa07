"""The training pictures of a model, where they are at hand without a network, and those nearest to a sample."""

import functools
import os
from collections.abc import Generator

from torch import Tensor

from ddm.data import ImageSet, get_data, sources
from ddm.data.cifar10 import LOCAL
from ddm.errors import DdmError, RequestError
from ddm.runs import checkpoints
from ddm.runs.closest import Close, closest
from ddm.runs.model import Model
from ddm.runs.progress import Progress


def training_set(model: Model) -> ImageSet:
    """The pictures that a run learned from, at its size; read once and kept, memory-mapped.

    Raises:
        RequestError: they are not at hand, or no longer those of the training; names no file.
    """
    if model.config is None or model.path is None:
        raise RequestError(f"model: {model.name!r} is not allowed, it has no training pictures; allowed: a run")
    choice = sources.check(model.config.data)
    if _calls_out(choice.name):
        raise RequestError(f"data: the training pictures of {model.name} are not on this machine")
    try:
        data = _read(model.config.data, model.config.image_size)
        recorded = checkpoints.load(model.path, groups=[]).state["pictures"]["digest"]
    except (DdmError, OSError, KeyError):
        raise RequestError(f"data: the training pictures of {model.name} cannot be read here") from None
    if data.digest != recorded:
        raise RequestError(f"data: the pictures that are here are no longer those that {model.name} learned from")
    return data


@functools.lru_cache(maxsize=4)
def _read(choice: str, size: int) -> ImageSet:
    return get_data(choice, image_size=size)


def _calls_out(name: str) -> bool:
    """Whether a data set would be asked for on the hub."""
    if name == "cifar10" and os.environ.get(LOCAL):
        return False
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return name in ("cifar10", "hub") and not HF_HUB_OFFLINE


def training_picture(model: Model, number: int) -> tuple[Tensor, str]:
    """One of them, uint8 ``[c, h, w]``, and the name of its class; raises as :func:`training_set` does, and for a
    number that there is not."""
    data = training_set(model)
    if not 0 <= number < data.count:
        raise RequestError(f"number: {number} is not allowed; allowed: 0 to {data.count - 1:,}")
    label = "" if data.labels is None or not data.classes else data.classes[int(data.labels[number])]
    return data.pixels[number].clone(), label


def nearest_to(model: Model, pixels: Tensor) -> Generator[Progress, None, list[Close]]:
    """The training pictures that are nearest to pictures, uint8 ``[n, c, h, w]``, in pixels; in their order.

    Raises:
        RequestError: the training pictures are not at hand.
    """
    data = training_set(model)
    mirror = model.config is not None and model.config.train.flip
    found = yield from closest(pixels, data, mirror=mirror, count=len(pixels))
    return sorted(found, key=lambda each: each.place)
