"""Wrappers of a denoiser: what a sampler sees may be clipped or guided, and the sampler need not know."""

import math
from collections.abc import Callable
from typing import Annotated, Protocol

import torch
from annotated_types import Gt, Le
from torch import Tensor

from ddm.diffusion.tasks import per_picture
from ddm.errors import RequestError
from ddm.registry import Registry

clippings = Registry("clipping", given=("x0",))
"""Functions ``(x0 [b, c, h, w]) -> x0`` that keep every guess of the clean pictures in range, each by itself."""


class Denoise(Protocol):
    """``(x [b, c, h, w], sigma: a scalar or [b]) -> x0`` like x: the only thing a sampler sees of a model."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor: ...


class LabelledDenoise(Protocol):
    """A denoiser that also takes int64 labels ``[b]``, such as ``GaussianDiffusion.denoise``."""

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None, /) -> Tensor: ...


# --- clipping


@clippings.register
def none(x0: Tensor) -> Tensor:
    """Every guess stays as it is."""
    return x0


@clippings.register
def static(x0: Tensor) -> Tensor:
    """To [-1, 1], the range of pictures, as the authors of DDPM do; Ho et al. 2020 (arXiv 2006.11239)."""
    return x0.clamp(-1, 1)


@clippings.register
def dynamic(x0: Tensor, *, quantile: Annotated[float, Gt(0), Le(1)] = 0.995) -> Tensor:
    """Dynamic thresholding, against the glaring colours of strong guidance; Saharia et al. 2022 (arXiv 2205.11487).

    With s the ``quantile`` of a picture's absolute values, at least 1: to [-s, s], and then divided by s.
    """
    s = torch.quantile(x0.abs().flatten(1), quantile, dim=1).clamp(min=1)
    s = per_picture(s, x0)
    return x0.clamp(-s, s) / s


def clipped(denoise: Denoise, clip: Callable[[Tensor], Tensor]) -> Denoise:
    """Every x0 clipped; the samplers derive the noise from the clipped x0, so the two never disagree."""
    return lambda x, sigma: clip(denoise(x, sigma))


# --- guidance


def labelled(
    denoise: LabelledDenoise,
    label: Tensor | None,
    *,
    null: int = 0,
    scale: float = 1.0,
    low: float = 0.0,
    high: float = math.inf,
) -> Denoise:
    """Classifier-free guidance; Ho & Salimans 2022 (arXiv 2207.12598), in an interval of noise levels as in
    Kynkäänniemi et al. 2024 (arXiv 2404.07724).

    Args:
        denoise: a denoiser trained with labels dropped at random.
        label: int64 ``[b]``, or None for no labels (and then no guidance).
        null: the label that means "none".
        scale: x0 = without + scale * (with - without): 1 is no guidance (one evaluation), 0 ignores the label.
        low: guided only where ``low < sigma <= high``; elsewhere the label alone counts, at one evaluation.
        high: see ``low``.
    """

    def alone(x: Tensor, sigma: Tensor, /) -> Tensor:
        return denoise(x, sigma, label)

    if label is None:
        return alone
    both = torch.cat((torch.full_like(label, null), label))

    def without_and_with(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        twice = torch.cat((sigma, sigma)) if sigma.ndim else sigma
        without, with_ = denoise(torch.cat((x, x)), twice, both).chunk(2)
        return without, with_

    return _guided(alone, without_and_with, scale, low, high)


def autoguided(
    denoise: Denoise, guide: Denoise, *, scale: float = 1.0, low: float = 0.0, high: float = math.inf
) -> Denoise:
    """Guidance by a worse version of the model: smaller or less trained; Karras et al. 2024 (arXiv 2406.02507).

    Args:
        denoise: the model, with or without labels in it.
        guide: the worse one, with the same labels in it.
        scale: x0 = guide + scale * (model - guide): 1 is no guidance (one evaluation), 0 is the guide alone.
        low: guided only where ``low < sigma <= high``; elsewhere the model is alone, at one evaluation.
        high: see ``low``.
    """
    return _guided(denoise, lambda x, sigma: (guide(x, sigma), denoise(x, sigma)), scale, low, high)


def check_interval(low: float, high: float | None) -> None:
    """Raise :class:`RequestError` unless ``0 <= low < high``; None is no upper bound."""
    if not 0 <= low < (math.inf if high is None else high):
        allowed = "0 or more" if high is None else f"0 or more, and less than guidance_high, {high:g}"
        raise RequestError(f"sample.guidance_low: {low:g} is not allowed; allowed: {allowed}")


def _guided(
    alone: Denoise,
    away_and_towards: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    scale: float,
    low: float,
    high: float,
) -> Denoise:
    """From one guess through another, which is what ``alone`` gives, as far as ``scale`` says."""
    if scale == 1:
        return alone

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        inside = _inside(sigma, low, high)
        if inside is False:
            return alone(x, sigma)
        away, towards = away_and_towards(x, sigma)
        x0 = torch.lerp(away, towards, scale)
        if isinstance(inside, Tensor):
            return torch.where(inside.to(x.device).reshape(-1, *[1] * (x.ndim - 1)), x0, towards)
        return x0

    return guided


def _inside(sigma: Tensor, low: float, high: float) -> bool | Tensor:
    """Whether ``low < sigma <= high``; a tensor where saying it for all pictures at once would wait for the device."""
    if low == 0 and high == math.inf:
        return True
    if sigma.ndim == 0 and sigma.device.type == "cpu":
        return low < sigma.item() <= high
    return (sigma > low) & (sigma <= high)
