"""One request for pictures on several processes: each makes its part, and all get all."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ddm.commands.console import Bar
from ddm.commands.work import Made, Work
from ddm.training import Team


class Shared:
    """Work that the processes of a team share; every method is called by all of them.

    A picture depends on its seed alone, but another batch size may round a level differently. The batches are those
    that :attr:`work` says, on however many processes: one that makes them later makes the same.

    Args:
        work: all of it.
        team: who shares it.
    """

    def __init__(self, work: Work, team: Team):
        self.team, count = team, len(work.numbers)
        each = -(-count // team.count)
        batches = -(-each // work.batch)
        self.work = work if team.count == 1 else replace(work, batch=-(-each // batches))
        self._each = batches * self.work.batch
        first = min(count, team.rank * self._each)
        self.own = self.work.part(first, min(count, first + self._each))
        """This process's part, which may be empty."""

    def make(self, bar: Bar) -> Made:
        """All pictures.

        Raises:
            DdmError: a picture is not finite, on any process.
        """
        batches = self.team.together(lambda: list(self.own.make(bar)))
        groups = [torch.stack([*each.shown, each.pictures], dim=1) for each in batches]
        whole = self._gather(torch.cat([self._nothing(), *groups]))
        *shown, pictures = whole.unbind(1)
        return Made(self.work, pictures, shown)

    def frames(self, bar: Bar) -> Iterator[Tensor]:
        """All pictures as they come about, uint8 ``[n, c, h, w]``; raises as :meth:`make` does.

        Some samplers take more steps for one picture than for another: whoever is done waits with its last frame.
        """
        frames = self.own.frames(bar) if self.own.numbers else iter(())
        last = self._nothing()[:, 0]
        while True:
            following = self.team.together(lambda: next(frames, None))
            if not any(self.team.collect([following is not None])):
                return
            last = last if following is None else following
            yield self._gather(last)

    def _gather(self, part: Tensor) -> Tensor:
        return self.team.gather(part, len(self.work.numbers), each=self._each)

    def _nothing(self) -> Tensor:
        return torch.zeros(0, self.work.groups, *self.work.model.generator.shape, dtype=torch.uint8)
