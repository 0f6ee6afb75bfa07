"""Threads that stand for the processes of a launch: the same Team, its collective operations over a barrier."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from ddm.training import Team, processes

SECONDS = 20.0
"""After which one that waits alone has failed."""


class Threads:
    """Replaces the collective operations of :mod:`ddm.training.processes`.

    Args:
        count: of processes.
        monkeypatch: undoes it.
    """

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch):
        self.count, self._rank = count, threading.local()
        self._barrier, self._given = threading.Barrier(count), [None] * count
        monkeypatch.setattr(processes, "gather", lambda part: torch.cat(self._exchange(part)))
        monkeypatch.setattr(processes, "gather_object", lambda some: [e for each in self._exchange(some) for e in each])

    def run(self, work: Callable[[Team], Any]) -> list[Any]:
        """What the work gave on every one of them; what it raised is raised."""
        with ThreadPoolExecutor(self.count) as pool:
            return [each.result() for each in [pool.submit(self._on, rank, work) for rank in range(self.count)]]

    def _on(self, rank: int, work: Callable[[Team], Any]) -> Any:
        self._rank.value = rank
        team = object.__new__(Team)
        team.rank, team.count, team.device = rank, self.count, torch.device("cpu")
        return work(team)

    def _exchange(self, given: Any) -> list[Any]:
        self._given[self._rank.value] = given
        self._barrier.wait(SECONDS)
        found = list(self._given)
        self._barrier.wait(SECONDS)
        if isinstance(given, torch.Tensor):
            assert len({each.shape for each in found}) == 1, "as the real one demands"
        return found
