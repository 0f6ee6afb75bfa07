"""Run the campaigns in order, say what each found, write RELIABILITY.md; the last line sums up.

    python -m stress                      # half an hour at most
    python -m stress --full --seed 7
    python -m stress --only F8            # some of it again; the rest stays as it was measured

Rows are kept in build/stress/rows.jsonl as soon as they are known, and build/stress/RELIABILITY.md shows what there is:
a run that is killed loses the campaign it was in. RELIABILITY.md is written when no campaign is missing. The exit
status is 1 where anything was lost.
"""

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ddm.runs.environment import commit
from stress import ROOT
from stress.campaigns import CAMPAIGNS, NOT_HERE
from stress.page import machine, page
from stress.plan import Campaign, NotHere, Plan
from stress.rows import Kept, Row, totals
from stress.starting import starter

BUILD = ROOT / "build" / "stress"


def main() -> int:
    """What ``make stress`` does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="full counts: some hours")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--only", nargs="+", default=[], metavar="FIGURE", help="F3, or the whole name of a campaign")
    asked = parser.parse_args()
    names = [name for name, _ in CAMPAIGNS]
    if unknown := [word for word in asked.only if not any(is_meant(name, word) for name in names)]:
        parser.error(f"{unknown[0]!r} is unknown; allowed: {', '.join(dict.fromkeys(names))}")
    chosen = [(name, each) for name, each in CAMPAIGNS if any(is_meant(name, word) for word in asked.only or [name])]
    kept, here = Kept(BUILD / "rows.jsonl", anew=not asked.only), machine()
    source = (commit() or "unknown")[:7]
    for row in rows_of(chosen, asked):
        kept.add(dataclasses.replace(row, seed=asked.seed, commit=source, machine=here))
        say(row.said())
        text = page([*kept.rows, *NOT_HERE], command=f"make stress{' FULL=1' if asked.full else ''}", full=asked.full)
        (BUILD / "RELIABILITY.md").write_text(text)
    if len({row.figure for row in kept.rows}) == len({name.split()[0] for name in names}):
        shutil.copyfile(BUILD / "RELIABILITY.md", ROOT / "RELIABILITY.md")
    say(totals(kept.rows))
    return int(any(row.lost for row in kept.rows))


def is_meant(name: str, word: str) -> bool:
    """Whether a word is a campaign's name or figure."""
    return word in (name, name.split()[0])


def rows_of(chosen: list[tuple[str, Campaign]], asked: argparse.Namespace) -> Iterator[Row]:
    """All rows as they come."""
    with (
        tempfile.TemporaryDirectory(prefix="ddm-stress-", ignore_cleanup_errors=True) as folder,
        starter() as processes,
    ):
        for number, (name, campaign) in enumerate(chosen):
            plan = Plan(processes, Path(folder) / str(number), asked.seed, asked.full)
            plan.folder.mkdir()
            yield from carried_out(name, campaign, plan)
            shutil.rmtree(plan.folder, ignore_errors=True)


def carried_out(name: str, campaign: Campaign, plan: Plan) -> Iterator[Row]:
    """A campaign's rows; one that fails itself is a loss, and the next one has its turn."""
    started = time.monotonic()
    try:
        yield from campaign(plan)
    except NotHere as reason:
        yield Row(name.split()[0], name, reason=str(reason))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        yield Row(name.split()[0], name, 0, 1, problems=[problem], seconds=time.monotonic() - started)


def say(line: str) -> None:
    """To the terminal, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
