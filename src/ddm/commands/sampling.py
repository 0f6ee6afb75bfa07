"""What ``ddm sample`` does once the request is in order."""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddm.commands.console import Bar, Console
from ddm.commands.sample import FILMS
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, FixedPictures
from ddm.generators.base import finished
from ddm.generators.ours import ADVICE
from ddm.images import grid, save_png, to_pil, to_uint8
from ddm.runs.sources import Model, load
from ddm.seeding import PictureNoise
from ddm.version import __version__

SAMPLING = ("sampler", "steps", "grid", "guidance", "clip", "image_size")
SHOWN = {"steps": "Steps", "sampler": "Sampler", "scheduler": "Sampler", "guidance": "CFG scale"}
"""What viewers call the settings of a generator."""

COUNT, BATCH = 64, 64
"""Pictures in all and at a time where the request does not say."""


def check_out(text: str) -> Path:
    """Where the pictures go, told by the ending: .png, .npz, .gif, .webp, or a folder."""
    path = Path(text).expanduser()
    folder = text.endswith(("/", "\\")) or path.is_dir()
    if not folder and path.suffix.lower() not in (".png", ".npz", *FILMS):
        raise RequestError(f"out: {text!r} is not allowed; allowed: a .png, .npz, .gif or .webp file, or a folder/")
    try:
        (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"out: {text!r} cannot be made: {error.strerror}") from None
    return path


def sample(arguments: argparse.Namespace, out: Path, console: Console) -> int:
    """Make the pictures of the request and write them to ``out``."""
    options = {name: value for name, value in vars(arguments).items() if name in SAMPLING}
    model = load(arguments.source, weights=arguments.weights, device=arguments.device, say=console.say, **options)
    model.labels(arguments.label, 1)
    seeds = seeds_of(model, arguments)
    console.say(f"model   {model.path or model.name}" + (f", {model.weights} weights" if model.weights else ""))
    started = time.monotonic()
    with console.bar(len(seeds) * steps_of(model)) as bar:
        if out.suffix.lower() in FILMS:
            write_film(out, list(frames(model, seeds, arguments.label, bar)))
        else:
            write(out, model, seeds, batches(model, seeds, arguments, bar), arguments.label)
    seconds = time.monotonic() - started
    console.say(f"{len(seeds)} pictures in {seconds:.1f} s ({len(seeds) / seconds:.1f} a second)")
    console.result(str(out), out=out, count=len(seeds), seed=arguments.seed, seconds=seconds, checkpoint=model.path)
    return 0


def seeds_of(model: Model, arguments: argparse.Namespace) -> range:
    """The seeds of the request; as many as there are, up to 64, where it gives no count.

    Raises:
        RequestError: more pictures than there are, or a class of stored pictures.
    """
    limit, first = model.generator.limit, arguments.seed
    count = arguments.count or (COUNT if limit is None else max(1, min(COUNT, limit - first)))
    seeds = range(first, first + count)
    if isinstance(model.generator, FixedPictures):
        model.generator.check(seeds, model.labels(arguments.label, count))
    return seeds


def steps_of(model: Model) -> int:
    """How often the bar moves for one picture."""
    return len(model.generator.grid) - 1 if isinstance(model.generator, DiffusionGenerator) else 1


def batches(model: Model, seeds: range, arguments: argparse.Namespace, bar: Bar) -> Iterator[Tensor]:
    """The pictures, uint8 ``[n, c, h, w]``, batch by batch."""
    generator, steps, size = model.generator, steps_of(model), arguments.batch_size or BATCH
    for start in range(0, len(seeds), size):
        part = seeds[start : start + size]
        labels = model.labels(arguments.label, len(part))
        if isinstance(generator, DiffusionGenerator):
            x = torch.empty(0)
            for number, step in enumerate(generator.stream(part, labels), 1):
                bar.update(start * steps + number * len(part))
                x = step.x
            yield finished(x, part, advice=ADVICE)
        else:
            yield generator.generate(part, labels)
            bar.update(start + len(part))


def frames(model: Model, seeds: range, label: str | None, bar: Bar) -> Iterator[Tensor]:
    """The denoising of all pictures at once as sheets, uint8 ``[c, H, W]``: noise, then every step's best guess."""
    generator = model.generator
    assert isinstance(generator, DiffusionGenerator)
    yield sheet(to_uint8(PictureNoise(seeds, generator.shape)() / 2))  # half: a pixel of noise fits into the range
    for number, step in enumerate(generator.stream(seeds, model.labels(label, len(seeds))), 1):
        bar.update(number * len(seeds))
        yield sheet(finished(step.x0, seeds, advice=ADVICE))


def sheet(pictures: Tensor) -> Tensor:
    """A grid, small pictures enlarged so that one can see them."""
    return grid(pictures, scale=max(1, 96 // pictures.shape[-1]))


def write(out: Path, model: Model, seeds: range, made: Iterator[Tensor], label: str | None) -> None:
    """Write pictures as the ending of ``out`` says; a folder gets each batch as soon as it is there."""
    if out.suffix.lower() == ".npz":
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(out, images=torch.cat(list(made)).permute(0, 2, 3, 1).numpy(), seeds=np.array(seeds))
    elif out.suffix.lower() == ".png":
        save_png(out, sheet(torch.cat(list(made))), text=metadata(model, seeds, label))
    else:
        remaining = iter(seeds)
        for pictures in made:
            for picture, seed in zip(pictures, remaining):
                save_png(out / f"{seed:06d}.png", picture, text=metadata(model, range(seed, seed + 1), label))


def metadata(model: Model, seeds: range, label: str | None) -> dict[str, str]:
    """The text chunks of a PNG: ``parameters``, the line that existing viewers show, and ``ddm``, the same as JSON.

    Never a path or a name of the user's.
    """
    settings = model.generator.settings()
    _, height, width = model.generator.shape
    facts = {
        "format": 1,
        "ddm": __version__,
        "kind": model.kind,
        "seed": seeds.start,
        "count": len(seeds),
        "label": label,
        **settings,
        "weights": model.weights,
        "step": model.step,
        "network": model.config.network if model.config else None,
        "checkpoint_sha256" if model.kind == "run" else "sha256": model.digest,
    }
    line = {text: settings[name] for name, text in SHOWN.items() if name in settings}
    line |= {"Seed": seeds.start, "Size": f"{width}x{height}", "Model hash": model.digest[:10]}
    return {"parameters": ", ".join(f"{name}: {value}" for name, value in line.items()), "ddm": json.dumps(facts)}


def write_film(out: Path, pictures: list[Tensor]) -> None:
    """An animation of the sheets, the last one held for two seconds."""
    first, *others = [to_pil(each) for each in pictures]
    durations = [max(40, 2000 // len(pictures))] * len(others) + [2000]
    out.parent.mkdir(parents=True, exist_ok=True)
    # `lossless` is for WebP, whose default would blur pixels; GIF ignores it.
    first.save(out, save_all=True, append_images=others, duration=durations, loop=0, lossless=True)
