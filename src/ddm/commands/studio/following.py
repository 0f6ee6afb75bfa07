"""Reading a log while another process appends to it: only what is new, and nothing that is torn.

A log may be cut back and go on (a run that resumes), be replaced by another (``--fresh``), begin later or vanish. What
was read last is compared with what stands there now; where it differs, the log is read anew.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 2**20
"""Bytes read at a time."""

COMPARED = 256
"""Bytes before the place where reading goes on: records end with a time, so that no two logs have the same."""

LONGEST = 2**20
"""Bytes of a line; what is longer is no record."""

NAMES = ("step", "images", "loss", "gradient_norm", "lr", "images_per_second", "time", "skipped")
"""What is kept of a record of metrics.jsonl."""


@dataclass(frozen=True)
class Piece:
    """Some lines of a log.

    Args:
        lines: whole ones.
        anew: whether what was read before is no longer there.
    """

    lines: list[str]
    anew: bool


class Tail:
    """What is appended to a file of lines.

    Args:
        path: the file, which need not be there.
    """

    def __init__(self, path: Path):
        self._path, self._place, self._end = path, 0, b""

    def read(self) -> Iterator[Piece]:
        """The lines since the last time, in pieces; none where nothing happened."""
        try:
            with self._path.open("rb") as file:
                anew = not self._goes_on(file)
                if anew:
                    self._place, self._end = 0, b""
                    yield Piece([], True)
                file.seek(self._place)
                yield from self._pieces(file)
        except OSError:
            if self._place:
                self._place, self._end = 0, b""
                yield Piece([], True)

    def _goes_on(self, file: Any) -> bool:
        file.seek(self._place - len(self._end))
        return file.read(len(self._end)) == self._end

    def _pieces(self, file: Any) -> Iterator[Piece]:
        rest = b""
        while chunk := file.read(CHUNK):
            block = rest + chunk
            cut = block.rfind(b"\n") + 1
            whole, rest = block[:cut], block[cut:]
            if whole:
                self._place += cut
                self._end = (self._end + whole)[-COMPARED:]
                yield Piece(whole.decode("utf-8", "replace").split("\n")[:-1], False)
            elif len(rest) > LONGEST:
                return


def records_in(lines: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """The record of each line, None for a line that is none."""
    try:
        found = json.loads(f"[{','.join(lines)}]")  # at once: twice as fast as line by line
        sound = len(found) == len(lines)
    except (ValueError, RecursionError):
        found, sound = [], False
    for each in found if sound else map(_parsed, lines):
        yield each if isinstance(each, dict) else None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class History:
    """The records of a metrics.jsonl as numbers.

    Args:
        path: the file.

    Attributes:
        unreadable: lines that are no records.
        version: another number whenever something changed.
    """

    def __init__(self, path: Path):
        self._tail = Tail(path)
        self._table = np.empty((0, len(NAMES)))
        self.unreadable = self.version = 0

    def __len__(self) -> int:
        return len(self._table)

    def refresh(self) -> None:
        """Read what is new."""
        for piece in self._tail.read():
            if piece.anew:
                self._table, self.unreadable = self._table[:0], 0
            self._append(list(records_in(piece.lines)))
            self.version += 1

    def column(self, name: str) -> np.ndarray:
        """The values of one of :data:`NAMES` by step, NaN where a record has none."""
        return self._table[:, NAMES.index(name)]

    def last(self, name: str) -> float | None:
        """The newest value that is a finite number."""
        values = self.column(name)[-1:]
        return float(values[0]) if np.isfinite(values).all() and len(values) else None

    def _append(self, records: Sequence[dict[str, Any] | None]) -> None:
        dicts = [each for each in records if each is not None]
        columns = [_numbers([each.get(name) for each in dicts]) for name in NAMES]
        rows = np.stack(columns, 1) if dicts else np.empty((0, len(NAMES)))
        rows = rows[np.isfinite(rows[:, 0]) & (rows[:, 0] >= 0)]
        self.unreadable += len(records) - len(rows)
        if not len(rows):
            return
        # Where the steps go back, what was written before that is no longer true.
        least_after = np.minimum.accumulate(rows[::-1, 0])[::-1]
        rows = rows[np.append(rows[:-1, 0] < least_after[1:], True)]
        kept = np.searchsorted(self._table[:, 0], rows[0, 0])
        self._table = np.concatenate((self._table[:kept], rows))


def _numbers(values: list[Any]) -> np.ndarray:
    """As floats; "nan" and "inf" are how a log writes them."""
    try:
        found = np.array(values, dtype=float)
    except (ValueError, TypeError, OverflowError):
        found = np.empty(0)
    return found if found.shape == (len(values),) else np.array([_number(each) for each in values])


def _number(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        return float("nan")


@dataclass(frozen=True, eq=False)
class Curve:
    """Values against steps, as many as can be seen.

    Args:
        step: the middle of each bin.
        value: the mean of each.
        low: the least of each.
        high: the greatest.
    """

    step: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve(steps: np.ndarray, values: np.ndarray, *, points: int) -> Curve:
    """The finite values in at most so many bins of as many records each."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(values) <= points:
        return Curve(steps, values, values, values)
    edges = np.linspace(0, len(values), points + 1).astype(int)
    starts, sizes = edges[:-1], np.diff(edges)
    step, mean = (np.add.reduceat(each, starts) / sizes for each in (steps, values))
    return Curve(step, mean, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))
