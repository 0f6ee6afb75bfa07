"""Files that a stranger wrote: refused in one line of our own, in bounded time and memory, and no code of theirs runs.

Damage of the bytes of a checkpoint is test_damage.py's, foreign checkpoints are test_converting.py's, pictures and
arrays those of tests/data; here every value of every file of a run is replaced by what does not belong there.
"""

import copy
import hashlib
import io
import json
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from counts import STRESS
from ddm.cli import main
from ddm.runs.manifest import Manifest

TINY = ["--data=shapes(count=8)", "--image-size=8", "--network=residual_unet(width=8, mults=(1, 2), blocks=1)"]
TINY += ["--batch-size=4", "--device=cpu", "--steps=2", "--every.save=1", "--every.log=1", "--every.sample=0"]
TINY += ["--sample.count=1", "--sample.steps=2"]
SECONDS, MEGABYTES = 8.0, 300
PROTOCOL = {"reference": "a", "reference_digest": "a", "n_real": 3, "n_fake": 5, "first_seed": 0, "features": "b"}
PROTOCOL |= {"features_digest": "b", "resize": "c", "pictures": "d", "rounding": "e"}
EVALUATION = {"by": "train", "model": "x", "kind": "run", "step": 2, "weights": "ema", "metric": "fid", "label": "FID"}
EVALUATION |= {"value": 3.0, "low": 2.0, "high": 4.0, "better": "lower", "details": {}, "warnings": ["w"], "time": 1.0}
EVALUATION |= {"protocol": PROTOCOL, "protocol_digest": "0123456789", "generation": {"sampler": "heun", "steps": 2}}
STRANGE = [None, True, -1, 10**30, 1e308, float("nan"), "x\ny\x1b[31m", "9" * 5000, [], {}, [[1]], {"a": 1}]
GONE = object()
FULL = bool(STRESS)
"""Every value at every place takes a minute; the suite takes some at each."""


CHECKED: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def counted(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """How many commands met a file that is not what it says."""
    before = CHECKED["commands"]
    yield
    record_property("faults", max(1, CHECKED["commands"] - before))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "shapes", "--runs", str(folder), "--name", "good", *TINY]) == 0
    records = [EVALUATION, EVALUATION | {"step": 1}]
    (folder / "good" / "evaluations.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    shutil.rmtree(folder / "good" / "checkpoints" / "000001")
    return folder / "good"


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "run"))


