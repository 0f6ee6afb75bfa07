"""The model: a network, a schedule of noise levels and an objective that gives its output a meaning."""

from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ddm.diffusion.objectives import objectives, weightings
from ddm.diffusion.schedules import CONTINUOUS, schedules
from ddm.diffusion.tasks import per_picture, tasks, wide
from ddm.errors import RequestError


class GaussianDiffusion(nn.Module):
    """A diffusion model of pictures, in the coordinates x = x0 + sigma * noise.

    Args:
        model: the network, called as ``model(x, t, label)`` (see :mod:`ddm.networks`).
        timesteps: noise levels of the schedule.
        schedule: how noisy each is, e.g. ``"linear"``, ``"cosine"``, ``"lognormal(mean=-0.8)"``.
        objective: what the network predicts: ``eps, x0, v, velocity, edm``.
        weighting: how much each level counts in the loss: ``one, snr, min_snr, edm_lambda``.
        task: what is learned: ``denoising``, or ``consistency(stages=8)`` by a network that can denoise already.

    Attributes:
        sigmas: float64 ``[timesteps]``, ascending, on the CPU.

    Raises:
        RequestError: an unknown choice or option; fewer than 2 timesteps.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        timesteps: Annotated[int, Ge(2)] = 1000,
        schedule: str = "linear",
        objective: str = "eps",
        weighting: str = "one",
        task: str = "denoising",
    ):
        super().__init__()
        if timesteps < 2:
            raise RequestError(f"timesteps: {timesteps} is not allowed; allowed: 2 or more")
        self.model = model
        levels = schedules.bind(schedule)
        self.sigmas: Tensor = levels(timesteps)
        if not (self.sigmas.diff() > 0).all() or not self.sigmas.isfinite().all():
            raise RequestError(f"schedule: {schedule!r} is not allowed; its noise levels do not ascend")
        self.continuous = levels.func in CONTINUOUS
        self._levels: dict[torch.device, Tensor] = {}  # logarithms of the sigmas, a copy a device
        self.objective = objectives.bind(objective)
        self.weighting = weightings.bind(weighting)
        self.task = tasks.bind(task)
        levels_and_task = {"timesteps": timesteps, "schedule": schedule, "task": task}
        self._remake = partial(GaussianDiffusion, objective=objective, weighting=weighting, **levels_and_task)

    def with_network(self, model: nn.Module) -> "GaussianDiffusion":
        """The same diffusion of another network, e.g. of an average of this one's weights."""
        return self._remake(model)

    def _log_levels(self, device: torch.device) -> Tensor:
        if device not in self._levels:
            self._levels[device] = self.sigmas.log().to(device, wide(device))
        return self._levels[device]

    def position(self, uniform: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) to positions on the schedule, i.e. timesteps ``[b]``: whole ones where the schedule
        is discrete, as in Ho et al. 2020."""
        count = len(self.sigmas)
        # The clamp: in float32 (Apple's GPUs) the largest uniform number may round up to 1.
        return uniform * (count - 1) if self.continuous else (uniform * count).floor().clamp(max=count - 1)

    def sigma_at(self, position: Tensor) -> Tensor:
        """Noise levels at (fractional) positions ``[b]``, interpolated in log sigma; float64."""
        levels = self._log_levels(position.device)
        position = position.to(levels.dtype)
        below = position.long().clamp(0, len(levels) - 2)
        return torch.lerp(levels[below], levels[below + 1], position - below).exp()

    def timestep(self, sigma: Tensor) -> Tensor:
        """The inverse of :meth:`sigma_at`: what the network is told for a noise level, clamped to the schedule."""
        levels = self._log_levels(sigma.device)
        log_sigma = sigma.to(levels.dtype).log().clamp(levels[0], levels[-1])
        above = torch.searchsorted(levels, log_sigma.contiguous()).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        return above - 1 + (log_sigma - low) / (high - low)

    def loss(
        self,
        x0: Tensor,
        label: Tensor | None = None,
        *,
        position: Tensor | None = None,
        noise: Tensor | None = None,
        share: float = 0.0,
    ) -> Tensor:
        """The error of the task, one number a picture.

        Args:
            x0: pictures ``[b, c, h, w]`` in [-1, 1].
            label: int64 ``[b]`` or None.
            position: timesteps ``[b]``, fractional where the schedule is continuous; drawn uniformly by default.
            noise: standard normal, like x0; drawn by default.
            share: of the training that is over, in [0, 1], for tasks that change on the way.

        Returns:
            ``[b]``, the mean over pixels.
        """
        if position is None:
            position = self.position(torch.rand(len(x0), device=x0.device, dtype=wide(x0.device)))
        if noise is None:
            noise = torch.randn_like(x0, memory_format=torch.contiguous_format)
        return self.task(self, x0, label, position, noise, share)

    def forward(
        self, x0: Tensor, label: Tensor | None = None, *, position: Tensor, noise: Tensor, share: float = 0.0
    ) -> Tensor:
        """:meth:`loss` under the name that wrappers (several GPUs, mixed precision) call."""
        return self.loss(x0, label, position=position, noise=noise, share=share)

    def guess(self, x0: Tensor, noise: Tensor, sigma: Tensor, position: Tensor, label: Tensor | None) -> Tensor:
        """:meth:`denoise` of ``x0 + sigma * noise`` while training: ``sigma`` and its ``position`` are ``[b]``."""
        scales = self.objective(sigma)
        x = x0 + per_picture(sigma, x0) * noise
        output = self.model(per_picture(scales.in_, x) * x, position.to(x.dtype), label)
        return per_picture(scales.skip, x) * x + per_picture(scales.out, x) * output.to(x.dtype)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The best guess of the clean pictures.

        Args:
            x: noisy pictures ``[b, c, h, w]``, of any float type; the network runs in its own.
            sigma: a scalar (may stay on the CPU: nothing then waits for the device) or ``[b]``.
            label: int64 ``[b]`` or None.

        Returns:
            x0 like ``x``, not clipped.
        """
        scales = self.objective(sigma.to(wide(sigma.device)))
        parameter = next(self.model.parameters(), x)
        t = self.timestep(sigma).to(parameter.dtype)
        # Filling from a CPU scalar queues a kernel; copying the scalar over would be a transfer in every step.
        t = t.to(x.device) if t.ndim else torch.full((len(x),), t.item(), dtype=t.dtype, device=x.device)
        output = self.model((per_picture(scales.in_, x) * x).to(parameter.dtype), t, label)
        return per_picture(scales.skip, x) * x + per_picture(scales.out, x) * output.to(x.dtype)
