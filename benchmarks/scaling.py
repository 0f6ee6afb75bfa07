"""Speed of `ddm train` and `ddm sample` on 1, 2, ... processes of this machine, as a table.

Every process computes with one thread. The batch is global: P processes share the work of one (strong scaling). The
counts take turns, and what is printed is the median of the repeats with the range of all. The load of the machine at
the start of each is kept: where others use it too, images a second tell little. The processor time of an image, that of
all processes without what a training of one step takes, tells then what sharing the work costs, but not the waiting.

    DDM_DATA=... python benchmarks/scaling.py --out results/scaling-cpu.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ddm.runs import log

EVERY = 8
"""Steps a record of the log."""

TRAIN = {
    "network": "residual_unet(width=32, mults=(1, 2, 2), blocks=1)",
    "batch-size": "64",
    "train.accumulate": "1",
    "precision": "fp32",
    "device": "cpu",
    "every.log": str(EVERY),
    "every.save": "0",
    "every.sample": "0",
}
"""Changes to the recipe `edm` on CIFAR-10: a network that two cores can train."""


def launch(processes: int, *arguments: str) -> tuple[str, float]:
    """What a command of `ddm` on so many processes prints, and the seconds of processor time of all of them."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launcher = launcher if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "ddm.cli", *arguments, "--quiet"]
    before = os.times()
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, used


def measure(processes: int, folder: Path, steps: int, count: int) -> dict[str, Any]:
    """Pictures a second of one training and of one request for samples with what it has trained."""
    found: dict[str, Any] = {"processes": processes, "load_before": os.getloadavg()[0]}
    flags = [f"--{name}={value}" for name, value in TRAIN.items()]
    command = ["train", "edm", f"--runs={folder.parent}", *flags]
    _, started = launch(processes, *command, "--steps=1", f"--name={folder.name}-start")
    _, used = launch(processes, *command, f"--steps={steps}", f"--name={folder.name}")
    found["processor_ms"] = 1000 * (used - started) / ((steps - 1) * int(TRAIN["batch-size"]))
    records = log.read(folder / "metrics.jsonl")[1:]  # the first one has the warm-up in it
    found["train"] = statistics.median(each["images_per_second"] for each in records)
    options = [f"--count={count}", "--device=cpu", f"--out={folder}.npz", "--json"]
    made = json.loads(launch(processes, "sample", str(folder), *options)[0])
    return found | {"sample": made["count"] / made["seconds"]}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Medians and ranges of the repeats, and the efficiency: speed of P processes by P times that of one."""
    head = ("", "processes", "images a second", "range", "efficiency", "processor time an image")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for what in ("train", "sample"):
        speeds: dict[int, list[float]] = {}
        for row in rows:
            speeds.setdefault(row["processes"], []).append(row[what])
        one = statistics.median(speeds[1])
        for processes, found in sorted(speeds.items()):
            middle = statistics.median(found)
            shown = f"{middle:.1f} | {min(found):.1f} to {max(found):.1f} | {middle / (processes * one):.0%}"
            used = [row["processor_ms"] for row in rows if row["processes"] == processes]
            time = f"{statistics.median(used):.1f} ms" if what == "train" else ""
            lines.append(f"| {what} | {processes} | {shown} | {time} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(arguments.repeats):
            for processes in sorted({1, *arguments.processes}):
                name = Path(folder) / f"{repeat}-{processes}"
                rows.append(measure(processes, name, arguments.steps, arguments.count))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    lines = table(rows)
    print("\n".join(lines))
    if arguments.out:
        facts = {"command": "python benchmarks/scaling.py " + " ".join(sys.argv[1:]), "torch": torch.__version__}
        facts |= {"date": date.today().isoformat(), "cores": os.cpu_count(), "settings": TRAIN, "table": lines}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
