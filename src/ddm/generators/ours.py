"""A trained diffusion model as a generator of pictures: one seed, one picture."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ddm.diffusion import Denoise, GaussianDiffusion, Noise, Step, clipped, labelled, make_grid, samplers, wide
from ddm.errors import RequestError
from ddm.generators.base import Generator, finished
from ddm.seeding import PictureNoise

ADVICE = "the sampling or the training went wrong; try --clip, less guidance, more steps or an earlier checkpoint"
"""Where numbers overflow."""


class DiffusionGenerator(Generator):
    """Makes pictures with a :class:`GaussianDiffusion`.

    Args:
        diffusion: the model, on its device.
        shape: of a picture: ``(channels, height, width)``.
        sampler: a choice such as ``"heun(churn=40)"``.
        steps: of the sampler.
        grid: where on the noise levels they lie.
        guidance: classifier-free guidance; 1 is none.
        clip: keep every guess of the clean picture within [-1, 1].

    Raises:
        RequestError: an unknown choice, a number of steps the grid cannot make, guidance without labels, or a size
            that the network cannot take.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        *,
        shape: tuple[int, int, int],
        sampler: str = "heun",
        steps: int = 18,
        grid: str = "karras",
        guidance: float = 1.0,
        clip: bool = False,
    ):
        self.diffusion, self.shape, self.guidance, self.clip = diffusion, shape, guidance, clip
        self._settings = {"sampler": sampler, "steps": steps, "grid": grid, "guidance": guidance, "clip": clip}
        self.limit: int | None = None
        self.sampler = samplers.bind(sampler, field="sample.sampler")
        self.grid = make_grid(grid, diffusion.sigmas, steps)
        self.classes = int(getattr(diffusion.model, "classes", 0))
        if guidance != 1 and not self.classes:
            raise RequestError(f"sample.guidance: {guidance} is not allowed for a model without labels; allowed: 1")
        check_size: Callable[[int, int], None] | None = getattr(diffusion.model, "check_size", None)
        if check_size:
            check_size(*shape[1:])

    def stream(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Iterator[Step]:
        """The sampler at work, one :class:`Step` after another; stop iterating to stop the work.

        Args:
            seeds: one a picture.
            labels: one class a picture; by default those of :meth:`labels_of`.
        """
        noise = self.noise(seeds)
        return self.solve(self.denoiser(seeds, labels), noise() * self.grid[0], self.grid, noise)

    def noise(self, seeds: Sequence[int]) -> PictureNoise:
        """The noise of the pictures of these seeds, in the type of the sampler's state: first that of the start."""
        device = next(self.diffusion.parameters()).device
        return PictureNoise(seeds, self.shape, device=device, dtype=wide(device))

    def denoiser(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Denoise:
        """What the sampler sees of the model: the labels of these pictures, guidance and clipping are in it."""
        label = None
        if self.classes:
            device = next(self.diffusion.parameters()).device
            label = torch.tensor(self.labels_of(seeds) if labels is None else labels, device=device)
        denoise = labelled(self.diffusion.denoise, label, null=self.classes, scale=self.guidance)
        return clipped(denoise) if self.clip else denoise

    def solve(self, denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Step]:
        """The chosen sampler from ``x`` along ``grid``, with dropout and gradients off while it works."""
        return self._without_training(self.sampler(denoise, x, grid, noise))

    def _without_training(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Advance ``steps`` with dropout and gradients off, and restore the network's mode between them."""
        network = self.diffusion.model
        while True:
            training = network.training
            network.eval()
            try:
                with torch.no_grad():
                    step = next(steps, None)
            finally:
                network.train(training)
            if step is None:
                return
            yield step

    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        """Finished pictures, uint8 ``[len(seeds), c, h, w]`` on the CPU.

        Raises:
            DdmError: a picture is not finite.
        """
        return finished(self.floats(seeds, labels), seeds, advice=ADVICE)

    def floats(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        """The pictures before they are rounded: ``[len(seeds), c, h, w]`` in about [-1, 1], on the model's device."""
        return deque(self.stream(seeds, labels), maxlen=1).pop().x

    def labels_of(self, seeds: Sequence[int]) -> list[int] | None:
        """Seed modulo classes, so that grids show all; None for a model without labels."""
        return [seed % self.classes for seed in seeds] if self.classes else None

    def settings(self) -> dict[str, Any]:
        """Sampler, steps, grid, guidance and clip, as they were given."""
        return dict(self._settings)
