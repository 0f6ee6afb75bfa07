"""How good weights are: the same pictures' seeds, the same reference, one network kept for all."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddm.data import ImageSet
from ddm.errors import DdmError
from ddm.generators import DiffusionGenerator, Generator
from ddm.runs import build
from ddm.runs.config import Config, Evaluation
from ddm.runs.cost import evaluations_of
from ddm.runs.evaluation import Evaluated, Evaluator
from ddm.runs.progress import finish
from ddm.training import Team
from ddm.training.processes import pick_precision

BATCH = {"cpu": 100, "cuda": 1000}
"""Pictures at a time."""


class Judge:
    """Measures weights of networks.

    Args:
        data: the real pictures.
        device: that everything is done on.
        features: the space of the distances.
        metrics: what is measured.
        images: generated pictures; a multiple of the batch, or the last batch is compiled for.
    """

    def __init__(
        self, data: ImageSet, *, device: str, features: str, images: int, metrics: tuple[str, ...] = ("fid", "kid")
    ):
        self.data, self.device = data, torch.device(device)
        self.compile = device == "cuda"
        settings = Evaluation(metrics=metrics, features=features, images=images)
        self.evaluator = Evaluator(settings, data, team=Team(device), batch=min(images, BATCH[device]))
        self._made: dict[str, Any] = {}

    def generator(self, config: Config, weights: Mapping[str, Tensor], **sampling: Any) -> DiffusionGenerator:
        """The weights, ready to sample as the config says, or otherwise."""
        key = f"{config.network} {config.conditional} {config.objective} {config.schedule}"
        if key not in self._made:
            classes = len(self.data.classes) if config.conditional else 0
            network = build.make_network(config, channels=self.data.channels, classes=classes)
            network = network.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
            if self.compile:
                network.compile()
            self._made[key] = build.make_diffusion(config, network)
        diffusion = self._made[key]
        diffusion.model.load_state_dict(dict(weights))
        shape = (self.data.channels, config.image_size, config.image_size)
        options = build.sampling_options(config.sample) | {"precision": pick_precision("auto", self.device)}
        return DiffusionGenerator(diffusion, shape=shape, **{**options, **sampling})

    def evaluate(self, generator: Generator) -> Evaluated:
        """All that was measured; raises :class:`DdmError` where pictures are not finite."""
        found = finish(self.evaluator.evaluate(generator, identity=None))
        assert found is not None
        return found

    def measure(self, generator: DiffusionGenerator) -> dict[str, Any]:
        """Numbers with their intervals, and what they took; infinite where the pictures are not finite."""
        started = time.perf_counter()
        try:
            found = self.evaluate(generator)
        except DdmError as error:  # a model that was spoiled is a result, too
            return {"fid": [math.inf] * 3, "problem": str(error)[:200]}
        row = {"seconds_judging": round(time.perf_counter() - started, 1), "evaluations": evaluations_of(generator)}
        return row | numbers(found)


def numbers(found: Evaluated) -> dict[str, Any]:
    """Each with its interval, and of how many pictures."""
    row: dict[str, Any] = {"images_judged": found.protocol.n_fake}
    for name, each in found.measurements.items():
        row[name] = [round(value, 6) for value in (each.value, each.low, each.high)]
    return row
