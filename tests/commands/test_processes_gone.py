"""A process that dies, is stopped or cut off ends the others in time, in words, and leaves nobody behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from test_processes import ALONE, TINY, TWO

from counts import STRESS, times
from ddm.runs import checkpoints
from kill_and_compare import records

SECONDS = 15.0
"""In which all others must have ended."""

LAUNCHER_SECONDS = 45.0
"""In which torchrun ends those that do not leave when they are told to, and then itself: 30, by its own default."""

stress = pytest.mark.skipif(not STRESS, reason="half a minute each: make stress")

again = pytest.mark.parametrize("again", range(times(1, stress=2, full=20)))

ENDLESS = ["--name=gone", "--steps=1000000", "--every.save=10", "--every.log=5", "--every.sample=0"]


def workers(launcher: int) -> list[int]:
    """The processes that a launcher started, by rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return sorted(int(each) for each in children)


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def seconds_until(done: Callable[[], bool], limit: float) -> float:
    started = time.monotonic()
    while not done():
        assert time.monotonic() - started < limit, f"not within {limit} s"
        time.sleep(0.05)
    return time.monotonic() - started


def start(launcher: list[str], folder: Path, *options: str) -> subprocess.Popen:
    """Runs in a process group of its own, and writes to a file: a pipe would wait for whoever holds it."""
    command = [*launcher, "train", *TINY, "--runs", str(folder), *ENDLESS, *options]
    with (folder / f"{time.monotonic_ns()}.txt").open("w") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def said(folder: Path) -> str:
    return "".join(each.read_text() for each in folder.glob("*.txt"))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """Two processes of one launcher that have trained for a while; whatever is left of them at the end is killed."""
    launcher = start(TWO, tmp_path)
    seconds_until(lambda: (tmp_path / "gone" / "checkpoints" / "000010").exists() or launcher.poll() is not None, 120)
    assert launcher.poll() is None, said(tmp_path)
    both = workers(launcher.pid)
    assert len(both) == 2
    yield launcher, both
    for process in [*both, launcher.pid]:
        if lives(process):
            os.kill(process, signal.SIGKILL)
    launcher.wait()


@again
def test_a_dead_process_ends_the_other(
    tmp_path: Path, pair: tuple[subprocess.Popen, list[int]], again: int, record_property
):
    launcher, (first, second) = pair
    os.kill(second, signal.SIGKILL)
    record_property("seconds", seconds_until(lambda: not lives(first), SECONDS))
    assert launcher.wait(timeout=SECONDS) != 0
    assert not any(map(lives, (first, second)))
    assert "ddm: another process of this launch is gone; the same command goes on from the last checkpoint" in said(
        tmp_path
    )
    resume(tmp_path)


@stress
@again
def test_a_stopped_process_ends_the_other(
    tmp_path: Path, pair: tuple[subprocess.Popen, list[int]], again: int, record_property
):
    launcher, (first, second) = pair
    os.kill(second, signal.SIGSTOP)
    record_property("seconds", seconds_until(lambda: not lives(first), SECONDS))
    assert launcher.poll() is None
    assert "ends: process 1 of 2 gave no sign of life for 10 s; the same command goes on from" in said(tmp_path)
    assert launcher.wait(timeout=LAUNCHER_SECONDS) != 0
    assert not lives(second), "the launcher ends whom the signals to stop do not reach"


@stress
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_process_saves(tmp_path: Path, pair: tuple[subprocess.Popen, list[int]], told: int):
    """Its launcher ends the others as soon as one has left, which must not be before the first has saved."""
    launcher, both = pair
    os.kill(both[told], signal.SIGTERM)
    assert launcher.wait(timeout=SECONDS) != 0
    assert not any(map(lives, both))
    assert checkpoints.steps(tmp_path / "gone" / "checkpoints")[-1] >= records(tmp_path / "gone")[-1]["step"]
    resume(tmp_path)


@stress
@again
def test_a_dead_launcher_leaves_nobody_behind(
    tmp_path: Path, pair: tuple[subprocess.Popen, list[int]], again: int, record_property
):
    launcher, both = pair
    launcher.kill()
    launcher.wait()
    record_property("seconds", seconds_until(lambda: not any(map(lives, both)), SECONDS))
    assert "ends: the launcher did not answer for 10 s: it is gone" in said(tmp_path)


@stress
@again
def test_all_stopped_together_go_on(tmp_path: Path, pair: tuple[subprocess.Popen, list[int]], again: int):
    launcher, both = pair
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in (launcher.pid, *both):
            os.kill(process, number)
        time.sleep(12 if number == signal.SIGSTOP else 3)
    before = records(tmp_path / "gone")[-1]["step"]
    seconds_until(lambda: records(tmp_path / "gone")[-1]["step"] > before, 20)
    assert launcher.poll() is None


