"""``get_data``: from a choice of data set to pictures in memory."""

from functools import partial
from pathlib import Path

import torch

from ddm.data import cache as caches
from ddm.data.imageset import ImageSet
from ddm.data.source import sources
from ddm.errors import RequestError
from ddm.storage import cache_folder, digest_of

FIELD = "data"


def get_data(
    dataset: str = "cifar10", batch_size: int = 32, image_size: int = 32, *, cache: Path | None = None
) -> ImageSet:
    """The pictures of a data set as squares of one size; the first call decodes them, later ones map the result.

    Args:
        dataset: a choice: ``cifar10``, ``cifar10(split="test")``, ``hub(id="owner/name")``, ``folder(path="~/cats")``,
            ``parquet(path="...")``, ``arrays(path="x.npz")``, ``shapes``.
        batch_size: pictures in a batch of :meth:`ImageSet.__iter__`.
        image_size: height and width in pixels; larger pictures are cropped to the centre square and reduced.
        cache: folder for the decoded pictures; the hub's folder for assets by default.

    Returns:
        The set, on the CPU and memory-mapped; its ``to`` moves it to a device.

    Raises:
        RequestError: one line that names the choice, what is wrong with it and what to do.
        DdmError: the cache cannot be written.
    """
    choice = sources.check(dataset, field=FIELD)
    for name, value in (("batch_size", batch_size), ("image_size", image_size)):
        if value < 1:
            raise RequestError(f"{name}: {value} is not allowed; allowed: whole numbers from 1")
    try:
        source = sources[choice.name](**choice.options)
        place = (cache or cache_folder("data")) / digest_of(source.digest, image_size)
        found = caches.stored(place, partial(source.read, image_size))
        _check_bad(found, source.max_bad, "max_bad" in sources.options(choice.name))
    except RequestError as error:
        raise RequestError(f"{FIELD}: {choice}: {error}") from error
    return ImageSet(
        pixels=torch.from_numpy(found.pixels),
        labels=None if found.labels is None else torch.from_numpy(found.labels),
        classes=found.classes,
        name=str(choice),
        digest=found.digest,
        bad=found.bad,
        batch_size=batch_size,
        mean=found.mean,
        std=found.std,
    )


def _check_bad(found: caches.Stored, max_bad: float, allowing: bool) -> None:
    total = len(found.pixels) + len(found.bad)
    share = len(found.bad) / total
    if share > max_bad:
        named = "; ".join(f"{each.name}: {each.reason}" for each in found.bad[:3])
        more = f"; and {len(found.bad) - 3} more" if len(found.bad) > 3 else ""
        allow = f", or leave them out with max_bad={share + 0.005:.2f} (it is {max_bad:g})" if allowing else ""
        raise RequestError(
            f"{len(found.bad)} of {total} pictures cannot be read ({named}{more}); repair or remove them{allow}"
        )
