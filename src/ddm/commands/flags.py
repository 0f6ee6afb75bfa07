"""Flags that several verbs share, among them every field of the Config: ``--train.lr 1e-4``, defined in
:mod:`ddm.runs.config`."""

import argparse
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from ddm.errors import RequestError
from ddm.runs.config import Config, Settings

SHORT = {
    "train.steps": "--steps",
    "train.batch": "--batch-size",
    "train.lr": "--lr",
    "train.precision": "--precision",
    "train.seed": "--seed",
    "train.compile": "--compile",
}
"""Everyday flags beside the dotted ones."""


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag a field, grouped as the Config is."""
    for path, field, group in _leaves(Config, "", "settings"):
        section = next((g for g in parser._action_groups if g.title == group), None) or parser.add_argument_group(group)
        names = {f"--{path}", f"--{path.replace('_', '-')}", *([SHORT[path]] if path in SHORT else [])}
        takes: dict[str, Any] = {}
        if field.annotation is bool:
            takes = {"nargs": "?", "const": "true", "metavar": "BOOL"}
        elif get_origin(field.annotation) is tuple:
            takes = {"nargs": "*", "metavar": "VALUE"}
        help_text = (field.description or "").replace("%", "%%")
        section.add_argument(
            *sorted(names, key=len), dest=f"config:{path}", help=help_text, **{"metavar": _metavar(field), **takes}
        )


def changes(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The fields that were given, by dotted path; values are still the strings of the command line."""
    given = {key.partition(":")[2]: value for key, value in vars(arguments).items() if key.startswith("config:")}
    return {path: None if value == "none" else value for path, value in given.items()}


def add_making_flags(parser: argparse.ArgumentParser) -> None:
    """How pictures are made, for every verb that makes them."""
    parser.add_argument("--steps", type=int, help="of the sampler; the run's own by default, and so below")
    parser.add_argument("--sampler", help="e.g. heun, 'heun(churn=40)', ddim, ddpm, dpmpp_2m")
    parser.add_argument("--grid", help="karras or trailing")
    parser.add_argument("--guidance", type=float, help="towards the label; 1 is none")
    parser.add_argument("--clip", action=argparse.BooleanOptionalAction, help="keep each guess within [-1, 1]")
    parser.add_argument("--weights", default="ema", help="ema, ema-1, ... or raw (default: ema)")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next has the next (default: 0)")
    parser.add_argument("--batch-size", type=int, default=None, help="pictures at a time")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def add_measuring_flags(parser: argparse.ArgumentParser) -> None:
    """What is measured and how; by default the run's own settings."""
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="e.g. fid kid precision recall memorisation")
    parser.add_argument("--features", help="the space they are measured in: inception, efficientnet")
    parser.add_argument("--images", type=int, help="generated pictures; the run's own setting by default")
    parser.add_argument("--reference", metavar="DATASET", help="the real pictures; those of the training by default")
    parser.add_argument("--image-size", type=int, help="side of the pictures of a folder or file (default: 32)")


def check_making(arguments: argparse.Namespace) -> None:
    """Raise :class:`RequestError` for numbers that cannot be, before anything heavy is imported."""
    for name in ("count", "steps", "batch_size", "images", "image_size"):
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            raise RequestError(f"{name.replace('_', '-')}: {value} is not allowed; allowed: 1 or more")
    if not 0 <= getattr(arguments, "guidance", 1.0) < float("inf"):
        raise RequestError(f"guidance: {arguments.guidance} is not allowed; allowed: 0 or more (1 is none)")
    if not 0 <= arguments.seed < 2**63:
        raise RequestError(f"seed: {arguments.seed} is not allowed; allowed: 0 or more")


def _leaves(settings: type[Settings], prefix: str, group: str) -> list[tuple[str, FieldInfo, str]]:
    found = []
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            found += _leaves(kind, f"{prefix}{name}.", name)
        else:
            found.append((prefix + name, field, group))
    return found


def _metavar(field: FieldInfo) -> str:
    options = get_args(field.annotation)
    if options and all(isinstance(option, str) for option in options):
        return "{" + ",".join(options) + "}"
    return getattr(field.annotation, "__name__", "TEXT").upper().replace("STR", "CHOICE")
