"""What is in a data set and what is wrong with it, with a sheet of its pictures."""

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ddm.commands.console import Console
from ddm.errors import RequestError

if TYPE_CHECKING:
    from ddm.data import Inspection

EXAMPLES = """examples:
  ddm data shapes
  ddm data cifar10 --out cifar10.png
  ddm data 'folder(path="~/cats", max_bad=0.1)' --image-size 64
"""
SHOWN = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("data", metavar="DATASET", help="""e.g. cifar10, shapes, 'folder(path="~/cats")'""")
    parser.add_argument("--image-size", type=int, default=32, help="side of the square pictures (default: 32)")
    parser.add_argument("--out", type=Path, default=None, help="write a sheet of 64 pictures to this .png")


def run(arguments: argparse.Namespace) -> int:
    """Read the set (once; it is cached), look at every picture, report."""
    if arguments.image_size < 1:
        raise RequestError(f"image-size: {arguments.image_size} is not allowed; allowed: 1 or more")
    if arguments.out is not None and arguments.out.suffix.lower() != ".png":
        raise RequestError(f"out: {str(arguments.out)!r} is not allowed; allowed: a .png file")
    console = Console(quiet=arguments.quiet, json=arguments.json)
    from ddm.data import get_data, inspect, sources

    sources.check(arguments.data, field="data")
    data = get_data(arguments.data, image_size=arguments.image_size)
    found = inspect(data)
    console.result("\n".join(lines(found)), **asdict(found))
    if arguments.out is not None:
        from ddm.images import grid, save_png

        spread = range(0, data.count, max(1, data.count // SHOWN))[:SHOWN]
        save_png(arguments.out, grid(data.pixels[list(spread)], scale=max(1, 96 // arguments.image_size)))
        console.say(f"sheet of {len(spread)} pictures: {arguments.out}")
    size = "" if arguments.image_size == 32 else f" --image-size {arguments.image_size}"
    console.say(f"next: ddm train edm --data {shlex.quote(arguments.data)}{size}")
    return 0


def lines(found: "Inspection") -> list[str]:
    """The report for people."""
    height, width = found.image_size
    rows = [
        ("data", found.name),
        ("pictures", f"{found.count:,} of {width}x{height}, {found.channels} channels"),
        ("mean", ", ".join(f"{value:+.3f}" for value in found.mean) + "   (pixels in [-1, 1])"),
        ("deviation", ", ".join(f"{value:.3f}" for value in found.std)),
        ("duplicates", f"{found.duplicates:,}"),
        ("flat", f"{found.flat:,}"),
        ("unreadable", ", ".join(f"{bad.name} ({bad.reason})" for bad in found.bad[:5]) or "none"),
        ("content", found.digest[:16]),
    ]
    rows += [("labels", "none")] if not found.classes else []
    rows += [(f"label {name}", f"{count:,}") for name, count in found.classes.items()]
    rows += [("warning", text) for text in found.warnings]
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {value}" for name, value in rows]
