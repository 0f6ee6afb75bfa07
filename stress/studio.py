"""F16: the studio with callers who ask, cancel and mean harm for a while: nothing is lost, nothing grows."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from stress import ROOT
from stress.plan import NotHere, Plan, Tally
from stress.rows import Row
from stress.tiny import finish, train

CALLERS = 4


def campaign(plan: Plan) -> Iterator[Row]:
    """By the benchmark of the studio."""
    if find_spec("gradio") is None:
        raise NotHere("gradio is not installed")
    tally, out, seconds = Tally(), plan.folder / "found.json", plan.count(40, 1200)
    finish(train(plan, "run", "--steps=20", "--every.save=20"))
    command = [sys.executable, str(ROOT / "benchmarks" / "studio.py"), str(plan.folder / "run")]
    command += ["--callers", str(CALLERS), "--seconds", str(seconds), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.exists(), f"it ended with {done.returncode}: {done.stderr[-200:]}"
    found = json.loads(out.read_text())
    tally.add(times=sum(found["outcomes"].values()))
    for problem in found["problems"]:
        tally.add(problem)
    first, last = found["megabytes at the start"], found["megabytes at the end"]
    note = f"{found['pictures a second']:.1f} pictures a second, 95 of 100 within "
    note += f"{found['seconds to the picture, 95 of 100']:.2f} s; {first:.0f} MB at the start, {last:.0f} at the end, "
    note += f"{found['growth after the first third']:+.1%} after the first third"
    what = f"the studio for {seconds} s, {CALLERS} callers, one of eight requests cancelled, two who send what is none"
    yield tally.row("F16", what, "nothing lost, memory grows by <= 10 % (1 MB per 1,000 calls)", note=note)
