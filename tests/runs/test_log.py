"""A record is a line that ends; what is torn is passed over and cut off, what is whole is never changed."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults import Crash, FaultyDisk

from counts import times
from ddm.errors import DdmError
from ddm.runs import atomic, log

RECORDS = [{"step": step, "loss": 1 / step, "note": "ünïcode\n"} for step in range(1, 6)]


def write(path: Path, records=RECORDS) -> bytes:
    for record in records:
        log.append(path, record)
    return path.read_bytes()


def test_round_trip(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert log.read(path) == []
    data = write(path)
    assert log.read(path) == RECORDS
    assert data.count(b"\n") == len(RECORDS)
    assert data.isascii()
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    log.sync(path)
    log.sync(tmp_path / "missing")
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_numbers_that_json_does_not_know(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log.append(
        path, {"step": 1, "loss": math.nan, "parts": [math.inf, (-math.inf, 2)], "more": {"a": math.nan}, "x": "in"}
    )
    strict = json.loads(path.read_bytes(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {
        "format": 1,
        "step": 1,
        "loss": "nan",
        "parts": ["inf", ["-inf", 2]],
        "more": {"a": "nan"},
        "x": "in",
    }
    (record,) = log.read(path)
    assert math.isnan(record["loss"])
    assert math.isnan(record["more"]["a"])
    assert record["parts"] == [math.inf, [-math.inf, 2]]
    assert record["x"] == "in"


def test_every_torn_end_is_passed_over_and_then_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    data = write(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        assert log.read(path) == RECORDS[:whole]
        log.append(path, {"step": 9})
        assert log.read(path) == [*RECORDS[:whole], {"step": 9}]
        path.write_bytes(data[:length])
        log.truncate(path, 99)
        assert path.read_bytes() == b"".join(data.splitlines(keepends=True)[:whole])


def test_a_torn_line_of_any_length_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    data = write(path)
    for length in (1, 4095, 4096, 4097, 20_000):
        path.write_bytes(data + bytes(length))
        log.append(path, {"step": 6})
        assert log.read(path) == [*RECORDS, {"step": 6}]
    path.write_bytes(bytes(9000))
    log.append(path, {"step": 6})
    assert log.read(path) == [{"step": 6}]


@pytest.mark.parametrize("bad", [b"{", b"[1]", b"", b"\xff", b"\0" * 10, b'{"a":' * 100_000])
def test_a_bad_line_that_ends_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    data = write(path)
    path.write_bytes(data[: data.index(b"\n") + 1] + bad + b"\n" + data)
    with pytest.raises(DdmError, match=r"metrics\.jsonl, line 2: not a record"):
        log.read(path)
    with pytest.raises(DdmError, match=r"metrics\.jsonl, line 2: not a record"):
        log.truncate(path, 3)


def test_truncate_drops_later_steps_and_keeps_every_other_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log.truncate(path, 3)
    assert not path.exists()
    lines = [
        b'{"step":1,  "loss":1.50}\n',
        b'{"about": "no step"}\n',
        b'{"step": 3}\n',
        b'{"step": 4}\n',
        b'{"step": 3.5}\n',
    ]
    path.write_bytes(b"".join(lines) + b'{"step": 2')
    log.truncate(path, 3)
    assert path.read_bytes() == b"".join(lines[:3])
    inode = path.stat().st_ino
    log.truncate(path, 3)
    assert path.stat().st_ino == inode
    log.truncate(path, 0)
    assert path.read_bytes() == lines[1]


def test_what_a_power_cut_garbled_after_the_checkpoint_does_not_stop_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    data = write(path)
    path.write_bytes(data + bytes(50) + b'\n{"step"\n{"step": 8}\n')
    log.truncate(path, 5)
    assert path.read_bytes() == data


def test_a_resumed_log_equals_an_unbroken_one(tmp_path):
    unbroken, resumed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    expected = write(unbroken)
    write(resumed, [*RECORDS[:4], {"step": 77, "loss": 0}])
    with resumed.open("ab") as file:
        file.write(b'{"ste')
    log.truncate(resumed, after_step=2)
    assert write(resumed, RECORDS[2:]) == expected


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EIO, "short", "crash", "crash after"])
def test_whatever_fails_no_record_is_lost_or_torn(tmp_path, monkeypatch, fault, forever, record_property):
    path = tmp_path / "metrics.jsonl"
    for torn in (b"", b'{"torn'):
        for at in range(1, 8):
            path.unlink(missing_ok=True)
            before = write(path)
            path.write_bytes(before + torn)
            raised = None
            with monkeypatch.context() as patch:
                patch.setattr(atomic, "disk", FaultyDisk(at, fault, forever=forever))
                try:
                    log.append(path, {"step": 6})
                except (atomic.SaveError, Crash) as error:
                    raised = error
            found = log.read(path)
            assert found == [*RECORDS, {"step": 6}] if raised is None else found[: len(RECORDS)] == RECORDS
            log.append(path, {"step": 7})
            assert log.read(path)[-1] == {"step": 7}
    record_property("faults", 14)


def test_a_half_written_record_is_taken_back(tmp_path, monkeypatch):
    """The disk is full after half a line: the file is as it was, so even a reader that knows nothing of this is safe."""

    class HalfFull(atomic.Operations):
        written = 0

        def write(self, descriptor, data):
            self.written += 1
            if self.written > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, data[:5])

    path = tmp_path / "metrics.jsonl"
    before = write(path)
    monkeypatch.setattr(atomic, "disk", HalfFull())
    with pytest.raises(atomic.SaveError, match=r"metrics\.jsonl was not saved: No space left on device \("):
        log.append(path, {"step": 6})
    assert path.read_bytes() == before


def test_errors_name_the_file(tmp_path):
    with pytest.raises(atomic.SaveError, match=r"missing/metrics\.jsonl was not saved: No such file"):
        log.append(tmp_path / "missing" / "metrics.jsonl", {})
    with pytest.raises(DdmError, match="cannot be read: Is a directory"):
        log.read(tmp_path)


def test_killed_while_appending(tmp_path, record_property):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import sys; from pathlib import Path; from ddm.runs import log; path = Path(sys.argv[1])\n"
        "assert 'torch' not in sys.modules\n"
        "for step in range(len(log.read(path)), 10**9):\n"
        "    log.append(path, {'step': step, 'text': 'x' * 5000}); step % 50 or print(step, flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(log.__file__).parents[2])}
    kills = times(8, stress=20, full=100)
    record_property("faults", kills)
    for kill in range(kills):
        with subprocess.Popen([sys.executable, "-c", code, path], env=environment, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        assert [record["step"] for record in log.read(path)] == list(range(len(log.read(path)))), kill
