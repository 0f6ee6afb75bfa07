"""The network of the paper: a U-Net with attention at every resolution."""

import functools
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Le, Len, Lt, MultipleOf
from torch import Tensor, nn
from torch.nn import functional as F

from ddm.errors import RequestError
from ddm.networks.base import Network, networks, sinusoidal_embedding
from ddm.networks.unit_length import normalized_silu, unit_length

HEADS, HEAD_WIDTH = 4, 32
MEMORY = 4
"""Learned keys and values that every attention sees beside those of the picture."""


@networks.register
class Unet(Network):
    """The paper's U-Net, as the package denoising-diffusion-pytorch 2.x has it at its defaults.

    Residual blocks modulated by the timestep, root-mean-square norms, full attention at the deepest level, linear
    attention at the others. ``Unet()`` has 35.71 million parameters, and weights of the package can be carried over
    one by one: the outputs are the same.

    ``forward(x, t, label=None)`` takes ``x [b, channels, h, w]`` (noisy pictures scaled to about unit variance),
    ``t [b]`` (timesteps, floats or integers in [0, timesteps)) and ``label [b]`` (int64 in [0, classes]; ``classes``,
    or ``None`` for the whole batch, means "no label"; ignored where ``classes`` is 0). It returns an unbounded tensor
    like ``x``. It is fastest when ``x`` and the weights are in ``torch.channels_last``.

    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239;
    https://github.com/lucidrains/denoising-diffusion-pytorch (MIT), with its 2.x changes to the paper's network.

    Args:
        dim: channels at the first resolution.
        dim_mults: channels at each level, in units of ``dim``; every level but the deepest halves height and width.
        channels: of the pictures: 1, 3 or 4.
        classes: number of labels; 0 for an unconditional network.
        dropout: probability that an activation inside a residual block is dropped in training.

    Raises:
        RequestError: an argument out of its range; in ``forward``, a wrong number of channels or a height or width
            that cannot be halved as often as the network does.
    """

    def __init__(
        self,
        dim: Annotated[int, Ge(8), Le(8192), MultipleOf(8)] = 64,
        dim_mults: Annotated[tuple[Annotated[int, Ge(1), Le(256)], ...], Len(1, 12)] = (1, 2, 4, 8),
        *,
        channels: int = 3,
        classes: int = 0,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ):
        _check_options(dim, dim_mults, dropout)
        super().__init__(channels=channels, classes=classes, divisor=2 ** (len(dim_mults) - 1))
        self.dim = dim
        time_width = 4 * dim
        block = functools.partial(ResidualBlock, time_width=time_width, dropout=dropout)

        self.time = nn.Sequential(nn.Linear(dim, time_width), nn.GELU(), nn.Linear(time_width, time_width))
        self.label = nn.Embedding(classes + 1, time_width) if classes else None

        self.stem = nn.Conv2d(channels, dim, 7, padding=3)
        widths = [dim, *(dim * factor for factor in dim_mults)]
        width, wide = widths[-2:]
        self.body = Level(width, wide, Middle(width, wide, block), block, FullAttention)
        for width, wide, wider in reversed(list(zip(widths, widths[1:], widths[2:]))):
            self.body = Level(width, wide, Halved(width, wide, wider, self.body), block, LinearAttention)
        self.narrow = nn.Conv2d(widths[1], dim, 3, padding=1)
        self.last = block(2 * dim, dim)
        self.head = nn.Conv2d(dim, channels, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        if x.shape[1] != self.channels:
            raise RequestError(f"channels: {x.shape[1]} is not allowed; allowed: {self.channels}, as in the network")
        self.check_size(x.shape[2], x.shape[3])
        condition = self.condition(t, label, x.dtype)
        early = self.stem(x)
        x = self.narrow(self.body(early, condition))
        return self.head(self.last(torch.cat((x, early), dim=1), condition))

    def condition(self, t: Tensor, label: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What the residual blocks are told, ``[b, 4 * dim]``: the timestep and, with ``classes``, the label."""
        embedding = self.time(sinusoidal_embedding(t, self.dim).to(dtype))
        if self.label is not None:
            if label is None:
                label = torch.full_like(t, self.classes, dtype=torch.int64)
            embedding = embedding + self.label(label)
        # Every residual block would start by applying it to the same vector.
        return F.silu(embedding)


class Level(nn.Module):
    """One resolution: two blocks and attention on the way down, all that lies deeper, and the same on the way up.

    Args:
        width: channels of what comes in.
        wide: channels of what is returned.
        deeper: the rest of the network, ``width`` channels to ``wide``, size unchanged.
        block: makes a residual block from its channels in and out.
        attention: the kind of attention.
    """

    def __init__(self, width: int, wide: int, deeper: nn.Module, block: "MakeBlock", attention: type["Attention"]):
        super().__init__()
        self.down1 = block(width, width)
        self.down2 = block(width, width)
        self.down_attention = attention(width)
        self.deeper = deeper
        self.up1 = block(wide + width, wide)
        self.up2 = block(wide + width, wide)
        self.up_attention = attention(wide)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        early = self.down1(x, condition)
        late = self.down_attention(self.down2(early, condition))
        x = self.deeper(late, condition)
        x = self.up1(torch.cat((x, late), dim=1), condition)
        x = self.up2(torch.cat((x, early), dim=1), condition)
        return self.up_attention(x)


class Halved(nn.Module):
    """A level at half the height and width, from ``width`` channels to ``wide`` though it returns ``wider`` itself."""

    def __init__(self, width: int, wide: int, wider: int, level: Level):
        super().__init__()
        self.shrink = nn.Conv2d(width, wide, 2, stride=2)
        self.level = level
        self.grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(wider, wide, 3, padding=1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.grow(self.level(self.shrink(x), condition))


class Middle(nn.Module):
    """The bottom of the U: more channels, a block, full attention and a block."""

    def __init__(self, width: int, wide: int, block: "MakeBlock"):
        super().__init__()
        self.widen = nn.Conv2d(width, wide, 3, padding=1)
        self.block1 = block(wide, wide)
        self.attention = FullAttention(wide)
        self.block2 = block(wide, wide)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.block1(self.widen(x), condition)
        return self.block2(self.attention(x), condition)


class ResidualBlock(nn.Module):
    """Two normalized 3x3 convolutions beside a shortcut; the condition scales and shifts the first."""

    def __init__(self, width_in: int, width_out: int, *, time_width: int, dropout: float):
        super().__init__()
        self.modulation = nn.Linear(time_width, 2 * width_out)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm1 = RMSNorm(width_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.norm2 = RMSNorm(width_out)
        self.shortcut = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(x)
        h = self.dropout(normalized_silu(h, self.norm1.scale(h) * (scale + 1), shift))
        h = self.conv2(h)
        return normalized_silu(h, self.norm2.scale(h)) + self.shortcut(x)


MakeBlock = Callable[[int, int], ResidualBlock]


class RMSNorm(nn.Module):
    """Scales the channels of every pixel to root mean square 1, then each channel by its learned gain.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv 1910.07467.
    """

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return unit_length(x) * self.scale(x)

    def scale(self, x: Tensor) -> Tensor:
        """What the channels of every pixel of ``x`` are multiplied by once they have length 1, ``[c, 1, 1]``."""
        return (self.gain * x.shape[1] ** 0.5).to(x.dtype)


class Attention(nn.Module):
    """Adds to every pixel what it reads from all of them and from a learned memory; :meth:`read` says how."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = RMSNorm(width)
        self.query_key_value = nn.Conv2d(width, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.memory = nn.Parameter(torch.randn(2, HEADS, MEMORY, HEAD_WIDTH))
        self.out: nn.Module = nn.Conv2d(HEADS * HEAD_WIDTH, width, 1)

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All ``[b, heads, n, head width]``, with ``MEMORY`` more keys and values than queries; like ``query``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        # In the order in which channels_last lies in memory: gradients come back in it, and none is copied over.
        parts = self.query_key_value(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = parts.unflatten(2, (3, HEADS, HEAD_WIDTH)).transpose(1, 3).unbind(2)
        memory_key, memory_value = self.memory.to(key.dtype).expand(batch, -1, -1, -1, -1).unbind(1)
        key, value = torch.cat((memory_key, key), dim=2), torch.cat((memory_value, value), dim=2)
        h = self.read(query, key, value)
        # The channels are gathered last in memory, which is channels_last once they are moved to the front.
        h = h.transpose(1, 2).flatten(2).mT.unflatten(2, (height, width))
        return x + self.out(h)


class FullAttention(Attention):
    """Softmax attention; time grows with the square of the pixels.

    Vaswani et al., "Attention Is All You Need", 2017, arXiv 1706.03762.
    """

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class LinearAttention(Attention):
    """Attention through one small matrix per head; time and memory grow with the pixels.

    Shen et al., "Efficient Attention: Attention with Linear Complexities", 2018, arXiv 1812.01243.
    """

    def __init__(self, width: int):
        super().__init__(width)
        self.out = nn.Sequential(self.out, RMSNorm(width))

    def read(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        summary = key.softmax(dim=2).mT @ value
        return query.softmax(dim=3) @ (summary * HEAD_WIDTH**-0.5)


def _check_options(dim: int, dim_mults: tuple[int, ...], dropout: float) -> None:
    if dim < 8 or dim % 8:
        raise RequestError(f"dim: {dim} is not allowed; allowed: positive multiples of 8")
    if not dim_mults or min(dim_mults) < 1:
        raise RequestError(f"dim_mults: {dim_mults} is not allowed; allowed: one or more positive whole numbers")
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout: {dropout} is not allowed; allowed: 0 or more and less than 1")
