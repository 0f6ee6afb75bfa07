"""Which pictures a request for samples wants, and making them: batch by batch, or step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddm.commands.console import Bar
from ddm.commands.editing import Between, Edit
from ddm.diffusion import Step
from ddm.generators import DiffusionGenerator
from ddm.generators.base import finished
from ddm.generators.ours import ADVICE
from ddm.images import to_uint8
from ddm.runs.model import Model


@dataclass(frozen=True)
class Work:
    """What is to be made; a part of it is a Work, too.

    Args:
        model: makes it.
        numbers: of the pictures, which name their files: their seeds, but between two seeds 0, 1, ...
        labels: one a picture, where ``classes`` of the generator is none; None without labels.
        label: the class of all of them by name, where one was asked for.
        batch: pictures at a time.
        edit: what is done to pictures or between seeds; None where they are just made.
    """

    model: Model
    numbers: range
    labels: list[int] | None
    label: str | None
    batch: int
    edit: Edit | None = None

    @property
    def seeds(self) -> Sequence[int]:
        """One a picture; between two seeds the first of them."""
        return [self.edit.first] * len(self.numbers) if isinstance(self.edit, Between) else self.numbers

    @property
    def groups(self) -> int:
        """Pictures side by side for one result."""
        return self.edit.groups if self.edit else 1

    @property
    def steps(self) -> int:
        """How often the bar moves for one picture."""
        generator = self.model.generator
        if not isinstance(generator, DiffusionGenerator):
            return 1
        return self.edit.steps(generator) if self.edit else len(generator.grid) - 1

    def part(self, start: int, stop: int) -> "Work":
        """The pictures from place ``start`` to before ``stop``."""
        return replace(
            self,
            numbers=self.numbers[start:stop],
            labels=self.labels and self.labels[start:stop],
            edit=self.edit and self.edit.part(slice(start, stop)),
        )

    def stream(self) -> Iterator[Step]:
        """The sampler at work on all pictures at once."""
        generator = self.model.generator
        assert isinstance(generator, DiffusionGenerator), "nothing else is seen at work"
        if self.edit is None:
            return generator.stream(self.seeds, self.labels)
        return self.edit.stream(generator, self.seeds, self.labels)

    def make(self, bar: Bar) -> Iterator["Made"]:
        """The pictures, batch by batch."""
        for start in range(0, len(self.numbers), self.batch):
            part = self.part(start, min(start + self.batch, len(self.numbers)))
            yield part.make_at_once(bar, start * self.steps)

    def make_at_once(self, bar: Bar, done: int = 0) -> "Made":
        """The pictures in one batch; the bar moves on from ``done``."""
        generator, count = self.model.generator, len(self.numbers)
        if not isinstance(generator, DiffusionGenerator):
            pictures = generator.generate(self.seeds)
            bar.update(done + count)
            return Made(self, pictures, [])
        x, turn = torch.empty(0), None
        for number, step in enumerate(self.stream(), 1):
            bar.update(done + number * count)
            x = step.x
            if number == len(generator.grid) - 2:
                turn = x
        pictures = finished(x, self.seeds, advice=ADVICE)
        return Made(self, pictures, self.edit.shown(generator, self.seeds, turn) if self.edit else [])

    def frames(self, bar: Bar) -> Iterator[Tensor]:
        """All pictures at once as they come about, uint8 ``[n, c, h, w]``: the start, then every step's best guess."""
        generator = self.model.generator
        assert isinstance(generator, DiffusionGenerator), "nothing else is seen at work"
        # Half of the noise: a pixel of it fits into the range.
        start = self.edit.start(generator, self.seeds) if self.edit else generator.noise(self.seeds)() / 2
        yield to_uint8(start).cpu()
        for number, step in enumerate(self.stream(), 1):
            bar.update(number * len(self.numbers))
            yield finished(step.x0, self.seeds, advice=ADVICE)


@dataclass(frozen=True)
class Made:
    """A batch of pictures.

    Args:
        work: what they are.
        pictures: uint8 ``[n, c, h, w]``.
        shown: what is shown before each of them on a sheet, each like ``pictures``.
    """

    work: Work
    pictures: Tensor
    shown: list[Tensor]
