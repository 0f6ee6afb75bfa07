"""A source of pictures, loaded: a run of ours, other people's pipeline, or pictures that are there already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ddm.errors import unknown
from ddm.generators import Generator
from ddm.runs.config import Config
from ddm.runs.searched import GridFamily


@dataclass(frozen=True)
class Model:
    """Something that makes pictures, ready to sample.

    Args:
        name: short, for tables: of the run, file, data set or pipeline.
        kind: ``run``, ``folder``, ``npz``, ``data`` or ``diffusers``.
        generator: makes the pictures.
        digest: SHA-256 of the content: the file of a run's weights, the pictures of a set, the files of a pipeline.
        classes: names of the labels; empty without.
        config: what a run was trained with.
        run: folder of the run, where the checkpoint is in one.
        path: of a run's checkpoint.
        step: of a run's checkpoint.
        weights: of a run: ``ema``, ``ema-1``, ... or ``raw``.
        grids: those of other numbers of steps, where the generator's is a searched one.
    """

    name: str
    kind: str
    generator: Generator
    digest: str
    classes: tuple[str, ...] = ()
    config: Config | None = None
    run: Path | None = None
    path: Path | None = None
    step: int | None = None
    weights: str | None = None
    grids: GridFamily | None = None

    def sample(self, count: int = 16, *, seed: int = 0, label: str | None = None) -> Tensor:
        """Pictures of the seeds ``seed, seed + 1, ...``: uint8 ``[count, c, h, w]``.

        Args:
            count: how many.
            seed: of the first.
            label: a class; by default all classes in turn.

        Raises:
            RequestError: a label that is not one of :attr:`classes`, or more pictures than there are.
        """
        return self.generator.generate(range(seed, seed + count), self.labels(label, count))

    def labels(self, label: str | None, count: int) -> Sequence[int] | None:
        """The class of each picture as numbers, or None to leave them to the generator."""
        if label is None:
            return None
        if label not in self.classes:
            raise unknown("label", label, self.classes or ("none: this model has no labels",))
        return [self.classes.index(label)] * count
