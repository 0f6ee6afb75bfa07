"""Is this installation sound? With SOURCE: why is its FID what it is, one suspect after the other."""

import argparse

from ddm.commands.console import Console, is_main
from ddm.commands.flags import add_making_flags, add_measuring_flags, check_making
from ddm.errors import RequestError

EXAMPLES = """examples:
  ddm doctor
  ddm doctor --device cpu --json
  ddm doctor runs/edm
  ddm doctor runs/edm --features efficientnet --images 5000 --metrics fid kid
  ddm doctor runs/edm --suspects count floor weights steps
"""

DEFAULTS = {"weights": "ema", "seed": 0, "batch_size": None, "source": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        default=None,
        help="a run folder, a checkpoint, folder:PATH, npz:PATH, data:DATASET, diffusers:ID; without it the "
        "installation is checked",
    )
    parser.add_argument(
        "--suspects",
        nargs="+",
        metavar="SUSPECT",
        help="only these: clip count flips floor guidance reference resizing rounding sampler steps weights",
    )
    add_measuring_flags(parser)
    add_making_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the installation, or the request and then the number of a source."""
    check_making(arguments)
    console = Console(quiet=arguments.quiet or not is_main(), json=arguments.json)
    if arguments.source is not None:
        from ddm.commands.doctoring import diagnose

        return diagnose(arguments, console)
    for name, value in vars(arguments).items():
        if name not in ("device", "quiet", "json") and value != DEFAULTS.get(name):
            flag = name.replace("_", "-")
            raise RequestError(f"{flag}: {value!r} is not allowed without a SOURCE; allowed: --device, --json, --quiet")
    from ddm.commands.installation import examine

    return examine(arguments.device, console)
