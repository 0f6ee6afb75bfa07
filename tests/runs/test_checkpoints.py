"""A checkpoint is loaded as it was saved or refused by name; the one before it is always there."""

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch
from faults import Crash, FaultyDisk
from samples import assert_holds, save, tensors_at

from counts import times
from ddm.errors import DdmError, RequestError
from ddm.runs import atomic, checkpoints, tensorfile
from ddm.runs.checkpoints import BadCheckpoint, NotFinite
from ddm.runs.manifest import is_sound


def refuse_to_speak(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    """No waiting for the real disk, which hundreds of cases would do thousands of times."""
    monkeypatch.setattr(atomic, "disk", FaultyDisk())


def test_round_trip(tmp_path):
    path = save(tmp_path / "run" / "checkpoints", 500)
    assert path == tmp_path / "run" / "checkpoints" / "000500"
    assert_holds(path, 500)
    assert checkpoints.latest(path.parent, refuse_to_speak, set_aside=True) == path
    assert sorted(os.listdir(path)) == [
        "ema.safetensors",
        "manifest.json",
        "state.json",
        "state.safetensors",
        "weights.safetensors",
    ]
    manifest = json.loads((path / "manifest.json").read_bytes())
    assert (manifest["format"], manifest["step"]) == (1, 500)
    data = (path / "ema.safetensors").read_bytes()
    assert manifest["files"]["ema.safetensors"] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_other_programs_can_read_the_tensors(tmp_path):
    path = save(tmp_path, 3)
    for group, named in tensors_at(3).items():
        found = safetensors.torch.load_file(path / f"{group}.safetensors")
        assert found.keys() == named.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in named.items())


def test_tensors_start_at_multiples_of_their_width(tmp_path):
    named = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(1, dtype=torch.float64), "c": torch.ones(3).half()}
    data = (checkpoints.save(tmp_path, 1, {"weights": named}, {}) / "weights.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    offsets = {name: entry["data_offsets"] for name, entry in json.loads(data[8 : 8 + length]).items()}
    assert offsets == {"b": [0, 8], "c": [8, 14], "a": [14, 17]}


@pytest.mark.parametrize("dtype", tensorfile._NAMES)
def test_every_type_layout_and_sharing(tmp_path, dtype):
    base = torch.arange(-60, 60).reshape(2, 3, 4, 5).to(dtype)
    named = {
        "plain": base,
        "same again": base,
        "channels last": base.to(memory_format=torch.channels_last),
        "transposed": base.transpose(1, 3),
        "part": base[:, 1:, ::2],
        "expanded": base[:1, :1, :1, :1].expand(3, 3, 3, 3),
        "scalar": base[1, 2, 3, 4],
        "parameter": torch.nn.Parameter(base, requires_grad=dtype.is_floating_point),
    }
    found = checkpoints.load(checkpoints.save(tmp_path, 1, {"weights": named}, {})).tensors["weights"]
    assert found.keys() == named.keys()
    for name, tensor in named.items():
        assert (found[name].dtype, found[name].shape) == (dtype, tensor.shape)
        assert found[name].is_contiguous()
        assert torch.equal(found[name], tensor)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu(tmp_path):
    tensor = torch.randn(8, 3, 3, 3, device="cuda").to(memory_format=torch.channels_last)
    found = checkpoints.load(checkpoints.save(tmp_path, 1, {"weights": {"a": tensor}}, {})).tensors["weights"]["a"]
    assert found.device.type == "cpu"
    assert torch.equal(found, tensor.cpu())


def test_only_the_groups_asked_for(tmp_path):
    path = save(tmp_path, 5)
    (path / "state.safetensors").write_bytes(b"damaged, and not asked for")
    assert checkpoints.load(path, groups=["ema"]).tensors.keys() == {"ema"}
    assert checkpoints.load(path, groups=()).state["content"] == 5
    with pytest.raises(
        RequestError, match=r"group: 'emma' is unknown \(did you mean 'ema'\?\); allowed: ema, state, weights"
    ):
        checkpoints.load(path, groups=["emma"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_what_is_not_finite_is_not_saved(tmp_path, value, dtype):
    save(tmp_path, 1)
    bad = torch.zeros(50, 2, dtype=dtype)
    bad[33, 1] = value
    with pytest.raises(NotFinite, match=r"000002 was not saved: ema/down\.bias holds a NaN or an infinity"):
        checkpoints.save(tmp_path, 2, {"weights": {"good": torch.ones(3)}, "ema": {"down.bias": bad.t()}}, {})
    with pytest.raises(NotFinite, match=r"state\.json"):
        checkpoints.save(tmp_path, 2, {}, {"deep": [{"loss": value}]})
    assert os.listdir(tmp_path) == ["000001"]


def test_mistakes_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="cannot be a file's name"):
        checkpoints.save(tmp_path, 1, {"../weights": {}}, {})
    with pytest.raises(TypeError, match=r"a: a torch\.strided tensor of torch\.complex64 cannot be saved"):
        checkpoints.save(tmp_path, 1, {"weights": {"a": torch.zeros(1, dtype=torch.complex64)}}, {})
    with pytest.raises(TypeError, match="JSON"):
        checkpoints.save(tmp_path, 1, {}, {"path": tmp_path})
    assert os.listdir(tmp_path) == []


def test_the_same_again_is_kept_and_anything_else_replaced(tmp_path):
    inode = save(tmp_path, 1).stat().st_ino
    assert save(tmp_path, 1).stat().st_ino == inode
    save(tmp_path, 1, content=2)
    assert_holds(tmp_path / "000001", 2)
    (tmp_path / "000001" / "ema.safetensors").write_bytes(b"")
    save(tmp_path, 1, content=2)
    assert_holds(tmp_path / "000001", 2)
    assert os.listdir(tmp_path) == ["000001"]


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, errno.EDQUOT, "short", "crash", "crash after"])
@pytest.mark.parametrize("second", ["new", "replace"])
def test_whatever_fails_the_checkpoint_before_is_there(
    tmp_path, monkeypatch, quick, second, fault, forever, record_property
):
    """Two saves and a prune, with every operation failing in turn; then latest, load and the next save."""
    step, at, finished = {"new": 2, "replace": 1}[second], 0, False
    while not finished:
        at += 1
        folder = tmp_path / str(at)
        save(folder, 1)
        disk, raised = FaultyDisk(at, fault, forever=forever), None
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "disk", disk)
            try:
                save(folder, step, content=20)
                checkpoints.prune(folder, keep_last=1)
            except (atomic.SaveError, Crash) as error:
                raised = error
        finished = disk.count < at
        newest = checkpoints.latest(folder, refuse_to_speak, set_aside=True)
        assert newest is not None, at
        content = checkpoints.load(newest).state["content"]
        assert content in ({1, 20} if raised else {20}), at
        assert_holds(newest, content)
        save(folder, 3)
        checkpoints.prune(folder, keep_last=1)
        assert os.listdir(folder) == ["000003"], at
    assert at > 30
    record_property("faults", at - 1)


