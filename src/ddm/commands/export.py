"""A copy of a run that is good to give away: one set of weights in half precision, and the settings."""

import argparse
from pathlib import Path

from ddm.commands.console import Console

EXAMPLES = """examples:
  ddm export runs/edm cats
  ddm export runs/edm/checkpoints/020000 cats --weights ema-1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("source", metavar="SOURCE", help="a run folder or one of its checkpoints")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the new run folder")
    parser.add_argument("--weights", default="ema", help="ema, ema-1, ... or raw (default: ema)")


def run(arguments: argparse.Namespace) -> int:
    """Copy what is needed."""
    console = Console(quiet=arguments.quiet, json=arguments.json)
    from ddm.runs.naming import named
    from ddm.runs.shipping import export

    folder = arguments.folder.expanduser()
    source = Path(named(arguments.source).text).expanduser()
    made = export(source, folder, weights=arguments.weights, say=console.say)
    size = sum(each.stat().st_size for each in made.path.rglob("*") if each.is_file())
    console.result(str(folder), out=folder, bytes=size)
    console.say(f"{size / 1e6:.1f} MB; nothing in it names a place on this machine.  next: ddm sample {folder}")
    return 0
