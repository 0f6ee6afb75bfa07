"""Append-only records of a run, one JSON object a line: ``metrics.jsonl``, ``evaluations.jsonl``.

A record is a line that ends, and says its ``format``. What follows the last line end was being written when the process
died: readers pass over it, and the next :func:`append` removes it. JSON has no NaN and no infinities; they are written
as the strings ``"nan"``, ``"inf"``, ``"-inf"`` and read back as floats (and so would be a text of just these letters).
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddm.errors import DdmError
from ddm.runs import atomic

FORMAT = 1
"""Of each record, since versions may follow each other in a run; a record without it is of the first."""

_BLOCK = 4096
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record. It survives the death of the process when this returns, and a power cut after :func:`sync`.

    Raises:
        SaveError: the system refused; the file is as it was.
    """
    line = json.dumps({"format": FORMAT, **_encoded(record)}, allow_nan=False).encode() + b"\n"
    with atomic.saving(path, len(line)):
        descriptor = atomic.disk.append(path)
        try:
            end = _whole_length(descriptor)
            if end != os.fstat(descriptor).st_size:
                atomic.disk.truncate(descriptor, end)
            try:
                atomic.write_all(descriptor, line)
            except OSError:
                with suppress(OSError):  # else the next append removes what was written
                    atomic.disk.truncate(descriptor, end)
                raise
        finally:
            atomic.disk.close(descriptor)


def sync(path: Path) -> None:
    """Make the records survive a power cut; a file that does not exist has none.

    Raises:
        SaveError: the system refused.
    """
    if path.exists():
        with atomic.saving(path):
            descriptor = atomic.disk.append(path)
            try:
                atomic.disk.sync(descriptor)
            finally:
                atomic.disk.close(descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """All records, in the order in which they were written; none where there is no file.

    Raises:
        DdmError: a line that ends is not a record, or the file cannot be read.
    """
    records = []
    for number, line in enumerate(_lines(path), 1):
        record = _record(line, path)
        if record is None:
            raise DdmError(f"{path}, line {number}: not a record; delete the line to go on without it")
        records.append(record)
    return records


def truncate(path: Path, after_step: int) -> None:
    """Drop the records of later steps and whatever is torn, so that a resumed run writes what an unbroken one would.

    A power cut may garble lines written after the last :func:`sync`; such lines at the end go too. Records without a
    ``step`` stay, and so does every byte of the lines that stay.

    Raises:
        DdmError: a line before one that stays is not a record.
        SaveError: the system refused; the file is as it was.
    """
    if not path.exists():
        return
    kept, bad = [], None
    for number, line in enumerate(_lines(path), 1):
        record = _record(line, path)
        if record is None:
            bad = bad or number
        elif record.get("step", after_step) <= after_step:
            if bad:
                raise DdmError(f"{path}, line {bad}: not a record; delete the line to go on without it")
            kept.append(line + b"\n")
    data = b"".join(kept)
    if len(data) != path.stat().st_size:
        atomic.replace_file(path, data)


def _lines(path: Path) -> list[bytes]:
    """The lines that end."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DdmError(f"{path} cannot be read: {error.strerror}") from error


def _record(line: bytes, path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    record = _decoded(value)
    made = record.pop("format", 1)
    if _is_whole(made) and made > FORMAT:
        raise DdmError(f"{path} was made by a newer ddm (format {made}; this one reads {FORMAT})")
    return record if all(KINDS[name](record[name]) for name in KINDS.keys() & record.keys()) else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("step", "images", "skipped"), _is_whole),
    **dict.fromkeys(("loss", "gradient_norm", "lr"), _is_number),
    "time": lambda value: _is_number(value) and 0 <= value < 1e11,
    **dict.fromkeys(("value", "low", "high"), _is_number),
    **dict.fromkeys(("metric", "label", "protocol_digest", "by", "kind", "model"), _is_text),
    **dict.fromkeys(("weights", "model_digest"), lambda value: value is None or _is_text(value)),
    "generation": lambda value: value is None or isinstance(value, dict),
    "better": lambda value: value in ("lower", "higher"),
    "warnings": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    **dict.fromkeys(("protocol", "details"), lambda value: isinstance(value, dict)),
}
"""What a record may say under these names: a line that says something else is none of ours."""


def _whole_length(descriptor: int) -> int:
    """The file's length up to its last line end."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        os.lseek(descriptor, start, os.SEEK_SET)
        found = os.read(descriptor, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _encoded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _encoded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(each) for each in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    if isinstance(value, dict):
        return {key: _decoded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value