@pytest.mark.parametrize("seed", [None, *range(times(1, stress=3, full=20))])
@pytest.mark.parametrize("zeros", [False, True], ids=["lost", "zeros"])
@pytest.mark.parametrize("undo", [False, True], ids=["renames kept", "renames undone"])
@pytest.mark.parametrize("second", ["new", "replace"])
def test_no_power_cut_makes_a_wrong_checkpoint(
    tmp_path, monkeypatch, quick, second, undo, zeros, seed, record_property
):
    step, at, finished = {"new": 2, "replace": 1}[second], 0, False
    while not finished:
        at += 1
        folder = tmp_path / str(at)
        save(folder, 1)
        disk = FaultyDisk(at, "crash after")
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "disk", disk)
            try:
                save(folder, step, content=20)
                checkpoints.prune(folder, keep_last=1)
            except Crash:
                pass
        finished = disk.count < at
        disk.cut_power(folder, zeros=zeros, undo=undo, chance=None if seed is None else random.Random(seed + at))
        newest = checkpoints.latest(folder, refuse_to_speak, set_aside=True)
        assert newest is not None, at
        assert_holds(newest, 20 if newest.name == "000002" else checkpoints.load(newest).state["content"])
    record_property("faults", at - 1)


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, "crash", "crash after"])
def test_as_many_sound_ones_as_shall_be_kept_at_every_moment_of_a_prune(
    tmp_path, monkeypatch, quick, fault, record_property
):
    at, finished = 0, False
    while not finished:
        at += 1
        folder = tmp_path / str(at)
        for step in (1, 2, 3, 4, 5):
            save(folder, step)
        (folder / "000004" / "state.json").unlink()
        disk = FaultyDisk(at, fault)
        with monkeypatch.context() as patch, suppress(atomic.SaveError, Crash):
            patch.setattr(atomic, "disk", disk)
            checkpoints.prune(folder, keep_last=2, best=1)
        finished = disk.count < at
        sound = [step for step in checkpoints.steps(folder) if is_sound(folder / f"{step:06d}")]
        assert {1, 3, 5} <= set(sound), at
    assert at > 5
    record_property("faults", at - 1)


