"""A disk that fails where it is told to: the test counts the operations, then makes each of them fail in turn."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

from ddm.runs.atomic import Operations


class Crash(BaseException):
    """The process is dead: nothing it does from here on has any effect."""


class FaultyDisk(Operations):
    """Does what is asked until operation number ``at``, and fails there. Waits for no real disk, but keeps account.

    Args:
        at: the first operation that fails, from 1; 0 for none.
        fault: an errno; ``"short"``: a write takes only half; ``"crash"`` and ``"crash after"``: the process dies
            before or after the operation; ``"kill"``: really.
        forever: every later operation fails too.
    """

    def __init__(self, at: int = 0, fault: int | str = errno.EIO, *, forever: bool = False):
        self.at, self.fault, self.forever = at, fault, forever
        self.count, self.dead = 0, False
        self.names: list[str] = []
        self.unsynced: set[int] = set()
        self.renamed: list[tuple[Path, Path]] = []

    def _do(self, name: str, *arguments):
        self.count += 1
        self.names.append(name)
        if self.dead:
            raise Crash
        real: Callable = (lambda _: None) if name in ("sync", "sync_folder") else getattr(super(), name)
        if not self.at or self.count < self.at or (self.count > self.at and not self.forever):
            return real(*arguments)
        if self.fault == "kill":
            os.kill(os.getpid(), 9)
        if self.fault == "short":
            return (
                real(arguments[0], arguments[1][: (len(arguments[1]) + 1) // 2])
                if name == "write"
                else real(*arguments)
            )
        if self.fault == "crash after" or name == "close":
            real(*arguments)
        if isinstance(self.fault, int):
            raise OSError(self.fault, os.strerror(self.fault))
        self.dead = True
        raise Crash

    def create(self, path):
        descriptor = self._do("create", path)
        self.unsynced.add(os.fstat(descriptor).st_ino)
        return descriptor

    def append(self, path):
        return self._do("append", path)

    def write(self, descriptor, data):
        self.unsynced.add(os.fstat(descriptor).st_ino)
        return self._do("write", descriptor, data)

    def truncate(self, descriptor, length):
        return self._do("truncate", descriptor, length)

    def sync(self, descriptor):
        self._do("sync", descriptor)
        self.unsynced.discard(os.fstat(descriptor).st_ino)

    def close(self, descriptor):
        return self._do("close", descriptor)

    def mkdir(self, path):
        return self._do("mkdir", path)

    def rename(self, source, destination):
        self._do("rename", source, destination)
        self.renamed.append((source, destination))

    def unlink(self, path):
        return self._do("unlink", path)

    def rmdir(self, path):
        return self._do("rmdir", path)

    def sync_folder(self, path):
        self._do("sync_folder", path)
        self.renamed = [pair for pair in self.renamed if pair[0].parent != path]

    def cut_power(self, folder: Path, *, zeros: bool, undo: bool, chance: random.Random | None = None) -> None:
        """Do to what was never flushed the worst that a file system may.

        Args:
            folder: everything below it is on this disk.
            zeros: data that was not flushed reads as zeros; else it is gone.
            undo: renames whose folder was not flushed have not happened.
            chance: not the worst, but some of it: every other file of those, and the last few of those renames.
        """
        for path in [each for each in folder.rglob("*") if each.is_file()]:
            if path.stat().st_ino in self.unsynced and (chance is None or chance.random() < 0.5):
                path.write_bytes(bytes(path.stat().st_size) if zeros else b"")
        first = chance.randint(0, len(self.renamed)) if chance else 0
        for source, destination in reversed(self.renamed[first:] if undo else []):
            if destination.exists() and not source.exists():
                os.rename(destination, source)
