"""The residual U-Net behind most results on small images: DDPM's network, and the stronger one with FiLM.

Each part stands before the part that uses it; :class:`ResidualUnet` at the end puts them together.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

import torch
from annotated_types import Ge, Le, Len, Lt, MultipleOf
from torch import Tensor, nn
from torch.nn import functional as F

from ddm.errors import RequestError
from ddm.networks.base import Network, networks, sinusoidal_embedding

Layer = TypeVar("Layer", bound=nn.Module)
MakeBlock = Callable[[int, int], nn.Module]
Positive = Annotated[int, Ge(1)]


def groups_of(channels: int) -> int:
    """Groups of a GroupNorm: as many as divide the channels, but at most 32, and of at least 4 channels each.

    In a group of one channel the norm would take away whatever the timestep added to that channel.
    """
    most = max(1, min(32, channels // 4))
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with as many groups as :func:`groups_of` says and DDPM's epsilon."""
    return nn.GroupNorm(groups_of(channels), channels, eps=1e-6)


def zeroed(layer: Layer) -> Layer:
    """The layer with all parameters zero: what it adds to a sum is nothing until it has learned something."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Conditioning(nn.Module):
    """Timestep and label to the one vector ``[b, features]`` that every residual block reads."""

    def __init__(self, width: int, features: int, *, classes: int):
        super().__init__()
        self.width, self.classes = width, classes
        self.linear1 = nn.Linear(width, features)
        self.linear2 = nn.Linear(features, features)
        self.label = nn.Embedding(classes + 1, features) if classes else None

    def forward(self, t: Tensor, label: Tensor | None) -> Tensor:
        # The sines keep the precision of t: bfloat16 does not tell timestep 901 from 902.
        sines = sinusoidal_embedding(t, self.width)
        embedding = self.linear2(F.silu(self.linear1(sines.to(self.linear1.weight.dtype))))
        if self.label is not None:
            if label is None:
                label = torch.full(t.shape, self.classes, device=t.device)
            embedding = embedding + self.label(label)
        return F.silu(embedding)


class SelfAttention(nn.Module):
    """Every position looks at every other (Vaswani et al. 2017, arXiv 1706.03762), added to the input.

    Args:
        head_width: channels of a head, at least: as many heads as divide the channels that way. ``None`` for one head.
    """

    def __init__(self, width: int, *, head_width: int | None):
        super().__init__()
        most = max(1, width // (head_width or width))
        self.heads = max(heads for heads in range(1, most + 1) if width % heads == 0)
        self.norm = group_norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        # Positions before channels is how channels_last lies in memory, so none of these reshapes moves anything there.
        tokens = self.norm(x).flatten(2).mT
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.project(mixed.transpose(1, 2).flatten(2)).mT.unflatten(2, x.shape[2:])


class ResidualBlock(nn.Module):
    """Twice GroupNorm, SiLU and 3x3 convolution, added to the input; then attention, where there is any.

    Timestep and label enter in the middle: with ``film`` they scale and shift what the second norm returns (Perez et
    al. 2018, arXiv 1709.07871); without, they are added to what it is given, as in DDPM.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        features: int,
        dropout: float,
        film: bool,
        attention: bool,
        head_width: int | None,
    ):
        super().__init__()
        self.film = film
        self.norm1 = group_norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.condition = nn.Linear(features, 2 * width if film else width)
        self.norm2 = group_norm(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        self.attention = SelfAttention(width, head_width=head_width) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        condition = self.condition(embedding)[:, :, None, None]
        if self.film:
            scale, shift = condition.chunk(2, dim=1)
            hidden = torch.addcmul(shift, self.norm2(hidden), 1 + scale)  # shift + norm * (1 + scale), in one pass
        else:
            hidden = self.norm2(hidden + condition)
        return self.attention(self.shortcut(x) + self.conv2(self.dropout(F.silu(hidden))))


class Downsample(nn.Module):
    """Half the height and width, by a convolution that looks right and down, as DDPM pads it."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the height and width: every pixel four times, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class DownLevel(nn.Module):
    """One resolution on the way down: residual blocks, then half the size."""

    def __init__(self, width_in: int, width: int, *, blocks: int, block: MakeBlock, resize: bool):
        super().__init__()
        widths_in = [width_in] + [width] * (blocks - 1)
        self.blocks = nn.ModuleList(block(each, width) for each in widths_in)
        self.resize = Downsample(width) if resize else None

    def forward(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Every output in turn: the last one goes on down, and all of them wait for the way up."""
        outputs = []
        for block in self.blocks:
            x = block(x, embedding)
            outputs.append(x)
        if self.resize is not None:
            outputs.append(self.resize(x))
        return outputs


class UpLevel(nn.Module):
    """One resolution on the way up: residual blocks that also read the way down's outputs, then twice the size."""

    def __init__(self, width_in: int, width: int, *, kept: list[int], block: MakeBlock, resize: bool):
        super().__init__()
        widths_in = [width_in] + [width] * (len(kept) - 1)
        self.blocks = nn.ModuleList(block(each + extra, width) for each, extra in zip(widths_in, kept))
        self.resize = Upsample(width) if resize else None

    def forward(self, x: Tensor, kept: list[Tensor], embedding: Tensor) -> Tensor:
        """``kept`` is the stack of outputs of the way down; every block takes one off."""
        for block in self.blocks:
            x = block(torch.cat((x, kept.pop()), dim=1), embedding)
        return x if self.resize is None else self.resize(x)


def attentive_levels(attention: tuple[int, ...], size: int, depth: int) -> list[bool]:
    """Which of ``depth`` levels have attention, in pictures of ``size`` pixels; see :class:`ResidualUnet`."""
    sides = [size // 2**level for level in range(depth)]
    for wanted in attention:
        if wanted not in sides and wanted.bit_count() != 1:
            allowed = ", ".join(map(str, sides))
            raise RequestError(
                f"attention: {wanted} is no side in this network for pictures of {size}; "
                f"allowed: {allowed}, or any power of two"
            )
    return [any(side <= wanted < 2 * side for wanted in attention) for side in sides]


@networks.register
class ResidualUnet(Network):
    """Residual U-Net with attention at chosen resolutions: DDPM's backbone and its stronger descendants.

    Ho et al. 2020 (arXiv 2006.11239), with the improvements of Nichol & Dhariwal 2021 (arXiv 2102.09672) and
    Dhariwal & Nichol 2021 (arXiv 2105.05233): the embedding scales and shifts (FiLM), several heads, attention at
    16x16. ``ResidualUnet(film=False, dropout=0.1, head_width=None)`` is DDPM's CIFAR-10 network of 35.7 M parameters,
    exactly. A fresh network returns zeros: every residual branch ends in a convolution that starts at zero.

    Args:
        width: channels at full resolution; even.
        mults: the channels of each level as multiples of ``width``; every level has half the side of the one before.
        size: side of the pictures the network is built for, in pixels; it only decides at which levels attention sits.
        channels: of the pictures: 1, 3 or 4.
        classes: number of labels; 0 for an unconditional network, which ignores labels.
        blocks: residual blocks at every level on the way down; there is one more on the way up.
        attention: sides, in pixels, at which there is attention besides the bottom. Each means the level that is at
            most so wide but more than half: 16 means 16x16 in pictures of 32 or 64 and 12x12 in pictures of 24. Where
            there is no such level (8x8 pictures) there is none; a number that is neither the side of a level nor a
            power of two is refused.
        dropout: probability, before the second convolution of every block.
        film: the embedding scales and shifts the features; ``False`` adds it to them, as DDPM does.
        head_width: channels of an attention head, at least; ``None`` for one head.
        patch: squares of this side become one pixel of ``patch**2`` times the channels at the entry, and are laid out
            again at the exit: with 2 the first level works at half the side, at a quarter of the cost.

    Raises:
        RequestError: ``channels``, ``size`` or ``attention`` is not possible.
    """

    def __init__(
        self,
        width: Annotated[int, Ge(4), Le(8192), MultipleOf(2)] = 128,
        mults: Annotated[tuple[Annotated[int, Ge(1), Le(256)], ...], Len(1, 12)] = (1, 2, 2, 2),
        *,
        size: Positive = 32,
        channels: int = 3,
        classes: int = 0,
        blocks: Annotated[int, Ge(1), Le(64)] = 2,
        attention: tuple[Positive, ...] = (16,),
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        film: bool = True,
        head_width: Positive | None = 64,
        patch: Positive = 1,
    ):
        super().__init__(channels=channels, classes=classes, divisor=patch * 2 ** (len(mults) - 1))
        self.check_size(size, size)
        features, bottom = 4 * width, len(mults) - 1
        widths = [width * mult for mult in mults]
        block = partial(ResidualBlock, features=features, dropout=dropout, film=film, head_width=head_width)
        attentive = attentive_levels(attention, size // patch, len(mults))
        level_blocks = [partial(block, attention=here) for here in attentive]

        self.conditioning = Conditioning(width, features, classes=classes)
        self.patch = patch
        self.entry = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        kept = [width]  # channels of every output that waits for the way up
        self.down = nn.ModuleList()
        for i, here in enumerate(widths):
            self.down.append(DownLevel(kept[-1], here, blocks=blocks, block=level_blocks[i], resize=i < bottom))
            kept += [here] * (blocks + (i < bottom))
        self.middle1 = block(kept[-1], kept[-1], attention=True)
        self.middle2 = block(kept[-1], kept[-1], attention=False)
        self.up = nn.ModuleList()
        for i in reversed(range(len(widths))):
            below, extra = widths[min(i + 1, bottom)], [kept.pop() for _ in range(blocks + 1)]
            self.up.append(UpLevel(below, widths[i], kept=extra, block=level_blocks[i], resize=i > 0))
        self.norm = group_norm(width)
        self.exit = zeroed(nn.Conv2d(width, channels * patch**2, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """One pass.

        Args:
            x: pictures ``[b, channels, h, w]``, about unit scale; height and width any multiples of ``divisor``.
            t: timesteps ``[b]``, in [0, timesteps).
            label: int64 ``[b]`` in [0, classes], where ``classes`` means "no label"; ``None`` means that for all.

        Returns:
            The network's output, shaped like ``x``, any real values.

        Raises:
            RequestError: pictures with other channels than the network's, or of a size it cannot halve often enough.
        """
        if x.shape[1] != self.channels:
            raise RequestError(f"channels: {x.shape[1]} is not what this network takes; allowed: {self.channels}")
        self.check_size(*x.shape[2:])
        embedding = self.conditioning(t, label)
        kept = [self.entry(F.pixel_unshuffle(x, self.patch))]
        for level in self.down:
            kept += level(kept[-1], embedding)
        x = self.middle2(self.middle1(kept[-1], embedding), embedding)
        for level in self.up:
            x = level(x, kept, embedding)
        return F.pixel_shuffle(self.exit(F.silu(self.norm(x))), self.patch)
