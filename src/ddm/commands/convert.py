"""A checkpoint of denoising-diffusion-pytorch as a run folder: tensors are read, code in it never runs."""

import argparse
from pathlib import Path

from ddm.commands.console import Console

EXAMPLES = """examples:
  ddm convert results/model-10.pt runs/theirs --image-size 64
  ddm convert model-700.pt runs/theirs --image-size 128 --data 'folder(path="~/flowers")'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("source", metavar="SOURCE", type=Path, help="model-N.pt, as the package's Trainer saved it")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the new run folder")
    parser.add_argument("--image-size", type=int, required=True, help="side of its pictures; the file does not tell it")
    parser.add_argument("--data", default="cifar10", help="the pictures it was trained on (default: cifar10)")


def run(arguments: argparse.Namespace) -> int:
    """Read, check, write."""
    console = Console(quiet=arguments.quiet, json=arguments.json)
    from ddm.data import sources
    from ddm.runs.converting import convert

    sources.check(arguments.data, field="data")
    folder = arguments.folder.expanduser()
    made = convert(arguments.source.expanduser(), folder, image_size=arguments.image_size, data=arguments.data)
    told = {"network": made.config.network, "schedule": made.config.schedule, "objective": made.config.objective}
    console.result(str(folder), out=folder, **told)
    console.say(f"{', '.join(told.values())}; it has no optimiser to train on with.  next: ddm sample {folder}")
    return 0
