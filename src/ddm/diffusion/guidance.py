"""Wrappers of a denoiser: what a sampler sees may be clipped or guided, and the sampler need not know."""

from typing import Protocol

import torch
from torch import Tensor


class Denoise(Protocol):
    """``(x [b, c, h, w], sigma scalar) -> x0`` like x: the only thing a sampler sees of a model."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor: ...


class LabelledDenoise(Protocol):
    """A denoiser that also takes int64 labels ``[b]``, such as ``GaussianDiffusion.denoise``."""

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None, /) -> Tensor: ...


def clipped(denoise: Denoise) -> Denoise:
    """Keep x0 within [-1, 1]; the samplers derive the noise from the clipped x0, so the two never disagree."""
    return lambda x, sigma: denoise(x, sigma).clamp(-1, 1)


def labelled(denoise: LabelledDenoise, label: Tensor | None, *, null: int = 0, scale: float = 1.0) -> Denoise:
    """Classifier-free guidance; Ho & Salimans 2022 (arXiv 2207.12598).

    Args:
        denoise: a denoiser trained with labels dropped at random.
        label: int64 ``[b]``, or None for no labels (and then no guidance).
        null: the label that means "none".
        scale: x0 = without + scale * (with - without): 1 is no guidance (one evaluation), 0 ignores the label.
    """
    if label is None or scale == 1:
        return lambda x, sigma: denoise(x, sigma, label)
    both = torch.cat((label, torch.full_like(label, null)))

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        conditional, unconditional = denoise(torch.cat((x, x)), sigma, both).chunk(2)
        return torch.lerp(unconditional, conditional, scale)

    return guided
