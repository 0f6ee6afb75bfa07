"""Make pictures with a trained model: a grid, a folder of pictures, an .npz file or a film of the denoising."""

import argparse
from pathlib import Path

from ddm.commands.console import Console
from ddm.errors import RequestError

EXAMPLES = """examples:
  ddm sample runs/shapes
  ddm sample runs/shapes --count 16 --label star --guidance 2 --out stars.png
  ddm sample runs/paper --sampler ddpm --grid trailing --steps 1000 --count 4
  ddm sample runs/edm --count 1000 --out pictures/
  ddm sample runs/edm --out film.webp
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("source", metavar="SOURCE", help="a run folder, or one of its checkpoints")
    parser.add_argument("--count", type=int, default=64, help="pictures (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next has the next (default: 0)")
    parser.add_argument("--label", default=None, help="the class to make; all in turn by default")
    parser.add_argument("--steps", type=int, help="of the sampler; the run's own by default, and so below")
    parser.add_argument("--sampler", help="e.g. heun, 'heun(churn=40)', ddim, ddpm, dpmpp")
    parser.add_argument("--grid", help="karras or trailing")
    parser.add_argument("--guidance", type=float, help="towards the label; 1 is none")
    parser.add_argument("--clip", action=argparse.BooleanOptionalAction, help="keep each guess within [-1, 1]")
    parser.add_argument("--weights", default="ema", help="ema, ema-1, ... or raw (default: ema)")
    parser.add_argument("--out", default=None, help=".png grid, folder/, .npz, or .gif/.webp film (default: NAME.png)")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at a time; films are made in one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def run(arguments: argparse.Namespace) -> int:
    """Load, sample, write."""
    for name in ("count", "steps", "batch_size"):
        if getattr(arguments, name, 1) < 1:
            raise RequestError(
                f"{name.replace('_', '-')}: {getattr(arguments, name)} is not allowed; allowed: 1 or more"
            )
    if not 0 <= getattr(arguments, "guidance", 1.0) < float("inf"):
        raise RequestError(f"guidance: {arguments.guidance} is not allowed; allowed: 0 or more (1 is none)")
    if not 0 <= arguments.seed < 2**63:
        raise RequestError(f"seed: {arguments.seed} is not allowed; allowed: 0 or more")
    if not Path(arguments.source).expanduser().exists():
        from ddm.runs.sources import find_checkpoint

        find_checkpoint(Path(arguments.source), lambda _: None)
    from ddm.commands.sampling import check_out, sample

    out = check_out(arguments.out or f"{Path(arguments.source).resolve().name}.png")
    return sample(arguments, out, Console(quiet=arguments.quiet, json=arguments.json))