def test_killed_while_saving(tmp_path, record_property):
    kills = times(40, stress=100, full=1000)
    script = Path(__file__).with_name("kill_saves.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(checkpoints.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(kills)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    record_property("faults", kills)


def test_latest_passes_over_the_bad_ones_and_says_so(tmp_path):
    said = []
    assert checkpoints.latest(tmp_path / "none", said.append, set_aside=True) is None
    assert checkpoints.latest(tmp_path, said.append, set_aside=True) is None
    assert said == []
    for step in (500, 1000, 1500, 2000):
        save(tmp_path, step)
    (tmp_path / "bad-001500").mkdir()
    (tmp_path / "001500" / "ema.safetensors").unlink()
    (tmp_path / "002000" / "weights.safetensors").write_bytes(b"")
    assert checkpoints.latest(tmp_path, said.append, set_aside=True) == tmp_path / "001000"
    length = (tmp_path / "001000" / "weights.safetensors").stat().st_size
    assert said == [
        f"{tmp_path}/002000: weights.safetensors has 0 bytes instead of {length}; renamed to bad-002000; "
        f"using {tmp_path}/001000 instead",
        f"{tmp_path}/001500: ema.safetensors is missing; renamed to bad-001500-2; using {tmp_path}/001000 instead",
    ]
    assert sorted(os.listdir(tmp_path)) == ["000500", "001000", "bad-001500", "bad-001500-2", "bad-002000"]
    said.clear()
    assert checkpoints.latest(tmp_path, said.append, set_aside=True) == tmp_path / "001000"
    assert said == []


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json"])
def test_latest_and_prune_find_a_single_flipped_bit(tmp_path, name):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    said = []
    assert checkpoints.prune(tmp_path, keep_last=1) == []
    assert checkpoints.latest(tmp_path, said.append, set_aside=True) == tmp_path / "000001"
    assert said == [
        f"{tmp_path}/000002: {name} is damaged (its SHA-256 is not the one it was saved with); renamed to bad-000002; "
        f"using {tmp_path}/000001 instead"
    ]


def test_latest_when_none_is_good(tmp_path, monkeypatch):
    said = []
    (tmp_path / "000500").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "disk", FaultyDisk(1, errno.EROFS, forever=True))
        assert checkpoints.latest(tmp_path, said.append, set_aside=True) is None
    assert checkpoints.latest(tmp_path, said.append, set_aside=True) is None
    assert said == [
        f"{tmp_path}/000500: manifest.json is missing; it could not be renamed; there is no earlier one",
        f"{tmp_path}/000500: manifest.json is missing; renamed to bad-000500; there is no earlier one",
    ]


def test_steps_are_numbers_and_nothing_else_is_one(tmp_path):
    for name in (
        "1000000",
        "999999",
        "000002",
        "010000",
        "2",
        "0000002",
        "bad-000001",
        ".tmp-000003-1",
        "٠٠٠٠٠٤",
        "best",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "000005").touch()
    assert checkpoints.steps(tmp_path) == [2, 10_000, 999_999, 1_000_000]


def test_prune_deletes_the_oldest_by_number(tmp_path):
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        save(tmp_path, step)
    assert checkpoints.prune(tmp_path, keep_last=0) == []
    assert checkpoints.prune(tmp_path, keep_last=4) == []
    assert checkpoints.prune(tmp_path, keep_last=2) == [tmp_path / "999998", tmp_path / "999999"]
    assert checkpoints.steps(tmp_path) == [1_000_000, 1_000_001]
    assert sorted(os.listdir(tmp_path)) == ["1000000", "1000001"]


def test_prune_keeps_the_best(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    assert checkpoints.prune(tmp_path, keep_last=1, best=2) == [tmp_path / "000001", tmp_path / "000003"]
    assert checkpoints.prune(tmp_path, keep_last=1, best=2) == []
    assert checkpoints.prune(tmp_path, keep_last=1, best=4) == [tmp_path / "000002"]


def test_prune_counts_only_sound_ones(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    for step in (3, 5):
        (tmp_path / f"{step:06d}" / "state.json").unlink()
    assert checkpoints.prune(tmp_path, keep_last=3) == []
    assert checkpoints.prune(tmp_path, keep_last=2) == [tmp_path / "000001"]
    shutil.rmtree(tmp_path / "000002")
    assert checkpoints.prune(tmp_path, keep_last=2) == []
    assert checkpoints.steps(tmp_path) == [3, 4, 5]


def test_every_error_is_one_of_ours(tmp_path):
    assert issubclass(atomic.SaveError, DdmError)
    assert issubclass(NotFinite, DdmError)
    with pytest.raises(BadCheckpoint, match=r"nowhere: manifest\.json is missing"):
        checkpoints.load(tmp_path / "nowhere")


def test_a_passing_read_error_renames_nothing(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {"weights": {"w": torch.ones(step)}}, {})

    def crowded(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    said = []
    monkeypatch.setattr("builtins.open", crowded)
    assert checkpoints.latest(tmp_path, said.append, set_aside=True) is None
    monkeypatch.undo()
    assert "cannot be read (Too many open files)" in said[0]
    assert checkpoints.steps(tmp_path) == [1, 2]
