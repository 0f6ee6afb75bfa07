"""What a PNG says of how it was made. The file may be anybody's: it is read with limits, and names nothing to open."""

import math
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from ddm.commands.writing import FORMAT
from ddm.data.pictures import MAX_PIXELS, as_array
from ddm.errors import RequestError
from ddm.images import MODES

LARGEST_FILE, LARGEST_TEXT, LARGEST_SETTING = 2**28, 2**20, 2**18
"""Bytes of a file, and characters of its metadata and of one setting in them, that are read."""

ALLOWED = f"allowed: {MAX_PIXELS:,}, L, RGB or RGBA"

Word = Annotated[str, Field(max_length=200)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Class = Annotated[int, Field(ge=0, lt=2**31)]
Sources = Annotated[list[Digest], Field(min_length=1)]


def _plain(value: object) -> object:
    number = isinstance(value, int | float) and math.isfinite(value)
    if not (value is None or number or (isinstance(value, str) and len(value) <= LARGEST_SETTING)):
        raise ValueError("must be a word, a finite number or null")
    return value


Setting = Annotated[Any, AfterValidator(_plain)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class FromFacts(_Strict):
    """How pictures were changed: see :class:`ddm.commands.editing.FromPictures`."""

    way: Literal["from"]
    noise: float | None
    mask: Digest | None
    sources: Sources


class InvertFacts(_Strict):
    """How pictures went to noise and back: see :class:`ddm.commands.editing.Inverted`."""

    way: Literal["invert"]
    shows: Class | None
    sources: Sources


class BetweenFacts(_Strict):
    """Between which seeds pictures lie: see :class:`ddm.commands.editing.Between`."""

    way: Literal["between"]
    last: Seed
    shares: list[Annotated[float, Field(ge=0, le=1)]]


class Facts(_Strict):
    """What :func:`ddm.commands.writing.facts_of` wrote; what is none of the fields is a setting of the generator."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting]  # pyright: ignore[reportIncompatibleVariableOverride]

    format: Literal[FORMAT]  # pyright: ignore[reportInvalidTypeForm]
    ddm: Word
    torch: Word
    device: Word | None
    kind: Literal["run", "folder", "npz", "data", "diffusers"]
    layout: Literal["sheet", "picture"]
    seed: Seed
    count: int = Field(ge=1, le=MAX_PIXELS)
    label: Word | None
    labels: list[Class | None] | None
    weights: Word | None
    step: int | None
    network: Annotated[str, Field(max_length=10_000)] | None
    checkpoint_sha256: Digest | None = None
    sha256: Digest | None = None
    shape: tuple[Literal[1, 3, 4], int, int]
    batch_size: int = Field(ge=1, lt=2**31)
    batch: tuple[Seed, Annotated[int, Field(ge=1, le=2**16)]] | None
    edit: Annotated[FromFacts | InvertFacts | BetweenFacts, Field(discriminator="way")] | None

    @model_validator(mode="after")
    def _fits(self) -> "Facts":
        if (self.checkpoint_sha256 if self.kind == "run" else self.sha256) is None:
            raise ValueError("the digest of the model is missing")
        counts = {len(self.labels)} if self.labels is not None else set()
        counts |= {len(self.edit.shares)} if isinstance(self.edit, BetweenFacts) else set()
        if counts - {self.count} or (self.layout == "picture" and self.count != 1):
            raise ValueError("there are not as many labels or shares as pictures")
        return self

    @property
    def digest(self) -> str:
        """Of the model."""
        return self.checkpoint_sha256 or self.sha256 or ""

    @property
    def settings(self) -> dict[str, Setting]:
        """Of the generator."""
        return self.model_extra or {}


def read(path: Path) -> tuple[Facts, Tensor]:
    """What a PNG of ``ddm sample`` says, and its pixels, uint8 ``[c, H, W]``.

    Raises:
        RequestError: it is too large, no PNG, damaged, or says nothing that we could have written.
    """
    if not path.is_file():  # also keeps us from waiting at a pipe
        raise RequestError(f"again: {str(path)!r} is {'not a file' if path.exists() else 'not there'}")
    if path.stat().st_size > LARGEST_FILE:
        raise RequestError(f"again: {str(path)!r} has {path.stat().st_size:,} bytes; allowed: {LARGEST_FILE:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, for which we have our own limit
            with Image.open(path, formats=["PNG"]) as image:
                text = image.info.get("ddm")  # what stands before the pixels, as ours does: nothing is decoded for it
                facts = parse(text) if isinstance(text, str) else None
                if facts is None:
                    raise RequestError("does not say how it was made; allowed: a .png that ddm sample wrote")
                if image.width * image.height > MAX_PIXELS or image.mode not in MODES.values():
                    raise RequestError(f"has {image.width}x{image.height} pixels of mode {image.mode}; {ALLOWED}")
                return facts, torch.from_numpy(np.array(as_array(image)))
    except RequestError as error:
        raise RequestError(f"again: {str(path)!r} {error}") from None
    except Exception as error:  # a damaged file can make a decoder raise almost anything
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise RequestError(f"again: {str(path)!r} cannot be read as PNG: {line}") from None


def problem_of(error: ValidationError) -> str:
    """The first problem in one line: where, and what is wrong, without what stands there."""
    problem = error.errors(include_url=False, include_input=False)[0]
    # Names in it are whatever somebody wrote there, perhaps commands to the terminal.
    where = ".".join(ascii(str(each))[1:-1][:40] for each in problem["loc"]) or "all of it"
    unknown = problem["type"] == "extra_forbidden"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")[:200]
    return f"{where}: {'there is no such setting' if unknown else message}"


def parse(text: str) -> Facts:
    """The facts in a text chunk.

    Raises:
        RequestError: it is not what we write; the message goes on after the name of the file.
    """
    if len(text) > LARGEST_TEXT:
        raise RequestError(f"has metadata of {len(text):,} characters; allowed: {LARGEST_TEXT:,}")
    try:
        return Facts.model_validate_json(text)
    except ValidationError as error:
        raise RequestError(f"has metadata that cannot be used: {problem_of(error)}") from None
