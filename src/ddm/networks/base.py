"""What every backbone is: a function of (x, t, label) that returns something shaped like x."""

import math

import torch
from torch import Tensor, nn

from ddm.errors import RequestError
from ddm.images import MODES
from ddm.registry import Registry

networks = Registry("network", given=("channels", "classes", "size"))


class Network(nn.Module):
    """Base of all backbones.

    ``forward(x, t, label)`` takes ``x [b, channels, h, w]``, timesteps ``t [b]`` (floats in [0, timesteps)) and
    labels ``[b]`` (int64; ``classes`` itself means "no label", ``None`` means that for the whole batch) and returns
    a tensor like ``x``.

    Args:
        channels: of the pictures: 1, 3 or 4.
        classes: number of labels; 0 for an unconditional network.
        divisor: height and width must be divisible by this (two to the number of down-samplings).

    Raises:
        RequestError: a number of channels that is not 1, 3 or 4.
    """

    def __init__(self, *, channels: int, classes: int, divisor: int):
        super().__init__()
        if channels not in MODES:
            raise RequestError(f"channels: {channels} is not allowed; allowed: 1 (gray), 3 (RGB), 4 (RGBA)")
        self.channels, self.classes, self.divisor = channels, classes, divisor

    def check_size(self, height: int, width: int) -> None:
        """Raise :class:`RequestError` unless the network can take pictures of this size (pixels)."""
        for side in (height, width):
            if side % self.divisor or side <= 0:
                lower = max(side // self.divisor, 1) * self.divisor
                raise RequestError(
                    f"image_size: {side} is not divisible by {self.divisor}, the down-sampling of this network; "
                    f"allowed: its multiples, e.g. {lower} or {lower + self.divisor}"
                )


def sinusoidal_embedding(t: Tensor, width: int) -> Tensor:
    """Timesteps ``[b]`` to ``[b, width]``: sines, then cosines, at frequencies 1 to 1/10000.

    Vaswani et al. 2017 as used by Ho et al. 2020 (arXiv 2006.11239). ``width`` must be even.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * (-math.log(10_000) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
