"""Several processes watch over each other: where one is gone, the others end and say so, instead of waiting for ever.

A collective operation waits half an hour for a process that was stopped or cut off. Here every process counts up a
number in the launcher's store once a second and looks at that of the next one. A number that stands still for
:data:`LIMIT` beats of our own clock, or a store that does not answer for as long, ends this process, and by the store
all others. Beats are counted, not seconds: all may be stopped together and go on later (a laptop that sleeps, a
scheduler that makes room).
"""

import os
import threading
from contextlib import suppress
from typing import Any

BEAT = 1.0
"""Seconds between two signs of life."""

LIMIT = 10
"""Beats without one after which a process counts as gone."""

_current: "Watch | None" = None


class Watch:
    """One process's view of the others; two threads, of which only one ever waits for the network.

    Args:
        store: with an atomic ``add(key, number)``, this watch's own connection.
        rank: of this process.
        count: of processes.
    """

    def __init__(self, store: Any, rank: int, count: int):
        self._store, self._rank, self._count = store, rank, count
        self._left = threading.Event()
        self._watched, self._seen = (rank + 1) % count, -1
        self._silent = {"store": 0, "process": 0}
        for work in (self._beat, self._judge):
            threading.Thread(target=work, daemon=True, name=f"ddm-watch-{work.__name__}").start()

    def leave(self) -> None:
        """This process has done its part: the others need not wait for it, nor it for them."""
        self._left.set()
        with suppress(Exception):
            self._store.add(f"left/{self._rank}", 1)

    def _beat(self) -> None:
        with suppress(Exception):  # a store that is gone: the judge notices
            while not self._left.wait(BEAT):
                self._store.add(f"beats/{self._rank}", 1)
                if self._watched != self._rank and self._store.add(f"left/{self._watched}", 0):
                    self._watched = (self._watched + 1) % self._count
                found = self._store.add(f"beats/{self._watched}", 0)
                if found != self._seen:
                    self._seen, self._silent["process"] = found, 0
                gone = self._store.add("gone", 0)
                self._silent["store"] = 0
                if gone:
                    self._end(f"process {gone - 1} of {self._count} is gone")

    def _judge(self) -> None:
        seconds = f"{LIMIT * BEAT:.0f} s"
        while not self._left.wait(BEAT):
            for what in self._silent:
                self._silent[what] += 1
            if self._silent["store"] > LIMIT:
                self._end(f"the launcher did not answer for {seconds}: it is gone, or this machine is cut off")
            if self._silent["process"] > LIMIT and self._silent["store"] <= 2:
                with suppress(Exception):
                    self._store.add("gone", self._watched + 1)
                self._end(f"process {self._watched} of {self._count} gave no sign of life for {seconds}")

    def _end(self, why: str) -> None:
        """Leave at once, as by SIGKILL: the main thread waits for what will never come, and what was saved is safe."""
        if self._left.is_set():
            return
        text = f"ddm: process {self._rank} ends: {why}; the same command goes on from the last checkpoint\n"
        os.write(2, text.encode())
        os._exit(1)


def begin() -> None:
    """Watch over the other processes of this launch from now on, if there are any; once a process."""
    global _current
    import torch.distributed as distributed

    alone = not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1
    if _current is not None or alone:
        return
    known: Any = distributed.distributed_c10d  # some of it is not in its type information
    store = known.PrefixStore("ddm-watch", known._get_default_store().clone())
    _current = Watch(store, distributed.get_rank(), distributed.get_world_size())


def leave() -> None:
    """Stop watching; call it when all work is done, before the connection to the others is closed."""
    global _current
    if _current is not None:
        _current.leave()
        _current = None
