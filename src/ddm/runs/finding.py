"""One thing a doctor looked at."""

from dataclasses import dataclass
from typing import Literal

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: how it is, what was seen, and the way to mend it."""

    status: Literal["ok", "warn", "fail"]
    what: str
    seen: str
    cure: str = ""

    @property
    def words(self) -> str:
        """For people: one line, and the cure on another."""
        return f"{MARKS[self.status]}  {self.what}: {self.seen}" + (f"\n      -> {self.cure}" if self.cure else "")