@stress
@pytest.mark.parametrize("stopped", [0, 1])
@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_a_stopped_process_ends_the_one_that_samples_or_scores(tmp_path: Path, verb: str, stopped: int):
    trained = subprocess.run([*ALONE, "train", *TINY, "--runs", tmp_path, "--name=gone", "--steps=4"], check=False)
    assert trained.returncode == 0
    endless = {
        "sample": ["--count=1000000", f"--out={tmp_path}/made/"],
        "evaluate": ["--images=1000000", "--features=efficientnet(size=32)", "--metrics", "kid"],
    }
    command = [*TWO, verb, str(tmp_path / "gone"), "--device=cpu", "--batch-size=16", *endless[verb]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_ASSETS_CACHE": str(tmp_path / "made")}
    with (tmp_path / "said.txt").open("w") as file:
        launcher = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    both: list[int] = []
    try:
        seconds_until(lambda: (tmp_path / "made").is_dir() and len(list((tmp_path / "made").rglob("*.*"))) > 8, 120)
        both = workers(launcher.pid)
        os.kill(both[stopped], signal.SIGSTOP)
        assert seconds_until(lambda: not lives(both[1 - stopped]), SECONDS) < SECONDS
        assert f"ends: process {stopped} of 2 gave no sign of life for 10 s" in said(tmp_path)
    finally:
        for process in [*both, launcher.pid]:
            if lives(process):
                os.kill(process, signal.SIGKILL)
        launcher.wait()


def resume(folder: Path) -> None:
    """One process goes on where two were: from the newest checkpoint."""
    kept = checkpoints.steps(folder / "gone" / "checkpoints")[-1]
    launcher = start(ALONE, folder)
    try:
        seconds_until(lambda: (folder / "gone" / "checkpoints" / f"{kept - kept % 10 + 10:06d}").exists(), 60)
    finally:
        launcher.kill()
        launcher.wait()
    assert f"at step {kept} of" in said(folder)


NETWORK = """
set -e
for side in a b; do ip netns add $NAME-$side; done
ip -n $NAME-a link add va type veth peer name vb netns $NAME-b
ip -n $NAME-a addr add 10.99.0.1/24 dev va; ip -n $NAME-b addr add 10.99.0.2/24 dev vb
for side in a b; do ip -n $NAME-$side link set lo up; ip -n $NAME-$side link set v$side up; done
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[str]:
    """Two networks with a cable between them, as two machines have; skips where the system does not allow it."""
    name = f"ddm{os.getpid()}"
    if shutil.which("ip") is None:
        pytest.skip("there is no program ip")
    made = subprocess.run(["sh", "-c", NETWORK], env={**os.environ, "NAME": name}, capture_output=True, text=True)
    try:
        if made.returncode:
            pytest.skip(f"no networks of our own: {made.stderr.strip()}")
        yield name
    finally:
        for side in "ab":
            subprocess.run(["ip", "netns", "del", f"{name}-{side}"], capture_output=True, check=False)


def on_machine(network: str, side: str) -> list[str]:
    place = {"a": "10.99.0.1", "b": "10.99.0.2"}[side]
    return [
        *("ip", "netns", "exec", f"{network}-{side}", "env", f"GLOO_SOCKET_IFNAME=v{side}"),
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d"),
        *(
            "--rdzv_endpoint=10.99.0.1:29431",
            f"--rdzv_conf=is_host={int(side == 'a')}",
            "--rdzv_id=ddm",
            f"--local_addr={place}",
            "-m",
            "ddm.cli",
        ),
    ]


@stress
@again
def test_two_machines_and_a_cable_that_is_cut(tmp_path: Path, network: str, again: int, record_property):
    launchers = [start(on_machine(network, side), tmp_path) for side in "ab"]
    checkpoint = tmp_path / "gone" / "checkpoints" / "000010"
    try:
        seconds_until(lambda: checkpoint.exists() or any(each.poll() is not None for each in launchers), 120)
        assert checkpoint.exists(), said(tmp_path)
        assert '"processes": 2' in (tmp_path / "gone" / "environment.json").read_text()
        both = [worker for each in launchers for worker in workers(each.pid)]
        assert len(both) == 2
        subprocess.run(["ip", "-n", f"{network}-a", "link", "set", "va", "down"], check=True)
        record_property("seconds", seconds_until(lambda: not any(map(lives, both)), SECONDS))
    finally:
        for each in launchers:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()
    text = said(tmp_path)
    assert "process 1 ends: the launcher did not answer for 10 s" in text
    assert "process 0 ends: process 1 of 2 gave no sign of life for 10 s" in text
    resume(tmp_path)
