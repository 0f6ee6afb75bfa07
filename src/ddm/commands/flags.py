"""Every field of the Config as a flag: ``--train.lr 1e-4``. The fields are defined once, in :mod:`ddm.runs.config`."""

import argparse
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

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
