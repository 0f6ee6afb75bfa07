"""Old or new, never half: whichever operation fails, however it fails."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults import Crash, FaultyDisk

from counts import times
from ddm.errors import DdmError
from ddm.runs import atomic

FAULTS = [errno.EIO, errno.ENOSPC, errno.EDQUOT, "short", "crash", "crash after"]
OLD, NEW = {"a": b"old" * 100, "b": b""}, {"a": b"new" * 1000, "b": b"b", "c": b"c"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    """No waiting for the real disk, which hundreds of cases would do thousands of times."""
    monkeypatch.setattr(atomic, "disk", FaultyDisk())


def publish(place: Path, files: dict[str, bytes]) -> None:
    atomic.publish(place, ((name, [data[:1], memoryview(data)[1:]]) for name, data in files.items()))


def content(place: Path) -> dict[str, bytes] | None:
    return {path.name: path.read_bytes() for path in place.iterdir()} if place.exists() else None


def operations(monkeypatch: pytest.MonkeyPatch, folder: Path, act: Callable[[], object]) -> int:
    disk = FaultyDisk()
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "disk", disk)
        act()
    shutil.rmtree(folder)
    return disk.count


def every_failure(monkeypatch, folder: Path, prepare: Callable, act: Callable, fault, forever: bool = False):
    """Yield the disk and what ``act`` raised after each of its operations has failed once, in a fresh folder."""
    prepare()
    for at in range(1, operations(monkeypatch, folder, act) + 1):
        prepare()
        disk, raised = FaultyDisk(at, fault, forever=forever), None
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "disk", disk)
            try:
                act()
            except (DdmError, Crash) as error:
                raised = error
        yield disk, raised
        shutil.rmtree(folder)


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("before", [None, OLD], ids=["new", "replace"])
def test_a_failed_publish_leaves_the_old_folder_or_the_new_one(
    tmp_path, monkeypatch, quick, before, fault, forever, record_property
):
    folder = tmp_path / "deep" / "folder"
    place, other = folder / "000200", folder / "000100"

    def prepare():
        publish(other, OLD)
        if before is not None:
            publish(place, before)

    cases = 0
    for disk, raised in every_failure(monkeypatch, folder, prepare, lambda: publish(place, NEW), fault, forever):
        cases += 1
        where = f"operation {disk.at}, {disk.names[disk.at - 1]}"
        if isinstance(fault, int) and not forever:
            assert content(place) in (before, NEW), where  # at once: a living process needs no repair
        atomic.restore(folder)
        assert content(place) in ([NEW] if raised is None else [before, NEW]), where
        assert content(other) == OLD, where
        if isinstance(fault, int) and raised is None:
            assert disk.names[disk.at - 1] in ("unlink", "rmdir", "rename"), where  # only tidying up may fail unheard
        elif isinstance(fault, int):
            assert isinstance(raised, atomic.SaveError), where
            assert str(place) in str(raised), where
            assert "\n" not in str(raised), where
        if isinstance(fault, int) and not forever and content(place) != NEW:
            assert {path.name for path in folder.iterdir()} <= {"000100", "000200"}, where  # nothing is left behind
        publish(place, NEW)
        assert {path.name: content(path) for path in folder.iterdir()} == {"000100": OLD, "000200": NEW}, where
    assert cases >= 17
    record_property("faults", cases)


def test_a_folder_that_cannot_be_put_back_is_not_swept_away(tmp_path, monkeypatch):
    class NoRenames(atomic.Operations):
        def rename(self, source, destination):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    publish(tmp_path / "000100", OLD)
    os.rename(tmp_path / "000100", tmp_path / f".old-000100-{os.getpid()}")
    monkeypatch.setattr(atomic, "disk", NoRenames())
    atomic.sweep(tmp_path)
    monkeypatch.undo()
    atomic.sweep(tmp_path)
    assert content(tmp_path / "000100") == OLD


@pytest.mark.parametrize("zeros", [False, True], ids=["lost", "zeros"])
@pytest.mark.parametrize("undo", [False, True], ids=["renames kept", "renames undone"])
@pytest.mark.parametrize("before", [None, OLD], ids=["new", "replace"])
def test_a_power_cut_leaves_the_old_folder_or_the_new_one(
    tmp_path, monkeypatch, quick, before, undo, zeros, record_property
):
    place, cases = tmp_path / "folder" / "000200", 0

    def prepare():
        place.parent.mkdir(exist_ok=True)
        if before is not None:
            publish(place, before)

    for disk, _ in every_failure(monkeypatch, place.parent, prepare, lambda: publish(place, NEW), "crash after"):
        disk.cut_power(tmp_path, zeros=zeros, undo=undo)
        atomic.restore(place.parent)
        assert content(place) in (before, NEW), f"operation {disk.at}, {disk.names[disk.at - 1]}"
        publish(place, NEW)
        assert os.listdir(place.parent) == ["000200"]
        cases += 1
    record_property("faults", cases)


def test_what_is_published_survives_a_power_cut(tmp_path, monkeypatch):
    disk = FaultyDisk()
    monkeypatch.setattr(atomic, "disk", disk)
    publish(tmp_path / "deep" / "000200", NEW)
    disk.cut_power(tmp_path, zeros=True, undo=True)
    assert content(tmp_path / "deep" / "000200") == NEW


@pytest.mark.parametrize("forever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_replacement_leaves_the_old_file_or_the_new_one(
    tmp_path, monkeypatch, quick, fault, forever, record_property
):
    path, cases = tmp_path / "run" / "config.yaml", 0
    for disk, raised in every_failure(
        monkeypatch,
        path.parent,
        lambda: atomic.replace_file(path, b"old"),
        lambda: atomic.replace_file(path, b"new" * 1000),
        fault,
        forever,
    ):
        where = f"operation {disk.at}, {disk.names[disk.at - 1]}"
        assert path.read_bytes() in ([b"new" * 1000] if raised is None else [b"old", b"new" * 1000]), where
        assert not isinstance(fault, int) or raised is None or isinstance(raised, atomic.SaveError), where
        atomic.replace_file(path, b"newer")
        assert content(path.parent) == {"config.yaml": b"newer"}, where
        cases += 1
    record_property("faults", cases)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_half_deleted_has_lost_its_name(tmp_path, monkeypatch, quick, fault, record_property):
    place, cases = tmp_path / "folder" / "000100", 0
    for disk, raised in every_failure(
        monkeypatch, place.parent, lambda: publish(place, NEW), lambda: atomic.remove(place), fault
    ):
        assert content(place) in (None, NEW), disk.at
        assert raised is not None or not place.exists()
        assert not isinstance(raised, atomic.SaveError) or str(raised).startswith(f"{place} was not deleted: ")
        atomic.sweep(place.parent)
        assert not list(place.parent.glob(".tmp-*"))
        cases += 1
    record_property("faults", cases)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    publish(tmp_path / "old", OLD)
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda _: SimpleNamespace(total=10**9, free=2_000_000))
    disk = FaultyDisk()
    monkeypatch.setattr(atomic, "disk", disk)
    with pytest.raises(atomic.SaveError, match=r"needed, 2\.0 MB free\); what was saved before is intact") as caught:
        atomic.publish(tmp_path / "new", [("a", [b"x"])], needed=3_000_000)
    assert (caught.value.needed, caught.value.free, caught.value.path) == (3_000_000, 2_000_000, tmp_path / "new")
    assert set(disk.names) <= {"unlink"}
    assert os.listdir(tmp_path) == ["old"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_the_system_s_own_full_disk(tmp_path, monkeypatch):
    class Full(atomic.Operations):
        def create(self, path):
            super().close(super().create(path))
            return os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(atomic, "disk", Full())
    with pytest.raises(atomic.SaveError, match=r"No space left on device at .*/a \("):
        publish(tmp_path / "000100", NEW)
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_caller_passes_through_and_leaves_nothing(tmp_path):
    def contents():
        yield "a", [b"1"]
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        atomic.publish(tmp_path / "000100", contents())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_the_umask_asks_for(tmp_path, umask):
    before = os.umask(umask)
    try:
        publish(tmp_path / "000100", NEW)
        atomic.replace_file(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "000100" / "a").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "000100").stat().st_mode & 0o777 == 0o777 & ~umask


def test_only_what_dead_processes_left_is_swept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".tmp-000300-{dead.pid}", f".tmp-000300-{os.getpid()}", f".tmp-000300-{os.getppid()}", ".tmp-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / f".tmp-file-{dead.pid}").touch()
    (tmp_path / f".tmp-x-{10**30}").touch()
    atomic.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".tmp-000300-{os.getppid()}", ".tmp-mine"}
    atomic.sweep(tmp_path / "missing")


def test_a_link_is_removed_and_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f".tmp-000100-{os.getpid()}").symlink_to(tmp_path / "precious")
    atomic.sweep(tmp_path / "folder")
    assert os.listdir(tmp_path / "folder") == []
    assert os.listdir(tmp_path / "precious") == ["file"]


CHILD = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[3:]
    from ddm.runs import atomic
    from faults import FaultyDisk
    assert not {"torch", "numpy"} & set(sys.modules)
    folder, at = Path(sys.argv[1]), int(sys.argv[2])
    atomic.disk = FaultyDisk(at, "kill")
    print("ready", flush=True)
    for number in range(1, 10**6):
        data = bytes([number % 256]) * 30_000
        atomic.publish(folder / "state", ((name, [data]) for name in "abc"))
        atomic.replace_file(folder / "file", data)
""")


