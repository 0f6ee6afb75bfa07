"""A trained diffusion model as a generator of pictures: one seed, one picture."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddm.diffusion import (
    Denoise,
    GaussianDiffusion,
    Noise,
    Step,
    autoguided,
    check_interval,
    clipped,
    clippings,
    labelled,
    make_grid,
    samplers,
    wide,
)
from ddm.errors import RequestError
from ddm.generators.base import Generator, finished
from ddm.seeding import PictureNoise

ADVICE = "the sampling or the training went wrong; try --clip static, less guidance, more steps, an earlier checkpoint"
"""Where numbers overflow."""


class DiffusionGenerator(Generator):
    """Makes pictures with a :class:`GaussianDiffusion`.

    Args:
        diffusion: the model, on its device.
        shape: of a picture: ``(channels, height, width)``.
        sampler: a choice such as ``"heun(churn=40)"``.
        steps: of the sampler.
        grid: where on the noise levels they lie.
        guidance: how far every guess goes, from that of the guide through the model's own; 1 is none, at half the
            evaluations. Without a guide it is classifier-free: from the guess without a label.
        guidance_low: it is guided where ``guidance_low < sigma <= guidance_high``, nowhere else.
        guidance_high: None for no bound.
        guide: a worse version of the model, for autoguidance: of the same pictures and classes, on the same device.
        guide_name: what tells the guide from others in records and keys, e.g. its digest; needed with one.
        clip: keeps every guess of the clean picture in range: ``"none"``, ``"static"``, ``"dynamic(quantile=0.995)"``.
        precision: of the networks' arithmetic: ``fp32``, or ``bf16``, which a GPU does several times as fast and which
            moves pictures by a few levels; a picture may then depend on the batch it is made in.

    Raises:
        RequestError: an unknown choice, a number of steps the grid cannot make, guidance with neither labels nor a
            guide, an empty interval, a guide of something else, or a size that a network cannot take.
    """

    def __init__(
        self,
        diffusion: GaussianDiffusion,
        *,
        shape: tuple[int, int, int],
        sampler: str = "ipndm(order=4)",
        steps: int = 10,
        grid: str = "karras",
        guidance: float = 1.0,
        guidance_low: float = 0.0,
        guidance_high: float | None = None,
        guide: GaussianDiffusion | None = None,
        guide_name: str | None = None,
        clip: str = "none",
        precision: Literal["fp32", "bf16"] = "fp32",
    ):
        self.diffusion, self.shape, self.guidance, self.guide = diffusion, shape, guidance, guide
        self.interval = {"low": guidance_low, "high": math.inf if guidance_high is None else guidance_high}
        self._settings = {
            "sampler": sampler,
            "steps": steps,
            "grid": grid,
            "guidance": guidance,
            "guidance_low": guidance_low,
            "guidance_high": None if guidance_high == math.inf else guidance_high,  # JSON has no infinity
            "guide": None if guide is None else guide_name,
            "clip": clip,
            "precision": precision,
        }
        self.limit: int | None = None
        self.sampler = samplers.bind(sampler, field="sample.sampler")
        self.grid = make_grid(grid, diffusion.sigmas, steps)
        self.clip = clippings.bind(clip, field="sample.clip")
        self.classes = int(getattr(diffusion.model, "classes", 0))
        check_interval(guidance_low, guidance_high)
        self._check_guidance()
        for network in self.networks:
            check_size: Callable[[int, int], None] | None = getattr(network, "check_size", None)
            if check_size:
                check_size(*shape[1:])

    def _check_guidance(self) -> None:
        if self.guide is None:
            if self.guidance != 1 and not self.classes:
                told = f"{self.guidance} is not allowed for a model without labels; allowed: 1, or with a guide"
                raise RequestError(f"sample.guidance: {told}")
            return
        if not self._settings["guide"]:
            raise RequestError("guide_name: a guide needs one, which tells it from others, e.g. 'step 1000'")
        for what, wanted in (("channels", self.shape[0]), ("classes", self.classes)):
            found = getattr(self.guide.model, what, wanted)
            if found != wanted:
                raise RequestError(f"guide: a model of {found} {what} is not allowed for one of {wanted}")

    @property
    def networks(self) -> list[nn.Module]:
        """Those that are evaluated: the model's own, and the guide's where there is one."""
        return [each.model for each in (self.diffusion, self.guide) if each is not None]

    def with_settings(self, **changes: Any) -> "DiffusionGenerator":
        """The same model with the same guide and other options, e.g. ``steps=50``; raises as the constructor does."""
        guide = {"guide": self.guide, "guide_name": self._settings["guide"]}
        return DiffusionGenerator(self.diffusion, shape=self.shape, **{**self._settings, **guide, **changes})

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
        if self.guide is None:
            denoise = labelled(self.diffusion.denoise, label, null=self.classes, scale=self.guidance, **self.interval)
        else:
            towards, away = (labelled(each.denoise, label) for each in (self.diffusion, self.guide))
            denoise = autoguided(towards, away, scale=self.guidance, **self.interval)
        return clipped(denoise, self.clip)

    def solve(self, denoise: Denoise, x: Tensor, grid: Tensor, noise: Noise) -> Iterator[Step]:
        """The chosen sampler from ``x`` along ``grid``, with dropout and gradients off while it works."""
        return self.advance(self.sampler(denoise, x, grid, noise))

    def advance(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Advance ``steps`` with dropout and gradients off, and restore the networks' modes between them."""
        while True:
            training = [network.training for network in self.networks]
            for network in self.networks:
                network.eval()
            try:
                with torch.no_grad(), self._arithmetic():
                    step = next(steps, None)
            finally:
                for network, mode in zip(self.networks, training):
                    network.train(mode)
            if step is None:
                return
            yield step

    def _arithmetic(self) -> torch.autocast:
        device = next(self.diffusion.parameters()).device
        return torch.autocast(device.type, torch.bfloat16, enabled=self._settings["precision"] == "bf16")

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
        """Sampler, steps, grid, guidance, its interval (a bound of None is none), the guide's name, clip, ..."""
        return dict(self._settings)
