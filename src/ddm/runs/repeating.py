"""The command that repeats a run and what is special about its settings, told from the settings alone."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ddm.runs.anonymous import without_paths
from ddm.runs.config import Config, Settings, flatten
from ddm.runs.recipes import recipes

PLAIN = "model and data"
"""The group of settings that stand in none."""


@dataclass(frozen=True)
class Setting:
    """One setting, for people; no value has a path.

    Args:
        field: with dots, as on the command line.
        value: as it would be typed.
        usual: the recipe's value where it is another one, else None.
        meaning: the help of the field.
    """

    field: str
    value: str
    usual: str | None
    meaning: str


def nearest_recipe(config: Config) -> str:
    """The recipe that needs the fewest changes to become these settings; the first of several."""
    return min(recipes, key=lambda name: len(changed(config, recipes[name]())))


def changed(config: Config, base: Config) -> dict[str, Any]:
    """The fields, with dots, whose values differ from those of ``base``."""
    theirs = flatten(base.model_dump())
    return {field: value for field, value in flatten(config.model_dump()).items() if value != theirs[field]}


def train_command(config: Config, name: str) -> str:
    """``ddm train RECIPE --name NAME --field value ...``, which gives these settings; paths are left out."""
    recipe = nearest_recipe(config)
    words = ["ddm", "train", recipe, "--name", name]
    for field, value in changed(config, recipes[recipe]()).items():
        words += [f"--{field}", *(without_paths(each) for each in typed(value))]
    return shlex.join(words)


def grouped_settings(config: Config) -> dict[str, list[Setting]]:
    """All settings by their group, compared with the nearest recipe."""
    base = recipes[nearest_recipe(config)]()
    usual = {field: flatten(base.model_dump())[field] for field in changed(config, base)}
    groups: dict[str, list[Setting]] = {PLAIN: []}
    for field, meaning in _meanings(Config):
        value = flatten(config.model_dump())[field]
        other = _shown(usual[field]) if field in usual else None
        group, dot, _ = field.partition(".")
        groups.setdefault(group if dot else PLAIN, []).append(Setting(field, _shown(value), other, meaning))
    return groups


def typed(value: Any) -> list[str]:
    """A value as the words of the command line."""
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, (tuple, list)):
        return [word for each in value for word in typed(each)]
    return ["none" if value is None else str(value)]


def _shown(value: Any) -> str:
    return without_paths("  ".join(typed(value))) or "none"


def _meanings(settings: type[Settings], prefix: str = "") -> Iterator[tuple[str, str]]:
    fields: Mapping[str, Any] = settings.model_fields
    for name, field in fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from _meanings(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, " ".join((field.description or "").split())
