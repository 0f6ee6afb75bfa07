"""How fast a network could be at most: its arithmetic and its memory traffic, at what the device was seen to do.

A picture's training takes at least ``6 * macs / P + b * (3 * moved + 7 * normalized) / BW`` seconds: three passes of
multiplications, forward and to both sides of every product, and what they and the norms read and write. A forward pass
takes a third of the products, each input and output once, and two passes over what is normalized. The sum, not the
larger of both, since products and norms take turns. b is 2 bytes in half precision, else 4.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from .device import Device
from .rounds import seconds_of

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}
NORMS = {aten.linalg_vector_norm.default, aten.native_group_norm.default, aten.native_layer_norm.default}
ATTENTION = {"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Cost:
    """Of one picture, in numbers: multiplications, inputs and outputs of convolutions, what norms are given."""

    macs: int
    moved: int
    normalized: int

    def flops(self, kind: str) -> int:
        """Floating-point operations of a ``forward`` pass or of a training step."""
        return (2 if kind == "forward" else 6) * self.macs

    def seconds(self, kind: str, ceiling: "Ceiling") -> float:
        """The summed roofline."""
        over_products, over_norms = (1, 2) if kind == "forward" else (3, 7)
        traffic = over_products * self.moved + over_norms * self.normalized
        return self.flops(kind) / ceiling.flops + ceiling.size * traffic / ceiling.bandwidth


@dataclass(frozen=True)
class Ceiling:
    """What a device was seen to do: operations and bytes a second, with numbers of ``size`` bytes."""

    matmul: float
    conv: float
    bandwidth: float
    size: int

    @property
    def flops(self) -> float:
        """The better of both."""
        return max(self.matmul, self.conv)


class Counter(TorchDispatchMode):
    """Counts while a network runs in it."""

    def __init__(self):
        super().__init__()
        self.macs = self.moved = self.normalized = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run the operator and count it."""
        out = function(*args, **(kwargs or {}))
        if function is aten.convolution.default:
            x, weight = args[:2]
            self.macs += out.numel() * weight[0].numel()
            self.moved += x.numel() + out.numel()
        elif function in PRODUCTS:
            self.macs += out.numel() * args[-2].shape[-1]
        elif function._opname in ATTENTION:
            query, key, value = args[:3]
            self.macs += query[..., 0].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
        elif function in NORMS:
            self.normalized += args[0].numel()
        return out


def cost_of(network: nn.Module, x: Tensor, t: Tensor) -> Cost:
    """What a picture costs this network; counted on the CPU."""
    with torch.no_grad(), Counter() as counter:
        network(x, t)
    count = len(x)
    return Cost(counter.macs // count, counter.moved // count, counter.normalized // count)


def measure(device: Device, precision: str, *, tiny: bool) -> Ceiling:
    """A large product, a convolution as in these networks, and a copy: the best of several tries each."""
    dtype, place = DTYPES[precision], device.torch
    side = 128 if tiny else 8192 if device.cuda else 1536
    a, b = (torch.randn(side, side, dtype=dtype, device=place) for _ in range(2))
    batch, channels, height = (4, 16, 8) if tiny else (512, 256, 32) if device.cuda else (16, 128, 32)
    x = torch.randn(batch, channels, height, height, dtype=dtype, device=place).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, dtype=dtype, device=place).to(memory_format=torch.channels_last)
    numbers = 2**16 if tiny else 2**30 if device.cuda else 2**26
    source = torch.ones(numbers, dtype=torch.float32, device=place)
    target = torch.empty_like(source)

    def best(work: Any) -> float:
        work()
        return min(seconds_of(work, device, 10 if device.cuda else 1) for _ in range(5))

    with torch.no_grad():
        matmul = 2 * side**3 / best(lambda: a @ b)
        conv = 2 * 9 * x.numel() * channels / best(lambda: F.conv2d(x, weight, padding=1))
        bandwidth = 2 * source.nbytes / best(lambda: target.copy_(source))
    return Ceiling(matmul, conv, bandwidth, dtype.itemsize)