def start(folder: Path, at: int) -> subprocess.Popen:
    paths = [str(Path(atomic.__file__).parents[2]), str(Path(__file__).parent)]
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(at), *paths], stdout=subprocess.PIPE)


def assert_whole(folder: Path) -> None:
    atomic.sweep(folder)
    if state := content(folder / "state"):
        files = list(state.values())
        assert len(files) == 3
        assert files[0] == files[1] == files[2] == files[0][:1] * 30_000
    assert not (folder / "file").exists() or len(set((folder / "file").read_bytes())) == 1
    assert {path.name for path in folder.iterdir()} <= {"state", "file"}


def test_killed_at_every_operation(tmp_path, record_property):
    """SIGKILL, from the inside: the first save, a replacement, and the file after each."""
    for at in range(1, 55):
        with start(tmp_path, at) as child:
            assert child.wait() == -signal.SIGKILL
        assert_whole(tmp_path)
    record_property("faults", 54)


def test_killed_at_random_moments(tmp_path, record_property):
    """SIGKILL, from the outside, while it does nothing but save."""
    moments, kills = random.Random(0), times(30, stress=60, full=300)
    for _ in range(kills):
        with start(tmp_path, 0) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(moments.uniform(0, 0.05))
            child.kill()
        assert_whole(tmp_path)
    assert (tmp_path / "state").exists()
    record_property("faults", kills)
