"""Make pictures with a trained model: a grid, a folder of pictures, an .npz file or a film of the denoising. Or change
pictures: from a noise level, a part of them, to noise and back; go from one seed to another; make a picture again."""

import argparse
from pathlib import Path

from ddm.commands.console import Console, is_main
from ddm.commands.flags import add_making_flags, check_making
from ddm.errors import RequestError
from ddm.runs.naming import named

EXAMPLES = """examples:
  ddm sample runs/shapes
  ddm sample runs/shapes --count 16 --label star --guidance 2 --out stars.png
  ddm sample runs/paper --sampler ddpm --grid trailing --steps 1000 --count 4
  ddm sample runs/edm --count 1000 --out pictures/
  ddm sample runs/edm --out film.webp
  ddm sample runs/edm --from cat.png --noise 1.5 --count 8 --out variations.png
  ddm sample runs/edm --from cat.png --mask hole.png --sampler 'heun(churn=50)' --steps 100 --out filled.png
  ddm sample runs/edm --from cat.png --invert cat --label dog --guidance 2 --out dog.png
  ddm sample runs/edm --seed 3 --to-seed 8 --count 10 --out between.png
  ddm sample --again between.png
"""
FILMS = (".gif", ".webp", ".mp4")

DEFAULTS = {"count": None, "label": None, "out": None, "source": None, "runs": "runs"}
DEFAULTS |= {"seed": 0, "weights": "ema", "batch_size": None, "device": "auto"}
"""Filled in after the parsing, so that what was given can be told from what was not."""

BESIDE_AGAIN = {"again", "source", "out", "pictures", "mask", "runs", "device", "batch_size", "quiet", "json"}
"""What may be given beside --again: all else is in the picture."""

FLAGS = {"pictures": "from"}
"""Flags whose name is not that of their value."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="a run folder, one of its checkpoints, diffusers:ID_OR_PATH, or to look at folder:PATH, npz:PATH or "
        "data:DATASET",
    )
    parser.add_argument("--count", type=int, help="pictures (default: 64; one of each --from; 10 with --to-seed)")
    parser.add_argument("--label", help="the class to make; by default all in turn, and none with --from")
    parser.add_argument("--out", help=".png grid, folder/, .npz, or .gif/.webp/.mp4 film (default: NAME.png)")
    parser.add_argument("--image-size", type=int, help="side of the pictures of a folder or file (default: 32)")
    add_making_flags(parser)
    change = parser.add_argument_group("pictures from pictures (after SOURCE)")
    change.add_argument("--from", dest="pictures", nargs="+", metavar="PICTURE", help="files or folders to begin with")
    change.add_argument("--noise", type=float, metavar="SIGMA", help="put so much noise on them and take it away")
    change.add_argument("--mask", metavar="PNG", help="what is white in it is made anew, what is black is kept")
    change.add_argument("--invert", nargs="?", const="", metavar="LABEL", help="to noise (as LABEL) and back")
    change.add_argument("--to-seed", type=int, metavar="SEED", help="from the picture of --seed to that of this seed")
    again = parser.add_argument_group("the same once more")
    again.add_argument("--again", metavar="PNG", help="make what this file shows again, and say whether it is equal")
    again.add_argument("--runs", metavar="FOLDER", help="where the model is looked for without SOURCE (default: runs)")
    for action in parser._actions:
        if action.dest in DEFAULTS:
            action.default = argparse.SUPPRESS


def run(arguments: argparse.Namespace) -> int:
    """Load, sample, write."""
    check_again(arguments)
    arguments = argparse.Namespace(**{**DEFAULTS, **vars(arguments)})
    check_making(arguments)
    console = Console(quiet=arguments.quiet or not is_main(), json=arguments.json)
    if "again" in arguments:
        from ddm.commands.again import again

        return again(arguments, console)
    if arguments.source is None:
        raise RequestError("the following arguments are required: SOURCE")
    source = named(arguments.source)
    check_editing(arguments, source.kind)
    if source.kind != "run" and (arguments.out or "").lower().endswith(FILMS):
        raise RequestError(
            f"out: {arguments.out!r} is not allowed for {source.kind}: sources, whose denoising is not seen; "
            "allowed: a .png or .npz file, or a folder/"
        )
    if source.kind == "run" and not Path(source.text).expanduser().exists():
        from ddm.runs.sources import find_checkpoint

        find_checkpoint(Path(source.text), lambda _: None)
    check_files(arguments)
    from ddm.commands.sampling import sample
    from ddm.commands.writing import check_out

    return sample(arguments, check_out(arguments.out or f"{source.stem}.png"), console)


def check_again(arguments: argparse.Namespace) -> None:
    """Raise :class:`RequestError` for flags that contradict a picture, or are of no use without one."""
    if "again" in arguments:
        for name in vars(arguments):
            if name not in BESIDE_AGAIN:
                raise RequestError(f"{flag(name)}: not allowed beside --again, the picture says it; leave it out")
        check_files(arguments)
    elif "runs" in arguments:
        raise RequestError("runs: only allowed beside --again; name the run itself as SOURCE")


def check_editing(arguments: argparse.Namespace, kind: str) -> None:
    """Raise :class:`RequestError` for ways of changing pictures that do not go together."""
    ways = [name for name in ("noise", "mask", "invert") if name in arguments]
    asked = [name for name in ("pictures", *ways, "to_seed") if name in arguments]
    if asked and kind != "run":
        raise RequestError(f"{flag(asked[0])}: not allowed for {kind}: sources; allowed: runs and checkpoints")
    if ways and "pictures" not in arguments:
        raise RequestError(f"{ways[0]}: needs pictures to begin with; add --from PICTURE")
    if "pictures" in arguments and "to_seed" in arguments:
        raise RequestError("to-seed: not allowed beside --from; allowed: one of them")
    if "pictures" in arguments and not ways:
        raise RequestError("from: what becomes of the pictures is missing; add --noise SIGMA, --mask PNG or --invert")
    if "invert" in ways and len(ways) > 1:
        raise RequestError(f"invert: not allowed beside --{ways[0]}; allowed: one of them")
    if "to_seed" in arguments:
        if not 0 <= arguments.to_seed < 2**63 or arguments.to_seed == arguments.seed:
            raise RequestError(f"to-seed: {arguments.to_seed} is not allowed; allowed: 0 or more, another than --seed")
        if arguments.count == 1:
            raise RequestError("count: 1 is not allowed beside --to-seed; allowed: 2 or more")


def check_files(arguments: argparse.Namespace) -> None:
    """Raise :class:`RequestError` for files that are not there, before anything heavy is imported."""
    single = {"again": getattr(arguments, "again", None), "mask": getattr(arguments, "mask", None)}
    given = [(name, path) for name, path in single.items() if path is not None]
    for name, path in (*given, *(("from", path) for path in getattr(arguments, "pictures", ()))):
        if not Path(path).expanduser().exists():
            raise RequestError(f"{name}: {path!r} is not there")


def flag(name: str) -> str:
    """The flag that sets a value, without its dashes."""
    return FLAGS.get(name, name).replace("_", "-")
