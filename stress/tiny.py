"""The smallest run there is: a step takes milliseconds, and a save is most of the work."""

from pathlib import Path

from ddm.runs import checkpoints, log
from stress.plan import Plan
from stress.starting import Child

TINY = [
    "shapes", "--data=shapes(count=32)", "--image-size=8", "--batch-size=4", "--train.accumulate=1", "--precision=fp32",
    "--network=residual_unet(width=8, mults=(1,), blocks=1, attention=())", "--device=cpu", "--every.sample=0",
    "--sample.count=4", "--sample.steps=2", "--keep.last=2", "--every.log=1",
]  # fmt: skip


def train(plan: Plan, name: str, *more: str, processes: int = 1, runs: Path | None = None) -> list[Child]:
    """Start ``ddm train`` in ``runs / name`` (by default, in the plan's folder), one process or several."""
    arguments = ["train", *TINY, "--runs", str(runs or plan.folder), "--name", name, *more]
    return plan.starter.ranks(processes, "ddm.cli:main", arguments, said=said(plan, name))


def said(plan: Plan, name: str) -> Path:
    """The file with what all processes of a run said."""
    return plan.folder / f"{name}.txt"


def finish(children: list[Child], seconds: float = 300.0) -> None:
    """Wait for the end.

    Raises:
        AssertionError: a process failed.
    """
    found = [each.wait(seconds) for each in children]
    assert not any(found), f"exit statuses {found}: {last_words(children[0].said)}"


def last_words(said: Path) -> str:
    """The last line."""
    return (said.read_text(errors="replace").strip().splitlines() or [""])[-1][:300]


def step_of(run: Path) -> int:
    """The last step that was logged."""
    found = log.read(run / "metrics.jsonl")
    return found[-1]["step"] if found else 0


def newest_time(run: Path) -> float:
    """When the last record was written, in seconds of ``time.time``."""
    found = log.read(run / "metrics.jsonl")
    return found[-1]["time"] if found else 0.0


def newest(run: Path) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max(checkpoints.steps(run / "checkpoints"), default=0)
