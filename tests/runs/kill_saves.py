"""Run by test_checkpoints.py: children that only save, killed with SIGKILL at random moments, checked after each death.

Arguments: folder, how many kills. One import of torch serves all of them, since the children are forked.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from ddm.runs import checkpoints


def state_at(step: int) -> dict[str, dict[str, torch.Tensor]]:
    values = torch.full((100, 50), float(step))
    return {"weights": {"a": values, "b": values[:1]}, "ema": {"a": values / 2}}


def save_until_killed(folder: Path, step: int) -> None:
    while True:
        step += 1
        checkpoints.save(folder, step, state_at(step), {"step": step})
        checkpoints.prune(folder, keep_last=2, best=1)


def newest_step(folder: Path) -> int:
    path = checkpoints.latest(folder, lambda line: sys.exit(f"reported: {line}"), set_aside=True)
    if path is None:
        return 0
    loaded, step = checkpoints.load(path), int(path.name)
    assert loaded.state == {"step": step}
    assert all(torch.equal(loaded.tensors[g][n], t) for g, named in state_at(step).items() for n, t in named.items())
    assert step < 2 or (folder / "000001").exists(), "the best one is gone"
    return step


def main(folder: Path, kills: int) -> None:
    moments, step = random.Random(0), 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            save_until_killed(folder, step)
        time.sleep(moments.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child died by itself"
        found = newest_step(folder)
        assert found >= step, f"step {step} was saved, {found} is the newest"
        step = found
    checkpoints.save(folder, step + 1, state_at(step + 1), {"step": step + 1})
    assert not [path for path in folder.iterdir() if not path.name.isdecimal()], "something is left behind"
    sys.stdout.write(str(step))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
