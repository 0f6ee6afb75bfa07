"""Make pictures with a trained model: a grid, a folder of pictures, an .npz file or a film of the denoising."""

import argparse
from pathlib import Path

from ddm.commands.console import Console
from ddm.commands.flags import add_making_flags, check_making
from ddm.errors import RequestError
from ddm.runs.naming import named

EXAMPLES = """examples:
  ddm sample runs/shapes
  ddm sample runs/shapes --count 16 --label star --guidance 2 --out stars.png
  ddm sample runs/paper --sampler ddpm --grid trailing --steps 1000 --count 4
  ddm sample runs/edm --count 1000 --out pictures/
  ddm sample runs/edm --out film.webp
"""
FILMS = (".gif", ".webp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a run folder, one of its checkpoints, diffusers:ID_OR_PATH, or to look at folder:PATH, npz:PATH or "
        "data:DATASET",
    )
    parser.add_argument("--count", type=int, default=None, help="pictures (default: 64)")
    parser.add_argument("--label", default=None, help="the class to make; all in turn by default")
    parser.add_argument("--out", default=None, help=".png grid, folder/, .npz, or .gif/.webp film (default: NAME.png)")
    parser.add_argument("--image-size", type=int, help="side of the pictures of a folder or file (default: 32)")
    add_making_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load, sample, write."""
    check_making(arguments)
    source = named(arguments.source)
    if source.kind != "run" and (arguments.out or "").lower().endswith(FILMS):
        raise RequestError(
            f"out: {arguments.out!r} is not allowed for {source.kind}: sources, whose denoising is not seen; "
            "allowed: a .png or .npz file, or a folder/"
        )
    if source.kind == "run" and not Path(source.text).expanduser().exists():
        from ddm.runs.sources import find_checkpoint

        find_checkpoint(Path(source.text), lambda _: None)
    from ddm.commands.sampling import check_out, sample

    out = check_out(arguments.out or f"{source.stem}.png")
    return sample(arguments, out, Console(quiet=arguments.quiet, json=arguments.json))
