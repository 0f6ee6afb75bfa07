"""How pictures were made, in words: the settings of a generator as tables and lines show them."""

from collections.abc import Iterator, Mapping
from typing import Any

BOUNDS = ("guidance_low", "guidance_high")


def in_words(settings: Mapping[str, Any]) -> Iterator[str]:
    """Every setting but those that are None: ``sampler heun``, ``steps 18``, ``guidance 1.5 in (0.2, 5]``, ..."""
    for name, value in settings.items():
        if value is not None and name not in BOUNDS:
            yield f"{name} {value}{_interval(settings) if name == 'guidance' else ''}"


def special(settings: Mapping[str, Any]) -> list[str]:
    """What is not plain: ``guidance 1.5 in (0.2, 5]``, ``clip static``, ``bf16``."""
    guided, clip = settings.get("guidance", 1) != 1, settings.get("clip", "none")
    words = [f"guidance {settings['guidance']:g}{_interval(settings)}"] if guided else []
    words += [f"guide {settings['guide']}"] if guided and settings.get("guide") else []
    words += [f"clip {clip}"] if clip != "none" else []
    return words + (["bf16"] if settings.get("precision", "fp32") != "fp32" else [])


def _interval(settings: Mapping[str, Any]) -> str:
    low, high = (settings.get(name) for name in BOUNDS)
    if settings["guidance"] == 1 or (not low and high is None):
        return ""
    return f" in ({low or 0:g}, {'inf)' if high is None else f'{high:g}]'}"
