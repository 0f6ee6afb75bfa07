"""Train a recipe twice, once killed with SIGKILL half way and started again, and compare all that the two left.

    python tests/kill_and_compare.py FOLDER paper --train.steps 40 --every.save 10 --every.log 5

The exit status is 0 where every tensor and every logged number (but times and memory) is equal bit for bit.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from ddm.runs import checkpoints

CLOCK = ("images_per_second", "memory_gb", "time")


def records(run: Path) -> list[dict]:
    """The log of a run without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in each.items() if name not in CLOCK} for each in lines]


def assert_same_run(one: Path, other: Path, *, last: int = 0) -> int:
    """Compare two runs, of their checkpoints the ``last`` ones (0: all); returns how many tensors were equal."""
    assert records(one) == records(other)
    steps, others = (checkpoints.steps(each / "checkpoints")[-last:] for each in (one, other))
    assert steps == others
    compared = 0
    for step in steps:
        ours, theirs = (checkpoints.load(each / "checkpoints" / f"{step:06d}") for each in (one, other))
        assert ours.state["trainer"] == theirs.state["trainer"]
        assert ours.tensors.keys() == theirs.tensors.keys()
        for group, tensors in ours.tensors.items():
            assert tensors.keys() == theirs.tensors[group].keys()
            for name, value in tensors.items():
                assert torch.equal(value, theirs.tensors[group][name]), (step, group, name)
                compared += 1
    return compared


def main(folder: Path, arguments: list[str]) -> None:
    """Run both trainings and print what was compared."""
    command = [sys.executable, "-m", "ddm.cli", "train", *arguments, "--runs", str(folder), "--name"]
    started = time.monotonic()
    subprocess.run([*command, "whole"], check=True)
    seconds = time.monotonic() - started
    killed = subprocess.Popen([*command, "killed"])
    log, half = folder / "killed" / "metrics.jsonl", records(folder / "whole")[-1]["step"] // 2
    while not (log.exists() and (seen := records_so_far(log)) and seen >= half):
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    print(f"killed after step {seen} was logged; checkpoints {checkpoints.steps(folder / 'killed' / 'checkpoints')}")
    subprocess.run([*command, "killed"], check=True)
    compared = assert_same_run(folder / "whole", folder / "killed")
    lines = len(records(folder / "whole"))
    print(f"equal bit for bit: {compared} tensors, {lines} log records; uninterrupted run {seconds:.0f} s")


def records_so_far(log: Path) -> int:
    """The last whole record's step, 0 where there is none."""
    lines = log.read_text().splitlines()
    return json.loads(lines[-2])["step"] if len(lines) > 1 else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
