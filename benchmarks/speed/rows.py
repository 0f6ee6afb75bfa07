"""What was measured: rows in a JSON file that is written after each of them, and as Markdown."""

import json
import sys
import time
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COLUMNS = ("what", "network", "code", "settings", "precision", "batch")


class Rows:
    """All rows so far.

    Args:
        path: of the .json file; ``None`` keeps none.
        facts: device, versions, date, command.
    """

    def __init__(self, path: Path | None, facts: Row):
        self.path, self.facts, self.all = path, facts, []
        self.started = time.monotonic()

    def add(self, **row: Any) -> Row:
        """Keep a row, say it on stderr, and return it."""
        self.all.append(row)
        self.write()
        text = ", ".join(f"{name} {value}" for name, value in row.items())
        print(f"[{time.monotonic() - self.started:.0f} s] {text}", file=sys.stderr, flush=True)
        return row

    def write(self) -> None:
        """Bring the file up to date; a run that is killed keeps what it has."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({**self.facts, "rows": self.all}, indent=1) + "\n")

    def find(self, **wanted: Any) -> list[Row]:
        """Rows with these values."""
        return [row for row in self.all if all(row.get(name) == value for name, value in wanted.items())]

    def table(self) -> str:
        """The speeds, as a Markdown table."""
        titles = [*COLUMNS, "images/s (quartiles)", "ours / theirs", "TFLOP/s", "of roofline", "peak MB", "note"]
        lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in self.all if row["kind"] == "speed"]
        return "\n".join(lines)

    def others(self) -> list[str]:
        """Everything that is no speed, a line each."""
        rows = [row for row in self.all if row["kind"] != "speed"]
        return [f"{row['kind']}: " + ", ".join(f"{name} {row[name]}" for name in row if name != "kind") for row in rows]


def cells(row: Row) -> list[str]:
    """A row of the table; what was not measured is empty."""
    found = [str(row.get(name, "")) for name in COLUMNS]
    found += [quartiles(row.get("images_per_second"), ",.4g"), quartiles(row.get("ratio"), ".2f")]
    tflops, share, peak = row.get("tflops"), row.get("roofline"), row.get("peak_bytes")
    found.append("" if tflops is None else f"{tflops:.3g}")
    found.append("" if share is None else f"{share:.0%}")
    found.append("" if peak is None else f"{peak / 1e6:,.0f}")
    return [*found, row.get("note", "")]


def quartiles(values: list[float] | None, form: str) -> str:
    """``[median, low, high]`` as ``median (low to high)``."""
    if values is None:
        return ""
    middle, low, high = (plain(value, form) for value in values)
    return f"{middle} ({low} to {high})"


def plain(value: float, form: str) -> str:
    """A number without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:{form}}"
