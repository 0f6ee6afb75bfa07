"""Files and folders that are there whole or not at all: after a kill, a full disk or a power cut.

Everything is written beside its place as ``.tmp-NAME-PID``, flushed to the disk and renamed into place. A folder that
is replaced waits as ``.old-NAME-PID`` between the two renames this takes, and :func:`restore` puts it back when a crash
fell between them. One process writes into a folder at a time; any number may read.

Pure Python, without torch: tests kill a process that runs this at every point, and each would pay for the import.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddm.errors import DdmError

Chunks = Iterable[bytes | memoryview]
"""The bytes of a file in order; a memoryview is one of bytes."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LEFTOVER = re.compile(r"\.(tmp|old)-(.+)-(\d+)")


class SaveError(DdmError):
    """Something could not be written; what had been saved before is intact.

    Attributes:
        path: what was to be saved.
        needed: bytes it takes.
        free: bytes free on its disk, where the disk is full.
    """

    def __init__(self, path: Path, error: OSError, needed: int = 0, *, verb: str = "saved"):
        self.path, self.needed, self.free = path, needed, None
        problem = error.strerror or str(error) or type(error).__name__
        if error.filename and Path(error.filename) != path:
            problem += f" at {error.filename}"
        if error.errno in _FULL:
            self.free = free_bytes(path)
            problem += f" ({needed / 1e6:.1f} MB needed, {(self.free or 0) / 1e6:.1f} MB free)"
        super().__init__(f"{path} was not {verb}: {problem}; what was saved before is intact")


class Operations:
    """Every call that changes the disk, one method each: the seam at which tests make any of them fail."""

    def create(self, path: Path) -> int:
        """Open a new file for writing, with the mode the user's umask asks for."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)

    def append(self, path: Path) -> int:
        """Open a file whose every write goes to its end."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write what fits and return how many bytes that was."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)

    def sync(self, descriptor: int) -> None:
        """Make a file's bytes survive a power cut."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)

    def rename(self, source: Path, destination: Path) -> None:
        """Give a file or folder another name; a file may replace a file."""
        os.replace(source, destination)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def sync_folder(self, path: Path) -> None:
        """Make a folder's names survive a power cut, where the system can."""
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no such thing
                raise
        finally:
            os.close(descriptor)


disk = Operations()


@contextmanager
def saving(path: Path, needed: int = 0, *, verb: str = "saved") -> Iterator[None]:
    """Any failure of the system inside the block becomes a :class:`SaveError` about ``path``.

    Args:
        path: what is being saved.
        needed: how many bytes it takes, for the message.
        verb: what has failed if it is not saving.
    """
    try:
        yield
    except OSError as error:
        raise SaveError(path, error, needed, verb=verb) from error


def publish(place: Path, contents: Iterable[tuple[str, Chunks]], *, needed: int = 0) -> None:
    """Make the folder ``place`` of the given files, replacing the folder that has the name, if any.

    Args:
        place: the folder to make; its parents are made where needed.
        contents: name and bytes of each file in the order in which to write them; may be produced as it is written.
        needed: bytes it will take: where they are not free nothing is begun.

    Raises:
        SaveError: the system refused; the old folder, if any, is there as before.
    """
    with _beside(place, needed) as temporary:
        sweep(place.parent)
        free = free_bytes(place.parent)
        if free is not None and free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        disk.mkdir(temporary)
        for name, chunks in contents:
            _write(temporary / name, chunks)
        disk.sync_folder(temporary)
        if place.exists():
            disk.rename(place, place.with_name(f".old-{place.name}-{os.getpid()}"))
        try:
            disk.rename(temporary, place)
        except BaseException:
            restore(place.parent)
            raise
    with suppress(OSError):  # saved already: what cannot be deleted now is swept later
        sweep(place.parent)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, replacing the one that has the name; its folder is made where needed.

    Raises:
        SaveError: the system refused; the old file, if any, is there as before.
    """
    with _beside(path, len(data)) as temporary:
        _discard(temporary)
        _write(temporary, [data])
        disk.rename(temporary, path)


def rename(source: Path, destination: Path) -> None:
    """Give a folder another name in its folder, durably.

    Raises:
        SaveError: the system refused.
    """
    with saving(source, verb="renamed"):
        disk.rename(source, destination)
        disk.sync_folder(destination.parent)


def remove(path: Path) -> None:
    """Delete a folder; it loses its name first, so that half of it is never taken for the whole.

    Raises:
        SaveError: the system refused.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    with saving(path, verb="deleted"):
        _discard(temporary)
        disk.rename(path, temporary)
        disk.sync_folder(path.parent)
        _discard(temporary)


