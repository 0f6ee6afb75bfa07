"""Figures that the tests know how to measure: they are asked again, with larger counts.

A test says how many faults it injected with ``record_property("faults", ...)`` of pytest; one that says nothing is one.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree

from stress import ROOT
from stress.plan import Campaign, Plan, Tally, middle
from stress.rows import Row


@dataclass(frozen=True)
class Suite:
    """A figure and its tests.

    Args:
        figure: of the project's list.
        what: has to hold.
        target: what is asked for.
        tests: node ids below tests/.
        every: all cases there are, or damage of every kind that was thought of: nothing random to bound.
        workers: of pytest.
        faults: whether what is counted is faults.
    """

    figure: str
    what: str
    target: str
    tests: tuple[str, ...]
    every: bool = True
    workers: int = 2
    faults: bool = True


@dataclass
class Asked:
    """What pytest found.

    Attributes:
        tally: faults and problems.
        seconds: that tests measured until what they waited for.
        skipped: why some were not run.
    """

    tally: Tally = field(default_factory=Tally)
    seconds: list[float] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def campaign_of(suite: Suite) -> Campaign:
    """Run the tests, count."""

    def campaign(plan: Plan) -> Iterator[Row]:
        found = ask(suite, plan)
        notes = [f"seconds: median {middle(found.seconds):.1f}, 95 of 100 {middle(found.seconds, 0.95):.1f}"]
        notes = notes if found.seconds else []
        notes += [f"skipped: {reason}" for reason in sorted(set(found.skipped))]
        reason = "" if found.tally.count else "; ".join(notes) or "no test ran"
        row = {"every": suite.every, "faults": suite.faults, "note": "; ".join(notes), "reason": reason}
        yield found.tally.row(suite.figure, suite.what, suite.target, **row)

    return campaign


def ask(suite: Suite, plan: Plan) -> Asked:
    """Run pytest in a process of its own and read what it wrote down."""
    report = plan.folder / "report.xml"
    plan.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
    command += [
        "--junit-xml",
        str(report),
        "--basetemp",
        str(plan.folder / "pytest"),
        f"--numprocesses={suite.workers}",
    ]
    environment = {**os.environ, "DDM_STRESS": "full" if plan.full else "1"}
    found = Asked()
    tests = [f"tests/{each}" for each in suite.tests]
    done = subprocess.run([*command, *tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        found.tally.add(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-200:]}")
        return found
    for case in ElementTree.parse(report).iter("testcase"):
        read(case, found)
    return found


def read(case: ElementTree.Element, found: Asked) -> None:
    """One test."""
    said = [(each.get("name"), each.get("value") or "") for each in case.iter("property")]
    faults = sum(int(value) for name, value in said if name == "faults") or 1
    wrong = [*case.findall("failure"), *case.findall("error")]
    skipped = case.find("skipped")
    if skipped is not None:
        found.skipped.append((skipped.get("message") or "")[:120])
        return
    found.seconds += [float(value) for name, value in said if name == "seconds"]
    if wrong:
        faults = 1  # the first that went wrong ended it
    message = f"{case.get('name')}: {wrong[0].get('message') or ''}"[:300].replace("\n", " ") if wrong else ""
    found.tally.add(message, times=faults)
