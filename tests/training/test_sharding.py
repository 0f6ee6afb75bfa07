"""Weights that PyTorch splits among processes, which ``ddm train`` does not do: docs/scaling.md says how."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

PAGE = Path(__file__).parent.parent.parent / "docs" / "scaling.md"


def launch(script: Path, folder: Path, *, processes: int) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    folder.mkdir(exist_ok=True)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*launcher, script], cwd=folder, env=environment, text=True, **pipes)


def finished(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out


def test_a_step_with_split_weights_is_that_of_one_process(tmp_path: Path):
    script = Path(__file__).with_name("shard_weights.py")
    assert finished(launch(script, tmp_path, processes=2)) == "equal\n"


def test_the_example_of_the_page_runs_and_makes_the_same_weights_on_two_processes(tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = tmp_path / "split.py"
    script.write_text(code)
    for process in [launch(script, tmp_path / str(count), processes=count) for count in (1, 2)]:
        finished(process)
    one, two = (load_file(tmp_path / str(count) / "weights.safetensors") for count in (1, 2))
    assert len(one) > 100
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)
