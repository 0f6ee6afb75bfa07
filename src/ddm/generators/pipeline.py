"""A pipeline of diffusers as a generator of pictures: one seed, one picture."""

import inspect
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ddm.errors import RequestError
from ddm.generators.base import Generator, finished
from ddm.generators.pipeline_files import check_call, diffusers
from ddm.images import MODES
from ddm.storage import digest_of

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

ADVICE = "the pipeline's weights or its scheduler overflow; try another number of --steps"
LOOK = 10
"""So many steps show how large pictures are; some schedulers cannot do with fewer."""


class PipelineGenerator(Generator):
    """Makes pictures with a pipeline that needs nothing but noise, e.g. ``DDPMPipeline`` or ``DDIMPipeline``.

    The noise of a picture, in every step, is from a ``torch.Generator`` on the CPU seeded with its seed, so that
    ``pipeline(generator=[torch.Generator().manual_seed(seed)])`` makes the same picture elsewhere.

    Args:
        pipeline: on its device; its progress bars are switched off.
        steps: of its scheduler; the pipeline's own default without it.

    Raises:
        RequestError: a pipeline that needs more than noise, makes no pictures, or a number of steps that its
            scheduler refuses.
    """

    def __init__(self, pipeline: "DiffusionPipeline", *, steps: int | None = None):
        check_call(type(pipeline))
        self.pipeline: Any = pipeline
        self.name = type(pipeline).__name__
        default = inspect.signature(type(pipeline).__call__).parameters["num_inference_steps"].default
        self.steps = int(default if steps is None else steps)
        self.classes, self.limit = 0, None
        self._check_parts()
        pipeline.set_progress_bar_config(disable=True)
        self.shape = self._look()

    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        """Finished pictures, uint8 ``[len(seeds), c, h, w]`` on the CPU.

        Raises:
            RequestError: labels, which these pipelines have not.
            DdmError: a picture is not finite.
        """
        if labels is not None:
            raise RequestError(f"label: a {self.name} has no classes to ask for; allowed: none")
        return finished(self._run(seeds, self.steps) * 2 - 1, seeds, advice=ADVICE)

    def labels_of(self, seeds: Sequence[int]) -> list[int] | None:
        """None: there are no classes."""
        return None

    def settings(self) -> dict[str, Any]:
        """Pipeline, scheduler with the digest of its settings, steps, and the library that carries them out."""
        scheduler: Any = self.pipeline.scheduler
        config = json.loads(scheduler.to_json_string())
        return {
            "pipeline": self.name,
            "scheduler": type(scheduler).__name__,
            "scheduler_digest": digest_of({key: value for key, value in config.items() if key[0] != "_"})[:16],
            "steps": self.steps,
            "diffusers": diffusers().__version__,
        }

    def _check_parts(self) -> None:
        for name, part in self.pipeline.components.items():
            # Without labels such a pipeline draws them from torch's global generator, whatever the seed.
            if getattr(getattr(part, "config", None), "num_class_embeds", None):
                raise RequestError(f"diffusers: the {name} of this {self.name} needs class_labels; allowed: none")
        if self.steps < 1:
            raise RequestError(f"steps: {self.steps} is not allowed; allowed: 1 or more")
        try:
            self.pipeline.scheduler.set_timesteps(self.steps)
        except (AttributeError, TypeError, ValueError) as error:
            raise RequestError(f"steps: {self.steps} is not allowed: {' '.join(str(error).split())}") from error

    def _look(self) -> tuple[int, int, int]:
        """The shape of a picture, from a picture: a pipeline says it nowhere."""
        try:
            _, *shape = self._run([0], min(LOOK, self.steps)).shape
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            line = " ".join(str(error).split())[:300]
            raise RequestError(f"diffusers: this {self.name} makes no picture: {line}") from error
        if len(shape) != 3 or shape[0] not in MODES:
            raise RequestError(f"diffusers: this {self.name} makes arrays of {shape}; allowed: 1, 3 or 4 channels")
        return shape[0], shape[1], shape[2]

    @torch.inference_mode()
    def _run(self, seeds: Sequence[int], steps: int) -> Tensor:
        """Float64 ``[n, c, h, w]`` in [0, 1]; in float64, so that a tie between two levels stays one."""
        made = self.pipeline(
            batch_size=len(seeds),
            generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
            num_inference_steps=steps,
            output_type="np",
        ).images
        return torch.from_numpy(np.asarray(made)).double().movedim(-1, 1)
