"""Checkpoints: one folder a step, verified before use, nothing pickled.

``checkpoints/000500/`` holds ``weights.safetensors``, ``ema.safetensors`` and whatever other groups of tensors were
saved, ``state.json``, and ``manifest.json`` (see :mod:`ddm.runs.manifest`). Which one is the newest is found by
looking, never stored: a stored answer can be wrong.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddm.errors import DdmError, unknown
from ddm.runs import atomic, tensorfile
from ddm.runs import manifest as manifests
from ddm.runs.manifest import BadCheckpoint, Manifest, UnreadableCheckpoint

__all__ = ["BadCheckpoint", "Loaded", "NotFinite", "latest", "load", "prune", "save", "steps"]

_STATE, _TENSORS = "state.json", ".safetensors"


class NotFinite(DdmError):
    """What was to be saved holds a NaN or an infinity: the training has diverged."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory.

    Attributes:
        step: the optimiser step at which it was saved.
        tensors: group to name to tensor, on the CPU.
        state: everything that is not a tensor.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of a step, whole or not at all, and on the disk when this returns.

    A sound checkpoint of this step with the same content is kept as it is; any other is replaced.

    Args:
        folder: that of all checkpoints.
        step: the optimiser step.
        tensors: group (``weights``, ``ema``, ``ema-1``, ``state``, ...) to name to tensor, of any device and layout.
        state: what JSON can hold; tuples come back as lists, keys as strings.

    Returns:
        The checkpoint's folder.

    Raises:
        NotFinite: a tensor or number is NaN or infinite; nothing was written.
        SaveError: the system refused; what was saved before is intact.
    """
    place = folder / _name(step)
    _refuse_not_finite(place, tensors, state)
    if not (place.exists() and _holds(place, _contents(step, tensors, state))):
        size = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
        atomic.publish(place, _contents(step, tensors, state), needed=size)
    return place


def load(path: Path, *, groups: Collection[str] | None = None) -> Loaded:
    """Read a checkpoint. Every byte used is checked against the manifest first.

    Args:
        path: the checkpoint's folder.
        groups: the groups of tensors wanted; all by default.

    Raises:
        BadCheckpoint: something is missing or damaged.
        RequestError: a newer program made it, or it has no such group.
    """
    manifest = manifests.read_manifest(path)
    there = [name.removesuffix(_TENSORS) for name in manifest.files if name.endswith(_TENSORS)]
    tensors = {}
    for group in there if groups is None else groups:
        if group not in there:
            raise unknown(f"{path}: group", group, there)
        data = manifests.read_file(path, group + _TENSORS, manifest)
        try:
            tensors[group] = tensorfile.parse(data)
        except tensorfile.BadTensors as error:
            raise BadCheckpoint(path, f"{group}{_TENSORS} is {error}") from error
    state = manifests.read_json(path, _STATE, manifests.read_file(path, _STATE, manifest))
    return Loaded(manifest.step, tensors, state)


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, sound or not, in ascending order."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(int(name) for name in names if name == _name(int(name)))


def latest(folder: Path, say: Callable[[str], None], *, set_aside: bool = False) -> Path | None:
    """The newest sound checkpoint, if there is one; a newer one that cannot be used is reported.

    Args:
        folder: that of all checkpoints.
        say: called with one line for each checkpoint that cannot be used.
        set_aside: rename a damaged one to ``bad-000500``; only for the process that writes here.

    Raises:
        RequestError: a newer program made the newest one.
    """
    if set_aside:
        atomic.restore(folder)
    found, reports = None, []
    for step in reversed(steps(folder)):
        path = folder / _name(step)
        try:
            manifests.verify(path)
        except BadCheckpoint as error:
            if path.exists():  # else the run that is writing here has just pruned it
                damaged = set_aside and not isinstance(error, UnreadableCheckpoint)
                reports.append(f"{error}; {_set_aside(path)}" if damaged else str(error))
            continue
        found = path
        break
    for report in reports:
        say(f"{report}; {f'using {found} instead' if found else 'there is no earlier one'}")
    return found


def prune(folder: Path, *, keep_last: int, best: int | None = None) -> list[Path]:
    """Delete the oldest checkpoints; call it after a successful save.

    Args:
        folder: that of all checkpoints.
        keep_last: how many sound ones to keep, the newest; 0 keeps all. Those that are not sound do not count, so
            this reads every one it keeps, but only where there is one to delete.
        best: a step to keep whatever its age.

    Returns:
        The folders deleted, oldest first.

    Raises:
        SaveError: one could not be deleted.
    """
    left = steps(folder)
    if not keep_last or not set(left[:-keep_last]) - {best}:
        return []
    sound = 0
    while left and sound < keep_last:
        sound += manifests.is_sound(folder / _name(left.pop()))
    removed = [folder / _name(step) for step in left if step != best]
    for path in removed:
        atomic.remove(path)
    return removed


def place_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return folder / _name(step)


def _name(step: int) -> str:
    return f"{step:06d}"


def _refuse_not_finite(place: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    culprits = (f"{group}/{name}" for group, named in tensors.items() if (name := tensorfile.not_finite(named)))
    culprit = next(culprits, None)
    try:
        json.dumps(state, allow_nan=False)
    except ValueError:
        culprit = culprit or _STATE
    if culprit:
        raise NotFinite(f"{place} was not saved: {culprit} holds a NaN or an infinity; what was saved before is intact")


def _contents(
    step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Iterator[tuple[str, atomic.Chunks]]:
    """Name and bytes of every file; the manifest comes last because it is made of what the others turned out to be."""
    manifest = Manifest(step, {})
    for group, named in tensors.items():
        name = group + _TENSORS
        if not manifests.PLAIN.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a file's name")
        yield name, manifests.measured(name, tensorfile.dump(named), manifest)
    text = json.dumps(state, indent=1, sort_keys=True).encode()
    yield _STATE, manifests.measured(_STATE, [text], manifest)
    yield manifests.NAME, [manifest.dump()]


def _holds(place: Path, contents: Iterator[tuple[str, atomic.Chunks]]) -> bool:
    """Whether the checkpoint at ``place`` is sound and would be written just so again."""
    last = b""
    for _, chunks in contents:
        for last in chunks:  # noqa: B007 (in the end it is the manifest, which is one piece)
            pass
    try:
        return (place / manifests.NAME).read_bytes() == last and manifests.is_sound(place)
    except OSError:
        return False


def _set_aside(path: Path) -> str:
    """Rename a checkpoint that cannot be used to the first free ``bad-`` name; what was done, for the report."""
    number, aside = 1, path.with_name(f"bad-{path.name}")
    while aside.exists():
        number += 1
        aside = path.with_name(f"bad-{path.name}-{number}")
    try:
        atomic.rename(path, aside)
    except atomic.SaveError:
        return "it could not be renamed"
    return f"renamed to {aside.name}"