def said_by(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    """Exit status and last line of a command; its time and memory are held to their limits."""
    err = io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr(sys, "stderr", err)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    status = main([str(each) for each in arguments])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert time.monotonic() - started < SECONDS, arguments
    assert grown < MEGABYTES, arguments
    lines = err.buffer.getvalue().decode().splitlines()
    return status, lines[-1] if lines else ""


def check(monkeypatch: pytest.MonkeyPatch, what: object, *arguments: object) -> int:
    """Whatever was done to its files, a command does its work or says in one line why it does not."""
    CHECKED["commands"] += 1
    try:
        status, line = said_by(monkeypatch, *arguments)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert status in (0, 1, 2), what
    if status:
        assert line.startswith("ddm: "), (what, line)
        assert len(line) < 1300, (what, line)
        assert line.isprintable(), (what, line)
    return status


def places(values: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to every value."""
    for name, value in values.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from places(value, (*before, name))


def replaced(values: dict[str, Any], place: tuple[str, ...], value: object) -> dict[str, Any]:
    """A copy with another value at a place, or with none."""
    changed = copy.deepcopy(values)
    inner = changed
    for name in place[:-1]:
        inner = inner[name]
    if value is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return changed


def forge(checkpoint: Path) -> None:
    """Make the manifest agree with whatever the files have become."""
    files = {
        each.name: {"bytes": each.stat().st_size, "sha256": hashlib.sha256(each.read_bytes()).hexdigest()}
        for each in checkpoint.iterdir()
        if each.name != "manifest.json"
    }
    (checkpoint / "manifest.json").write_bytes(Manifest(2, files).dump())


def strange(number: int) -> list[object]:
    """All values, or one of them in turn."""
    return STRANGE if FULL else [STRANGE[number % len(STRANGE)]]


def sample(run: Path) -> tuple[object, ...]:
    return "sample", run / "checkpoints" / "000002", "--count=1", "--device=cpu", "--out", run / "o.png"


def train(run: Path) -> tuple[object, ...]:
    return "train", "shapes", "--runs", run.parent, "--name", run.name, *TINY


MONSTERS = {
    ("config", "network"): [
        "residual_unet(width=8192, mults=(256, 256))",
        "residual_unet(width=8, mults=(1, 2), blocks=100000000)",
        f"unet(dim=8, dim_mults=({'1,' * 3000}))",
        "unet(dim=8, dim_mults=(99999999999, 1))",
        "(" * 9000,
        f"unet({'-' * 9000}1)",
        f"unet({'a' * 100_000})",
    ],
    ("config", "timesteps"): [10**9, 10**13],
    ("config", "sample", "steps"): [10**9, 10**13],
    ("config", "sample", "count"): [10**9],
    ("config", "sample", "grid"): ["karras(rho=1e-300)", f"levels(at=({'3.0,' * 3000}))"],
    ("pictures", "channels"): [0, 10**12, 3.5],
    ("pictures", "classes"): [["a"] * 10**6, [1, 2]],
}


@pytest.mark.parametrize("section", ["config", "pictures", "trainer", "means", ""])
def test_the_state_of_a_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch, section: str):
    checkpoint = run / "checkpoints" / "000002"
    state = json.loads((checkpoint / "state.json").read_bytes())
    refused = count = 0
    for place in places(state):
        if (place[0] if len(place) > 1 else "") != section:
            continue
        for value in [GONE, *strange(count), *MONSTERS.get(place, [])]:
            (checkpoint / "state.json").write_text(json.dumps(replaced(state, place, value)))
            forge(checkpoint)
            refused += check(monkeypatch, (place, value), *sample(run)) == 2
            count += 1
    assert refused > count / 3 or section == "means", "the values are hardly looked at"


@pytest.mark.parametrize("group", ["weights", "ema", "state"])
def test_the_tensors_of_a_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch, group: str):
    checkpoint = run / "checkpoints" / "000002"
    file = checkpoint / f"{group}.safetensors"
    tensors = safetensors.torch.load(file.read_bytes())
    first, last = min(tensors), max(tensors)
    shape, shapes = tensors[last].shape, {name: value.shape for name, value in tensors.items()}
    for what, changed in {
        "dropped": {name: value for name, value in tensors.items() if name != first},
        "last dropped": {name: value for name, value in tensors.items() if name != last},
        "integers": {**tensors, first: tensors[first].long()},
        "another shape": {**tensors, last: torch.zeros(3, 3)},
        "no shape": {**tensors, last: torch.zeros(())},
        "one more": {**tensors, "x\ny\x1b[31m": torch.zeros(3)},
        "none": {},
        "half": {**tensors, last: torch.zeros(shape, dtype=torch.float16)},
    }.items():
        file.write_bytes(safetensors.torch.save({name: value.contiguous() for name, value in changed.items()}))
        forge(checkpoint)
        status = check(monkeypatch, (group, what), *train(run))
        same = {name: value.shape for name, value in changed.items()} == shapes
        assert status == 2 or (same and (group != "state" or what == "no shape")), what
    file.unlink()
    forge(checkpoint)
    assert check(monkeypatch, (group, "gone"), *train(run)) == 2


def test_weights_that_are_not_finite_make_no_picture(run: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = run / "checkpoints" / "000002"
    tensors = safetensors.torch.load((checkpoint / "ema.safetensors").read_bytes())
    changed = {name: value * float("nan") for name, value in tensors.items()}
    (checkpoint / "ema.safetensors").write_bytes(safetensors.torch.save(changed))
    forge(checkpoint)
    status, line = said_by(monkeypatch, *sample(run))
    assert status == 1
    assert "not finite" in line or "NaN" in line
    assert not (run / "o.png").exists()


DEEP = "{a: " * 3000
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
CONFIGS = {
    "a bomb": BOMB + "format: 1\ndata: *a9\n",
    "itself": "&a {format: 1, data: *a}\n",
    "a tag that runs": "format: 1\ndata: !!python/object/apply:os.mkdir [CANARY]\n",
    "a tag that makes": "!!python/object/new:os.system {args: [mkdir CANARY]}\n",
    "deep": DEEP,
    "brackets": "[" * 5000,
    "large": "x: " + "a" * 30_000_000,
    "a large number": "format: 1\nx: " + "9" * 90_000,
    "sixties": "format: 1\nx: " + ":".join(["59"] * 30_000),
    "zeros": "\0" * 100,
    "no letters": "\xe9",
    "a list": "- 1\n",
    "keys that are none": "? [a, b]\n: 3\nformat: 1\n",
    "numbers for keys": "1: 2\nformat: 1\n",
    "colours": 'format: 1\n"a\\nb\\e[31m": 2\n',
    "a date": "format: 1\ndata: 2020-01-01\n",
    "no date": "format: 1\ndata: 2020-99-99\n",
    "a later format": "format: 2\n",
    "no format": "data: cifar10\n",
}


@pytest.mark.parametrize("what", CONFIGS)
def test_settings(run: Path, monkeypatch: pytest.MonkeyPatch, what: str):
    text = CONFIGS[what].replace("CANARY", str(run / "canary"))
    (run / "config.yaml").write_bytes(text.encode("latin1"))
    assert check(monkeypatch, what, "train", run / "config.yaml", "--dry-run") == 2
    assert not (run / "canary").exists()


def test_every_setting(run: Path, monkeypatch: pytest.MonkeyPatch):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    for number, place in enumerate(places(settings)):
        for value in strange(number):
            (run / "config.yaml").write_text(yaml.safe_dump(replaced(settings, place, value)))
            check(monkeypatch, (place, value), "train", run / "config.yaml", "--dry-run")


LINES = ["", "{", "[]", "null", '{"a":' * 100_000, "\0" * 1000, '"' + "a" * 3_000_000 + '"']
LINES += ['{"step":' + "[" * 2000 + "]" * 2000 + "}", '{"step": ' + "9" * 5000 + "}", "{}"]


def verbs_of(run: Path, good: Path, name: str) -> list[tuple[object, ...]]:
    recorded = [("compare", run, good, "--recorded")] if name == "evaluations.jsonl" else []
    return [train(run), *recorded]


def reading_twice(run: Path, monkeypatch: pytest.MonkeyPatch, verbs: list[tuple[object, ...]], what: object) -> None:
    for verb in verbs:
        check(monkeypatch, (verb[0], what), *verb)


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.jsonl"])
def test_records(run: Path, good: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    lines = (good / name).read_text().splitlines(keepends=True)
    record, verbs = json.loads(lines[-1]), verbs_of(run, good, name)
    for number, place in enumerate(places(record)):
        for value in [GONE, *strange(number)]:
            (run / name).write_text("".join(lines[:-1]) + json.dumps(replaced(record, place, value)) + "\n")
            reading_twice(run, monkeypatch, verbs, (place, value))
    for line in LINES:
        (run / name).write_text("".join(lines) + line + "\n")
        reading_twice(run, monkeypatch, verbs, line[:20])


SESSIONS = ["", "{}", "[]", '{"sessions": 3}', '{"sessions": [3]}', '{"sessions": [{"started": "x"}]}', "\xff" * 9]
SESSIONS += [
    '{"sessions":' + "[" * 100_000,
    '{"format": 1, "grids": [{}]}',
    '{"format": 1, "grids": 3}',
    "a" * 5_000_000,
]


@pytest.mark.parametrize("name", ["environment.json", "grids.json", "wandb.json"])
def test_other_files_of_a_run(run: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    reads: dict[str, Callable[[Path], tuple[object, ...]]] = {"environment.json": train, "wandb.json": train}
    for text in SESSIONS:
        (run / name).write_bytes(text.encode("latin1"))
        assert check(monkeypatch, (name, text[:30]), *reads.get(name, sample)(run)) == 0
