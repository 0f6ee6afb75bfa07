"""Measure a model: distances, precision and recall, copies of training pictures; each with its interval."""

import argparse

from ddm.commands.console import Console, is_main
from ddm.commands.flags import add_making_flags, add_measuring_flags, check_making

EXAMPLES = """examples:
  ddm evaluate runs/edm
  ddm evaluate runs/edm --features efficientnet --images 10000 --metrics fid fid_infinity kid
  ddm evaluate runs/edm --metrics memorisation duplicates --features efficientnet
  ddm evaluate folder:pictures --reference 'cifar10(split="test")' --images 1000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "source", metavar="SOURCE", help="a run folder, a checkpoint, folder:PATH, npz:PATH, data:DATASET, diffusers:ID"
    )
    add_measuring_flags(parser)
    add_making_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the request, then make pictures and measure them."""
    check_making(arguments)
    from ddm.commands.evaluating import evaluate

    return evaluate(arguments, Console(quiet=arguments.quiet or not is_main(), json=arguments.json))
