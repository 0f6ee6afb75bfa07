"""The watch over other processes, with a store in memory and beats of a hundredth of a second."""

import threading
import time
from collections import Counter

import pytest

from ddm.training import watch


class Store:
    """As the launcher's, for all processes; may be cut off."""

    def __init__(self):
        self.numbers: Counter[str] = Counter()
        self.lock, self.open = threading.Lock(), threading.Event()
        self.open.set()

    def add(self, key: str, number: int) -> int:
        self.open.wait()
        with self.lock:
            self.numbers[key] += number
            return self.numbers[key]


class Watched(watch.Watch):
    """Says why it would end instead of ending; may be stopped."""

    def __init__(self, *arguments):
        self.ends: list[str] = []
        self.running = threading.Event()
        self.running.set()
        super().__init__(*arguments)

    def _end(self, why: str) -> None:
        if not self._left.is_set():
            self.ends.append(why)
            self._left.set()


class Stoppable:
    """A process's way to the store: stops with the process."""

    def __init__(self, store: Store, running: threading.Event):
        self.store, self.running = store, running

    def add(self, key: str, number: int) -> int:
        self.running.wait()
        return self.store.add(key, number)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "BEAT", 0.02)
    store = Store()
    ways = [Stoppable(store, threading.Event()) for _ in range(3)]
    for each in ways:
        each.running.set()
    watches = [Watched(way, rank, 3) for rank, way in enumerate(ways)]
    yield store, ways, watches
    store.open.set()  # who leaves tells the store
    for each in watches:
        each.leave()


def until(condition) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_those_who_live_go_on(three):
    _, _, watches = three
    time.sleep(1.0)
    assert [each.ends for each in watches] == [[], [], []]


def test_all_others_end_where_one_is_stopped(three):
    _, ways, watches = three
    time.sleep(0.2)
    ways[1].running.clear()
    assert until(lambda: watches[0].ends and watches[2].ends)
    assert watches[0].ends == ["process 1 of 3 gave no sign of life for 0 s"]
    assert watches[2].ends == ["process 1 of 3 is gone"]
    ways[1].running.set()


def test_all_end_where_the_store_does_not_answer(three):
    store, _, watches = three
    time.sleep(0.2)
    store.open.clear()
    assert until(lambda: all(each.ends for each in watches))
    assert all("the launcher did not answer" in each.ends[0] for each in watches)


def test_a_store_that_fails_is_one_that_does_not_answer(three):
    store, _, watches = three

    def fail(key: str, number: int) -> int:
        raise RuntimeError("Broken pipe")

    store.add = fail
    assert until(lambda: all(each.ends for each in watches))


def test_who_has_left_is_not_missed(three):
    """The first process goes on with what is its own while the others are done."""
    _, _, watches = three
    watches[1].leave()
    time.sleep(0.7)
    watches[2].leave()
    time.sleep(0.7)
    assert [each.ends for each in watches] == [[], [], []]


def test_one_process_watches_nobody():
    watch.begin()
    assert watch._current is None
    watch.leave()