def restore(folder: Path) -> None:
    """Put back the folders whose replacement a crash cut in two; safe beside a living writer."""
    for path, place in _leftovers(folder, "old").items():
        if not place.exists():
            with suppress(OSError):
                disk.rename(path, place)


def sweep(folder: Path) -> None:
    """Clear away what dead processes left half written in ``folder``; only for the process that writes there."""
    restore(folder)
    replaced = [path for path, place in _leftovers(folder, "old").items() if place.exists()]
    for path in [*_leftovers(folder, "tmp"), *replaced]:
        with suppress(OSError):
            _discard(path)


def free_bytes(path: Path) -> int | None:
    """Bytes free for us on the disk of ``path`` (or of its nearest existing parent); None where it does not say."""
    try:
        usage = shutil.disk_usage(next(each for each in (path, *path.absolute().parents) if each.exists()))
    except OSError:
        return None
    return usage.free if usage.total else None


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably.

    Raises:
        SaveError: the system refused.
    """
    with saving(path):
        if not path.is_dir():
            make_folder(path.parent)
            with suppress(FileExistsError):
                disk.mkdir(path)
            disk.sync_folder(path.parent)


@contextmanager
def _beside(place: Path, needed: int) -> Iterator[Path]:
    """A temporary name for what shall be ``place``: the block renames it, a failure removes it."""
    temporary = place.with_name(f".tmp-{place.name}-{os.getpid()}")
    make_folder(place.parent)
    with saving(place, needed):
        try:
            yield temporary
        except BaseException:
            with suppress(OSError):
                _discard(temporary)
            raise
        disk.sync_folder(place.parent)


def _write(path: Path, chunks: Chunks) -> None:
    """A new file, on the disk when this returns. After a failed flush the same file must never be tried again: Linux
    forgets the pages it could not write, and the second flush lies. So the caller removes it."""
    try:
        descriptor = disk.create(path)
        try:
            for chunk in chunks:
                write_all(descriptor, chunk)
            disk.sync(descriptor)
        except BaseException:
            with suppress(OSError):
                disk.close(descriptor)
            raise
        disk.close(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write to the last byte: the system may take less than it is given (full disk, signal, 2 GiB at most).

    Raises:
        OSError: it took nothing.
    """
    rest = memoryview(data)
    while rest:
        taken = disk.write(descriptor, rest)
        if not taken:
            raise OSError(errno.EIO, "the system wrote nothing")
        rest = rest[taken:]


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            _discard(child)
        disk.rmdir(path)
    else:
        with suppress(FileNotFoundError):
            disk.unlink(path)


def _leftovers(folder: Path, kind: str) -> dict[Path, Path]:
    """What this process, or one that is no more, left in ``folder``, and what it was to become or had been."""
    found = [(path, _LEFTOVER.fullmatch(path.name)) for path in (folder.iterdir() if folder.is_dir() else ())]
    return {path: path.with_name(m[2]) for path, m in found if m and m[1] == kind and not _alive(int(m[3]))}


def _alive(process: int) -> bool:
    """Whether another process has this number. Ours does not count: in a container every run has the same one."""
    if process == os.getpid():
        return False
    if os.name == "nt":
        return True  # where asking, os.kill(process, 0), would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
