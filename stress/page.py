"""RELIABILITY.md: every figure with its counts, or why it was not measured."""

import os
import platform
from collections.abc import Sequence
from datetime import date

import torch

from ddm.runs.environment import processor
from ddm.version import __version__
from stress.rows import Row, totals

INTRODUCTION = """# Reliability

Written by `{command}`, which injects faults into real runs and counts what survives them; do not edit. Figures F1
to F25 are those of the project's list. The bound is the upper end of the exact one-sided 95 % interval (Clopper and
Pearson) of the share that is lost: about 3 / N for none of N. Where every case there is was tried ("all cases") there
is no rate to bound. Nothing was run on a GPU.

- ddm {version}, {date}; Python {python}, torch {torch}, {system}
- {machine}, one thread a process
- {counts}, {minutes:.0f} minutes; `make stress SEED=7` meets other moments

"""

HEAD = (
    "| figure | what | passed / tried | bound | target | seconds | seed | commit | notes |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)

HOW = """
## How

- A run is `ddm train` of a network of a few thousand parameters on 8x8 pictures, on the CPU. Processes are forked from
  one that has imported torch, then run the command as typed; signals are the system's own.
- F1, F2, F13: every call that changes the disk goes through one small class, and each of them fails in turn, in every
  way: EIO, ENOSPC, EDQUOT, half a write, death before and after; once and for ever; also by a real SIGKILL.
- Rows of tests: `DDM_STRESS=1 python -m pytest tests/...` runs the same cases.
"""


def machine() -> str:
    """What this one is."""
    return f"{processor()}, {os.cpu_count()} cores"


def page(rows: Sequence[Row], *, command: str, full: bool) -> str:
    """The whole file."""
    text = INTRODUCTION.format(
        command=command,
        version=__version__,
        date=date.today().isoformat(),
        machine="; ".join(dict.fromkeys(row.machine for row in rows if row.machine)),
        python=platform.python_version(),
        torch=torch.__version__,
        system=f"{platform.system()} {platform.release()}",
        counts="full counts" if full else "short counts (`make stress FULL=1` runs the full ones)",
        minutes=sum(row.seconds for row in rows) / 60,
    )
    lines = [line(row) for row in sorted(rows, key=order)]
    problems = [f"- {row.figure}: {problem}" for row in rows for problem in row.problems]
    lost = "\n## What went wrong\n\n" + "\n".join(problems) + "\n" if problems else ""
    return text + HEAD + "".join(lines) + f"\n**{totals(rows)}**\n" + lost + HOW


def order(row: Row) -> tuple[int, str]:
    """By number, the rest behind."""
    number = row.figure[1:]
    return (int(number) if number.isdecimal() else 99, row.figure)


def line(row: Row) -> str:
    """A row of the table."""
    if row.reason:
        cells = [row.figure, row.what, "not measured", "-", row.target, "-", "-", "-", row.reason]
    else:
        cells = [row.figure, row.what, f"{row.passed:,} / {row.count:,}", row.bound, row.target, f"{row.seconds:.0f}"]
        cells += [str(row.seed), row.commit, row.note]
    return "| " + " | ".join(each.replace("|", "/") for each in cells) + " |\n"
