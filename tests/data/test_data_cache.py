import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ddm.data.cache import ABANDONED_AFTER, Stored, load, stored
from ddm.data.source import BadPicture, Reading
from ddm.errors import DdmError, RequestError


def reading(count: int = 5, *, labels: bool = True) -> Reading:
    pictures = [np.full((1, 2, 2), number, np.uint8) for number in range(count)]
    return Reading(pictures, list(range(count)) if labels else None, ("a", "b") if labels else ())


def never(scratch: Path) -> Reading:
    raise AssertionError("the cache should have had it")


def kept(place: Path) -> Stored:
    return stored(place, lambda scratch: reading())


def test_second_time_nothing_is_read(tmp_path: Path):
    first = kept(tmp_path / "key")
    second = stored(tmp_path / "key", never)
    for found in (first, second):
        assert found.pixels.dtype == np.uint8
        assert found.pixels.tolist() == [[[[number] * 2] * 2] for number in range(5)]
        assert isinstance(found.pixels, np.memmap)
        assert found.labels is not None
        assert found.labels.dtype == np.int64
        assert found.labels.tolist() == [0, 1, 2, 3, 4]
        assert found.classes == ("a", "b")
    assert first.digest == second.digest


def test_digest_tells_content_apart(tmp_path: Path):
    sets = [reading(), reading(6), reading(labels=False), Reading(reading().pictures, [0, 1, 0, 1, 0], ("a", "b"))]
    sets.append(Reading(reading().pictures, [0, 1, 2, 3, 4], ("a", "c")))
    digests = {stored(tmp_path / str(number), lambda _, each=each: each).digest for number, each in enumerate(sets)}
    assert len(digests) == len(sets)


def test_moments(tmp_path: Path):
    found = kept(tmp_path / "key")
    scaled = np.arange(5) / 127.5 - 1
    assert (found.mean, found.std) == pytest.approx((scaled.mean(), scaled.std()))


def test_writing_to_the_pictures_never_reaches_the_file(tmp_path: Path):
    kept(tmp_path / "key").pixels[:] = 99
    assert stored(tmp_path / "key", never).pixels.max() == 4


def test_bad_pictures_are_kept_with_their_reasons(tmp_path: Path):
    mixed = [BadPicture("a\udcff.png", "torn"), np.ones((1, 2, 2), np.uint8), BadPicture("row 2", "empty")]
    for _ in range(2):
        found = stored(tmp_path / "key", lambda scratch: Reading(mixed, [7, 8, 9], ("x",)))
        assert found.bad == (mixed[0], mixed[2])
        assert found.labels is not None
        assert found.labels.tolist() == [8]


def damages() -> dict[str, object]:
    def cut(name: str):
        return lambda place: os.truncate(place / name, (place / name).stat().st_size - 3)

    def flip(name: str):
        def apply(place: Path):
            data = bytearray((place / name).read_bytes())
            data[-1] ^= 1
            (place / name).write_bytes(data)

        return apply

    files = ("pixels.npy", "labels.npy", "info.json")
    found = {f"cut {name}": cut(name) for name in files} | {
        f"without {name}": lambda p, n=name: (p / n).unlink() for name in files
    }
    found |= {f"flipped {name}": flip(name) for name in files[:2]}
    return found | {"other info": lambda place: (place / "info.json").write_text(json.dumps([1, 2]))}


@pytest.mark.parametrize("name", damages())
def test_damaged_cache_is_made_again(tmp_path: Path, name: str):
    digest = kept(tmp_path / "key").digest
    damages()[name](tmp_path / "key")
    assert load(tmp_path / "key") is None
    assert kept(tmp_path / "key").digest == digest
    assert load(tmp_path / "key") is not None
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_nothing_stays_of_a_reading_that_fails(tmp_path: Path):
    def torn(scratch: Path) -> Reading:
        (scratch / "big").write_text("x")
        return Reading(failing())

    def failing():
        yield np.zeros((1, 2, 2), np.uint8)
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError, match="went away"):
        stored(tmp_path / "key", torn)
    assert list(tmp_path.iterdir()) == []


def test_no_pictures_at_all(tmp_path: Path):
    with pytest.raises(RequestError, match="it has no pictures"):
        stored(tmp_path / "key", lambda scratch: Reading([]))
    with pytest.raises(RequestError, match=r"none of its 1 pictures can be read \(x: torn\)"):
        stored(tmp_path / "key", lambda scratch: Reading([BadPicture("x", "torn")]))


def test_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DdmError, match=r"cannot write the cache .*file: Not a directory; HF_HOME says where it is"):
        kept(tmp_path / "file" / "key")


def test_remains_of_killed_processes_are_removed_and_others_are_not(tmp_path: Path):
    for name, age in (("old", ABANDONED_AFTER + 60), ("young", 60)):
        folder = tmp_path / f".building-{name}"
        folder.mkdir()
        (folder / "pixels.npy").write_text("half")
        for path in (folder / "pixels.npy", folder):
            os.utime(path, (time.time() - age,) * 2)
    kept(tmp_path / "key")
    assert sorted(each.name for each in tmp_path.iterdir()) == [".building-young", "key"]


def test_whoever_is_slower_uses_what_the_faster_one_published(tmp_path: Path):
    def slow(scratch: Path) -> Reading:
        kept(tmp_path / "key")
        (tmp_path / "key" / "mark").write_text("the first")
        return reading()

    assert stored(tmp_path / "key", slow).pixels.shape[0] == 5
    assert (tmp_path / "key" / "mark").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


AT_ONCE = """
import sys, time
from pathlib import Path
from ddm.data import get_data
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
data = get_data("shapes(count=300)", cache=Path(sys.argv[1], "cache"))
sys.stdout.write(f"{data.digest} {int(data.pixels.sum())}")
"""


def test_two_processes_at_once(tmp_path: Path):
    command = [sys.executable, "-W", "error", "-c", AT_ONCE, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] != b""
    assert len(list((tmp_path / "cache").iterdir())) == 1
