"""Where pictures go: a sheet or single files with their metadata, or an array."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddm.commands.editing import Between
from ddm.commands.sample import FILMS
from ddm.commands.work import Made, Work
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator
from ddm.images import grid, save_png
from ddm.version import __version__

FORMAT = 2
"""Of the metadata; 1 lacked the labels, so that not every picture could be made again."""

SHOWN = {"steps": "Steps", "sampler": "Sampler", "scheduler": "Sampler", "guidance": "CFG scale"}
"""What viewers call the settings of a generator."""

ROW = 12
"""Pictures between two seeds that stand in one row."""


def check_out(text: str) -> Path:
    """Where the pictures go, told by the ending: .png, .npz, .gif, .webp, .mp4, or a folder, which is made.

    Raises:
        RequestError: another ending, a folder that cannot be made, or a .mp4 without ffmpeg.
    """
    path = Path(text).expanduser()
    folder = text.endswith(("/", "\\")) or path.is_dir()
    if not folder and path.suffix.lower() not in (".png", ".npz", *FILMS):
        raise RequestError(
            f"out: {text!r} is not allowed; allowed: a .png, .npz, .gif, .webp or .mp4 file, or a folder/"
        )
    if not folder and path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise RequestError(f"out: {text!r} needs the program ffmpeg, which is not there; allowed: a .webp or .gif file")
    try:
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"out: {text!r} cannot be made: {error.strerror}") from None
    return path


def write(out: Path, work: Work, made: Iterator[Made]) -> None:
    """Write pictures as the ending of ``out`` says; a folder gets each batch as soon as it is there."""
    if out.suffix.lower() == ".npz":
        pixels = torch.cat([each.pictures for each in made]).permute(0, 2, 3, 1).numpy()
        facts = np.array(json.dumps(facts_of(work, "array")))
        arrays: dict[str, Any] = {"images": pixels, "seeds": np.array(work.seeds), "ddm": facts}
        if work.labels is not None and max(work.labels) < work.model.generator.classes:
            arrays["labels"] = np.array(work.labels)
        np.savez_compressed(out, **arrays)
    elif out.suffix.lower() == ".png":
        save_png(out, sheet_of(work, list(made)), text=metadata(work, "sheet"))
    else:
        for batch in made:
            for place, (number, picture) in enumerate(zip(batch.work.numbers, batch.pictures)):
                text = metadata(batch.work.part(place, place + 1), "picture", batch=batch.work)
                save_png(out / f"{number:06d}.png", picture, text=text)


def sheet_of(work: Work, made: Sequence[Made]) -> Tensor:
    """All pictures, each after what is shown before it, as one; uint8 ``[c, H, W]``."""
    columns = [torch.cat(parts) for parts in zip(*([*each.shown, each.pictures] for each in made))]
    return sheet(columns, in_a_row=isinstance(work.edit, Between))


def sheet(groups: Sequence[Tensor], *, in_a_row: bool = False) -> Tensor:
    """A grid, small pictures enlarged so that one can see them; uint8 ``[c, H, W]``.

    Args:
        groups: uint8 ``[n, c, h, w]`` each: the first of all of them lie side by side, then the second, ...
        in_a_row: whether few of them stand in one row instead of a square.
    """
    pictures = torch.stack(list(groups), dim=1).flatten(0, 1)
    columns = len(groups) * max(1, round(math.sqrt(len(pictures)) / len(groups))) if len(groups) > 1 else None
    if in_a_row and len(pictures) <= ROW:
        columns = len(pictures)
    return grid(pictures, columns=columns, scale=max(1, 96 // pictures.shape[-1]))


def facts_of(work: Work, layout: str, *, batch: Work | None = None) -> dict[str, Any]:
    """All that decides these pictures, as plain values; never a path or a name of the user's.

    Args:
        work: what was made.
        layout: how it was written: ``sheet``, ``picture`` or ``array``.
        batch: what it was made together with, which may round a level differently.
    """
    model, generator = work.model, work.model.generator
    device = next(generator.diffusion.parameters()).device.type if isinstance(generator, DiffusionGenerator) else None
    none = generator.classes
    return {
        "format": FORMAT,
        "ddm": __version__,
        "torch": torch.__version__,
        "device": device,
        "kind": model.kind,
        "layout": layout,
        "seed": work.seeds[0],
        "count": len(work.numbers),
        "label": work.label,
        "labels": work.labels and [None if each == none else each for each in work.labels],
        **generator.settings(),
        "weights": model.weights,
        "step": model.step,
        "network": model.config.network if model.config else None,
        "checkpoint_sha256" if model.kind == "run" else "sha256": model.digest,
        "shape": list(generator.shape),
        "batch_size": work.batch,
        "batch": [batch.numbers.start, len(batch.numbers)] if batch and not work.edit else None,
        "edit": work.edit.facts() if work.edit else None,
    }


def metadata(work: Work, layout: str, *, batch: Work | None = None) -> dict[str, str]:
    """The text chunks of a PNG: ``parameters``, the line that existing viewers show, and ``ddm``, all of it as JSON.

    Arguments as of :func:`facts_of`.
    """
    facts, settings = facts_of(work, layout, batch=batch), work.model.generator.settings()
    _, height, width = work.model.generator.shape
    line = {text: settings[name] for name, text in SHOWN.items() if name in settings}
    if settings.get("guide"):
        line["Guide scale"] = line.pop("CFG scale")  # a worse model guides, not the absence of a class
    line |= {"Seed": facts["seed"], "Size": f"{width}x{height}", "Model hash": work.model.digest[:10]}
    return {"parameters": ", ".join(f"{name}: {value}" for name, value in line.items()), "ddm": json.dumps(facts)}
