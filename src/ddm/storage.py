"""Things that can be made again, kept on disk: a file is there whole or not at all, and is checked when it is read."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from ddm.errors import DdmError

CONTENT = "content_sha256"


def cache_folder(kind: str) -> Path:
    """The hub's own folder for things that libraries derive (``HF_HOME``, ``HF_ASSETS_CACHE``).

    Args:
        kind: ``data``, ``features``, ``pictures`` or ``weights``.

    Raises:
        DdmError: it cannot be made.
    """
    from huggingface_hub import cached_assets_path

    try:
        return cached_assets_path("ddm", kind)
    except (OSError, ValueError) as error:
        raise DdmError(f"cannot make the cache folder: {error}; HF_HOME says where it is") from error


def digest_of(*parts: Any) -> str:
    """SHA-256 of plain values (anything JSON can write), as hexadecimal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, as hexadecimal; raises ``OSError`` where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values of tensors on any device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **facts: str) -> None:
    """Publish tensors as a safetensors file with their digest: whoever reads ``path`` sees all of it or nothing.

    Several processes may do this at once; the last one stays.

    Raises:
        DdmError: the folder cannot be written.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file(path, save(plain, metadata={**facts, CONTENT: digest_of_tensors(plain)}))


def write_file(path: Path, data: bytes) -> None:
    """Publish a file by renaming it into place; raises as :func:`write_tensors` does."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DdmError(f"cannot write {path}: {error.strerror or error}; HF_HOME says where the cache is") from error


class Damaged(Exception):
    """A file is there and is not what was written."""


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """What :func:`write_tensors` wrote, or ``None`` where there is no such file.

    Raises:
        Damaged: the file is cut, or any bit of it changed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()  # at once: safe_open opens a file twice, and another process may replace it in between
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        written = header.get("__metadata__", {}).get(CONTENT)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise Damaged(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    if written != digest_of_tensors(tensors):
        raise Damaged(f"{path} is not as it was written")
    with suppress(OSError):
        os.utime(path)  # trim keeps what was used last
    return tensors


def trim(folder: Path, keep_bytes: int) -> None:
    """Remove the files of a cache that were used longest ago until at most ``keep_bytes`` are left."""
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process may trim as well
            about = path.stat()
            if path.is_file():
                files.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= keep_bytes:
            return
        with suppress(OSError):
            path.unlink()
        total -= size
