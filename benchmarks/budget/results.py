"""What happened, in a JSON file that is written after every row; a second call goes on where the first was stopped."""

import json
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ddm.runs.environment import commit, processor

Row = dict[str, Any]


class Results:
    """Rows in a file, with the facts that all of them share."""

    def __init__(self, path: Path, device: str, **facts: Any):
        self.path, self.rows = path, []
        name = torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"
        self.facts = {
            "command": " ".join(["python", *sys.argv]),
            "device": name,
            "commit": commit(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "date": date.today().isoformat(),
            **facts,
        }
        if path.exists():
            self.rows = json.loads(path.read_text())["rows"]

    def has(self, **key: Any) -> bool:
        """Is there a row with these values?"""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, row: Row) -> None:
        """Keep a row, and say it."""
        self.rows.append(row)
        self.write()
        words = (
            f"{name} {value}" for name, value in row.items() if not isinstance(value, list | dict) or name == "fid"
        )
        print(", ".join(words), file=sys.stderr, flush=True)

    def write(self) -> None:
        """The whole file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**self.facts, "rows": self.rows}, indent=1) + "\n")
