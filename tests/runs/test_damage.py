"""Damage by chance and with intent: a checkpoint is refused in one line, or loads as it was saved."""

import hashlib
import json
import os
import random
from pathlib import Path

import pytest
import safetensors.torch
from samples import assert_holds, save

from counts import times
from ddm.errors import RequestError
from ddm.runs import checkpoints
from ddm.runs.checkpoints import BadCheckpoint
from ddm.runs.manifest import Manifest, _seal


def is_refused(path: Path, content: int, what: object) -> bool:
    """Whether it was refused, in one line that names it; else it must have loaded as it was saved."""
    problem = ""
    try:
        assert_holds(path, content)
    except BadCheckpoint as error:
        problem = str(error)
    assert not problem or (str(path) in problem and "\n" not in problem), what
    return bool(problem)


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "manifest.json"])
def test_every_truncation_is_refused(tmp_path, name, record_property):
    path = save(tmp_path, 7)
    data = (path / name).read_bytes()
    for length in range(len(data)):
        (path / name).write_bytes(data[:length])
        assert is_refused(path, 7, length)
    (path / name).unlink()
    assert is_refused(path, 7, "missing")
    (path / name).mkdir()
    assert is_refused(path, 7, "a folder")
    record_property("faults", len(data) + 2)


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "manifest.json"])
def test_every_flipped_bit_is_refused_or_harmless(tmp_path, name, record_property):
    path = save(tmp_path, 7)
    data = (path / name).read_bytes()
    bits = random.Random(0).sample(range(8 * len(data)), min(times(1500, stress=1500, full=10**6), 8 * len(data)))
    accepted = 0
    for bit in bits:
        mutant = bytearray(data)
        mutant[bit // 8] ^= 1 << bit % 8
        (path / name).write_bytes(mutant)
        accepted += not is_refused(path, 7, bit)
    assert accepted <= (0 if name != "manifest.json" else len(bits) // 10)  # white space of the manifest
    record_property("faults", len(bits))


@pytest.mark.parametrize("name", ["weights.safetensors", "ema.safetensors", "state.safetensors", "state.json"])
def test_other_damage_is_refused(tmp_path, name, record_property):
    path, other = save(tmp_path, 7), save(tmp_path, 8)
    good = (path / name).read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    damages = {
        "from another checkpoint": (other / name).read_bytes(),
        "zeroed": bytes(len(good)),
        "zeroed behind the header": good[:header] + bytes(max(0, len(good) - header)) + b"!" * (name == "state.json"),
        "zeroed page": good[:-16] + bytes(16),
        "more behind": good + b"\0",
        "text": b"not a checkpoint",
        **{
            f"header of {n}": n.to_bytes(8, "little") + good[8:]
            for n in (0, 1, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1)
        },
    }
    for what, data in damages.items():
        (path / name).write_bytes(data)
        assert is_refused(path, 7, what)
    (path / name).write_bytes(good)
    assert_holds(path, 7)
    record_property("faults", len(damages))


def test_swapped_folders_are_refused(tmp_path):
    save(tmp_path, 7).rename(tmp_path / "x")
    save(tmp_path, 8).rename(tmp_path / "000007")
    (tmp_path / "x").rename(tmp_path / "000008")
    for name in ("000007", "000008"):
        with pytest.raises(BadCheckpoint, match=r"manifest\.json is that of step [78]"):
            checkpoints.load(tmp_path / name)
    (tmp_path / "000008").rename(tmp_path / "my favourite")
    assert checkpoints.load(tmp_path / "my favourite").step == 7


def forge(path: Path, name: str, data: bytes) -> None:
    """Change a file and make the manifest agree, as a stranger can who means harm."""
    (path / name).write_bytes(data)
    files = {
        each.name: {"bytes": each.stat().st_size, "sha256": hashlib.sha256(each.read_bytes()).hexdigest()}
        for each in path.iterdir()
        if each.name != "manifest.json"
    }
    (path / "manifest.json").write_bytes(Manifest(7, files).dump())


def test_forged_contents_are_refused_with_one_line(tmp_path, record_property):
    path = save(tmp_path, 7)
    header = b'{"a":{"dtype":"%s","shape":%s,"data_offsets":[0,4]}}'
    forgeries = [b"", b"short", bytes(8), (2**63).to_bytes(8, "little"), (10**9).to_bytes(8, "little") + bytes(100)]
    for dtype, shape in [
        (b"F99", b"[1]"),
        (b"F4", b"[8]"),
        (b"F32", b"[-1]"),
        (b"F32", b"[2]"),
        (b"F32", b"[4294967297,4294967297]"),
    ]:
        text = header % (dtype, shape)
        forgeries.append(len(text).to_bytes(8, "little") + text + bytes(4))
    for data in forgeries:
        forge(path, "weights.safetensors", data)
        with pytest.raises(BadCheckpoint, match=r"000007: weights\.safetensors is not a safetensors file") as caught:
            checkpoints.load(path)
        assert "\n" not in str(caught.value)
    forge(path, "weights.safetensors", safetensors.torch.save({}))
    for data in [b"", b"[]", b"null", b"{", b"\xff", b'{"a":' * 100_000, b"9" * 10_000]:
        forge(path, "state.json", data)
        with pytest.raises(BadCheckpoint, match=r"state\.json is not"):
            checkpoints.load(path)
    record_property("faults", len(forgeries) + 7)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "7"},
        {"step": None},
        {"files": []},
        {"files": {}},
        {"files": {"../../etc/passwd": {"bytes": 1, "sha256": ""}}},
        {"files": {"state.json": 3}},
        {"files": {"state.json": {"bytes": 3}}},
        {"files": {"state.json": {"bytes": "x", "sha256": 1}}},
    ],
)
def test_forged_manifests_are_refused_with_one_line(tmp_path, change):
    path = save(tmp_path, 7)
    body = json.loads((path / "manifest.json").read_bytes()) | change
    del body["sha256"]
    (path / "manifest.json").write_text(json.dumps(body | {"sha256": _seal(body)}))
    with pytest.raises(BadCheckpoint, match="000007: "):
        checkpoints.load(path)


@pytest.mark.parametrize("data", [b"[]", b"1", b'{"a":' * 100_000, b"{" + b" " * 2_000_000 + b"}", b"9" * 10_000])
def test_a_manifest_that_is_none_is_refused(tmp_path, data):
    path = save(tmp_path, 7)
    (path / "manifest.json").write_bytes(data)
    with pytest.raises(BadCheckpoint, match=r"manifest\.json is not"):
        checkpoints.load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path):
    path = save(tmp_path, 7)
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")
    with pytest.raises(BadCheckpoint, match=r"state\.json is missing"):
        checkpoints.load(path)


def test_a_newer_format_is_a_wrong_request_and_stays_where_it_is(tmp_path):
    save(tmp_path, 6)
    path = save(tmp_path, 7)
    body = {"format": 2, "step": 7, "shards": ["whatever"]}
    (path / "manifest.json").write_text(json.dumps(body | {"sha256": _seal(body)}))
    for act in (lambda: checkpoints.load(path), lambda: checkpoints.latest(tmp_path, pytest.fail)):
        with pytest.raises(RequestError, match=r"000007 was made by a newer ddm \(format 2; this one reads 1\)"):
            act()
    assert checkpoints.steps(tmp_path) == [6, 7]
