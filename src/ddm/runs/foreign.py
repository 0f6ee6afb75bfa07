"""Sources of pictures that no run of ours made: folders, arrays, data sets and pipelines of diffusers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError

from ddm.data import get_data, sources
from ddm.data.arrays import stored_size
from ddm.data.folder import pictures_below
from ddm.errors import RequestError
from ddm.generators import FixedPictures, PipelineGenerator
from ddm.generators.pipeline_files import digest_of_pipeline, find_pipeline, load_pipeline
from ddm.registry import Choice
from ddm.runs.model import Model
from ddm.runs.naming import Named

IMAGE_SIZE = 32
"""Side of stored pictures where nothing else is asked for, as everywhere."""

LOOKED_AT = 64
"""So many files of a folder are opened to see how large they are."""


def load_fixed(named: Named, *, say: Callable[[str], None], image_size: int | None) -> Model:
    """The pictures of a folder, an array or a data set, in their stored order.

    Args:
        named: the source.
        say: told where pictures are not measured as they are stored.
        image_size: side of the squares that they become; 32 by default.

    Raises:
        RequestError: they cannot be had.
    """
    size = image_size or IMAGE_SIZE
    reader = {"folder": "folder", "npz": "arrays"}.get(named.kind)
    choice = named.text if reader is None else str(Choice(reader, {"path": named.text}))
    try:
        data = get_data(choice, image_size=size)
    except RequestError as error:
        raise RequestError(f"source: {str(error).removeprefix('data: ')}") from error
    other = next((found for found in stored_sizes(choice) if found != (size, size)), None)
    if other is not None:
        hint = f"; an image size of {other[0]} takes them as they are" if other[0] == other[1] else ""
        say(
            f"{named.kind}:{named.text} has pictures of {other[0]}x{other[1]}; they are cropped and resized to "
            f"{size}x{size}, which changes what is measured{hint}"
        )
    if data.bad:
        say(f"{named.kind}:{named.text} has {len(data.bad)} unreadable pictures, which are left out")
    name = data.name if named.kind == "data" else Path(named.text).expanduser().resolve().name
    return Model(name, named.kind, FixedPictures(data), data.digest, data.classes)


def load_foreign_pipeline(
    named: Named, *, place: torch.device, image_size: int | None, steps: int | None = None
) -> Model:
    """A pipeline of diffusers; raises :class:`RequestError` where it is not there or cannot be used."""
    folder = find_pipeline(named.text)
    generator = PipelineGenerator(load_pipeline(folder, place), steps=steps)
    check_size(image_size, generator.shape, "a pipeline")
    name = folder.resolve().name if Path(named.text).expanduser().is_dir() else named.text
    return Model(name, named.kind, generator, digest_of_pipeline(folder))


def check_size(image_size: int | None, shape: tuple[int, int, int], what: str) -> None:
    """Raise :class:`RequestError` where a model is asked for pictures of another size than its own."""
    _, height, width = shape
    if image_size is not None and (height, width) != (image_size, image_size):
        raise RequestError(
            f"image_size: {image_size} is not allowed for {what} of {width}x{height} pictures; allowed: its own"
        )


def stored_sizes(choice: str) -> Iterator[tuple[int, int]]:
    """Width and height of stored pictures as far as a look tells them: an array's, some of a folder's."""
    found = sources.check(choice, field="source")
    options: dict[str, Any] = found.options
    if found.name == "cifar10":
        yield 32, 32
    elif found.name == "arrays":
        yield stored_size(Path(options["path"]).expanduser(), options.get("column"), options.get("label"))
    elif found.name == "folder":
        files = pictures_below(Path(options["path"]).expanduser())
        for file in files[:: max(1, len(files) // LOOKED_AT)]:
            try:
                with Image.open(file) as image:
                    yield image.size
            except (OSError, UnidentifiedImageError):
                continue  # counted as unreadable where it is read
