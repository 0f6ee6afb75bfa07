"""The grids of pictures that a training shows on its way."""

import torch
from torch import Tensor

from ddm.commands.stopping import Stop
from ddm.data import ImageSet
from ddm.generators import DiffusionGenerator
from ddm.images import grid, to_uint8
from ddm.runs import build
from ddm.runs.config import Config
from ddm.training import Team, Trainer


def make_generator(config: Config, trainer: Trainer, data: ImageSet) -> DiffusionGenerator:
    """The first average, sampled from as the settings say."""
    shape = (data.channels, config.image_size, config.image_size)
    return DiffusionGenerator(trainer.averaged(), shape=shape, **build.sampling_options(config.sample))


def preview(generator: DiffusionGenerator, count: int, team: Team, stop: Stop) -> Tensor:
    """A sheet of the pictures of seeds 0 to ``count - 1``, uint8 ``[c, H, W]`` on every process; each makes its part.

    Where a signal came to any process it leaves between two steps, and the sheet is not finished.

    Raises:
        DdmError: the sampler failed, on any process.
    """
    made = team.gather(to_uint8(team.together(lambda: _part(generator, team.part(count), stop))), count)
    return grid(made, scale=max(1, 64 // generator.shape[-1]))


def _part(generator: DiffusionGenerator, seeds: list[int], stop: Stop) -> Tensor:
    x = torch.zeros(len(seeds), *generator.shape)
    for step in generator.stream(seeds):
        if stop.signal is not None:
            break
        x = step.x
    return x
