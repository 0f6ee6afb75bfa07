"""What makes a folder of files a checkpoint: the manifest, with the length and SHA-256 of each of them.

The manifest carries a digest of itself, so one damaged bit anywhere is found; and because it is written last, a folder
that has a sound one is whole.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from ddm.errors import DdmError, RequestError

FORMAT = 1
"""The version this program writes. All versions keep ``format`` and ``sha256`` as they are here."""

NAME = "manifest.json"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names of files: never a path."""

_LARGEST = 1 << 20


class BadCheckpoint(DdmError):
    """A checkpoint that cannot be used; the message is one line with its path and what is wrong."""

    def __init__(self, path: Path, problem: str):
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


class UnreadableCheckpoint(BadCheckpoint):
    """The system would not read it now: it may well be sound, and is left where it is."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of.

    Attributes:
        step: the optimiser step at which it was saved.
        files: name to ``{"bytes": length, "sha256": digest}``.
    """

    step: int
    files: dict[str, dict[str, Any]]

    def dump(self) -> bytes:
        """The content of manifest.json."""
        body = {"format": FORMAT, "step": self.step, "files": self.files}
        return json.dumps({**body, "sha256": _seal(body)}, indent=1).encode()


def measured(name: str, chunks: Iterable[bytes | memoryview], manifest: Manifest) -> Iterator[bytes | memoryview]:
    """The chunks as they are; when the last has been taken the file is in the manifest."""
    digest, length = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        length += len(chunk)
        yield chunk
    manifest.files[name] = {"bytes": length, "sha256": digest.hexdigest()}


def read_manifest(path: Path) -> Manifest:
    """The manifest of the checkpoint in a folder.

    Raises:
        BadCheckpoint: it is missing, damaged or that of another step than the folder's.
        RequestError: a newer program made it.
    """
    with _opened(path, NAME) as file:
        body = read_json(path, NAME, file.read(_LARGEST))
    if body.pop("sha256", None) != _seal(body):
        raise _damaged(path, NAME)
    if body.get("format") != FORMAT:
        raise RequestError(f"{path} was made by a newer ddm (format {body.get('format')!r}; this one reads {FORMAT})")
    step, files = body.get("step"), body.get("files")
    if not isinstance(step, int) or not isinstance(files, dict):
        raise BadCheckpoint(path, f"{NAME} lacks its step or its files")
    for name, entry in files.items():
        if not PLAIN.fullmatch(name) or not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
            raise BadCheckpoint(path, f"{NAME} has a wrong entry {name[:80]!r}")
    if path.name.isdecimal() and int(path.name) != step:
        raise BadCheckpoint(path, f"{NAME} is that of step {step}")
    return Manifest(step, files)


def verify(path: Path) -> Manifest:
    """Check every file of a checkpoint without holding it in memory; raises as :func:`read_manifest` does."""
    manifest = read_manifest(path)
    for name, entry in manifest.files.items():
        with _opened(path, name, entry["bytes"]) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                raise _damaged(path, name)
    return manifest


def is_sound(path: Path) -> bool:
    """Whether :func:`verify` finds nothing to complain about."""
    try:
        verify(path)
    except DdmError:
        return False
    return True


def read_file(path: Path, name: str, manifest: Manifest) -> bytes:
    """A file of a checkpoint. What is checked is what is returned: nobody can change it in between.

    Raises:
        BadCheckpoint: it is missing or damaged.
    """
    entry = manifest.files.get(name)
    if entry is None:
        raise BadCheckpoint(path, f"{name} is missing")
    with _opened(path, name, entry["bytes"]) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise _damaged(path, name)
    return data


def read_json(path: Path, name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint; raises :class:`BadCheckpoint` where it is none."""
    try:
        value = json.loads(data)
        json.dumps(value)  # so that nobody after us meets nesting that is too deep
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(path, f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise BadCheckpoint(path, f"{name} is not a JSON object")
    return value


def _seal(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _damaged(path: Path, name: str) -> BadCheckpoint:
    return BadCheckpoint(path, f"{name} is damaged (its SHA-256 is not the one it was saved with)")


@contextmanager
def _opened(path: Path, name: str, length: int | None = None) -> Iterator[BufferedReader]:
    """A file of a checkpoint, of the right length; failures of the system in the block are the checkpoint's."""
    try:
        if not (path / name).is_file():  # also keeps us from waiting at a pipe
            raise BadCheckpoint(path, f"{name} is missing")
        with open(path / name, "rb") as file:
            actual = (path / name).stat().st_size
            if length is not None and actual != length:
                raise BadCheckpoint(path, f"{name} has {actual} bytes instead of {length}")
            yield file
    except OSError as error:
        raise UnreadableCheckpoint(path, f"{name} cannot be read ({error.strerror})") from error
