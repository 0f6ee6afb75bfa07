"""Flags that several verbs share, among them every field of the Config: ``--train.lr 1e-4``, defined in
:mod:`ddm.runs.config`."""

import argparse
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

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
    may_be_none = {path for path, field, _ in _leaves(Config, "", "") if type(None) in get_args(field.annotation)}
    return {path: None if value == "none" and path in may_be_none else value for path, value in given.items()}


def add_making_flags(parser: argparse.ArgumentParser) -> None:
    """How pictures are made, for every verb that makes them."""
    parser.add_argument("--steps", type=int, help="of the sampler; the run's own by default, and so below")
    parser.add_argument("--sampler", help="e.g. heun, 'heun(churn=40)', ddim, ddpm, dpmpp_2m")
    parser.add_argument("--grid", help="karras, log_snr, trailing, ... or searched: found for this model and kept")
    parser.add_argument("--guidance", type=float, help="towards the label, or away from the guide; 1 is none")
    parser.add_argument("--guidance-low", type=number, metavar="SIGMA", help="guided only at noise levels above it")
    parser.add_argument("--guidance-high", type=number, metavar="SIGMA", help="... and up to this one; or none")
    parser.add_argument("--guide", help="a worse model: a step of the run, its raw or ema-1, STEP/raw, or another run")
    parser.add_argument("--clip", help="each guess of the picture: none, static, 'dynamic(quantile=0.995)'")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="of the network; bf16 is faster on a GPU")
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


def number(text: str) -> float | None:
    """A number of the command line; ``none`` is none."""
    return None if text == "none" else float(text)


def check_making(arguments: argparse.Namespace) -> None:
    """Raise :class:`RequestError` for numbers that cannot be, before anything heavy is imported."""
    for name in ("count", "steps", "batch_size", "images", "image_size"):
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            raise RequestError(f"{name.replace('_', '-')}: {value} is not allowed; allowed: 1 or more")
    if not 0 <= getattr(arguments, "guidance", 1.0) < float("inf"):
        raise RequestError(f"guidance: {arguments.guidance} is not allowed; allowed: 0 or more (1 is none)")
    low, high = getattr(arguments, "guidance_low", 0.0), getattr(arguments, "guidance_high", None)
    if low is None or not 0 <= low < float("inf"):
        raise RequestError(f"guidance-low: {low} is not allowed; allowed: a number, 0 or more")
    if high is not None and not low < high:
        raise RequestError(f"guidance-high: {high} is not allowed; allowed: more than {low:g}, or none")
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
    kind: Any = field.annotation
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    options = get_args(kind)
    if options and all(isinstance(option, str) for option in options):
        return "{" + ",".join(options) + "}"
    return getattr(kind, "__name__", "TEXT").upper().replace("STR", "CHOICE")
