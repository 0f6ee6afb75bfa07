"""Measure several sources alike: one table with intervals, which differences are real, the pictures side by side."""

import argparse

from ddm.commands.console import Console, is_main
from ddm.commands.flags import add_making_flags, add_measuring_flags, check_making
from ddm.errors import RequestError

EXAMPLES = """examples:
  ddm compare runs/paper runs/edm
  ddm compare runs/edm 'data:cifar10(split="test")' --images 10000 --features efficientnet --out comparison
  ddm compare runs/edm diffusers:google/ddpm-cifar10-32 --steps 50 --nfe 5 10 20 50 --out comparison
  ddm compare runs/edm folder:pictures --published
  ddm compare runs/paper runs/edm --recorded
"""

MEASURED_ONLY = (
    "nfe",
    "reference",
    "image_size",
    "steps",
    "sampler",
    "grid",
    "guidance",
    "guidance_low",
    "guidance_high",
    "guide",
    "clip",
    "precision",
)
"""Flags that mean nothing where nothing is measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="a run folder, a checkpoint, folder:PATH, npz:PATH, data:DATASET, diffusers:ID",
    )
    add_measuring_flags(parser)
    add_making_flags(parser)
    parser.add_argument(
        "--nfe", type=int, nargs="+", metavar="N", help="measure at these numbers of network evaluations, too"
    )
    parser.add_argument("--published", action="store_true", default=False, help="add what papers say of CIFAR-10")
    parser.add_argument(
        "--recorded", action="store_true", default=False, help="show what runs have on record, measuring nothing"
    )
    parser.add_argument(
        "--force", action="store_true", default=False, help="with --recorded: show unequal protocols, marked"
    )
    parser.add_argument("--out", default=None, metavar="FOLDER", help="where tables, pictures and records go")


def run(arguments: argparse.Namespace) -> int:
    """Check the request, then measure or read, and show."""
    check_making(arguments)
    for number in getattr(arguments, "nfe", []):
        if number < 1:
            raise RequestError(f"nfe: {number} is not allowed; allowed: 1 or more")
    if arguments.recorded:
        for name in MEASURED_ONLY:
            if hasattr(arguments, name):
                flag = name.replace("_", "-")
                raise RequestError(
                    f"{flag}: nothing is measured with --recorded; allowed: --metrics, --features, --images"
                )
    elif arguments.force:
        raise RequestError("force: all is measured alike without --recorded; allowed: with --recorded")
    from ddm.commands.comparing import compare

    return compare(arguments, Console(quiet=arguments.quiet or not is_main(), json=arguments.json))
