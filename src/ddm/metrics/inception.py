"""The feature space of published FIDs: the Inception-v3 that was frozen on 5 December 2015, in plain torch."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddm.metrics.efficientnet import INSTALL, installed
from ddm.metrics.features import Extractor, features
from ddm.metrics.weights import fetch, load_state
from ddm.storage import digest_of

NAME = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAME}"
SIZE = 95_628_359
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299


@features.register
class Inception(Extractor):
    """The network of published FIDs (arXiv 1706.08500): 2048 features, 1008 logits for the Inception score.

    Verified: the network equals the one of torch-fidelity 0.4.0, layer names included, on random weights and batch-norm
    statistics. Not verified: the weights themselves, which could not be had where this was written; their size and
    SHA-256 are those of several independent public records, and a file with another SHA-256 is never used.

    Args:
        resize: how pictures get 299x299. ``tensorflow``: TensorFlow 1's bilinear, whose source coordinate is
            ``x * scale`` without the half pixel, as the first FIDs were computed and torch-fidelity does.
            ``bilinear``: with the half pixel and scaled as ``x / 127.5 - 1``, as pytorch-fid does.
            ``bicubic``: Pillow's, antialiased, on floats and clipped to [0, 255], as clean-fid does (arXiv 2104.11222;
            its first versions did not clip). On CIFAR-10 the first two differ by several grey levels: numbers across
            them cannot be compared.

    Raises:
        RequestError: ``$DDM_WEIGHTS`` has a file of that name with other content.
        DdmError: the weights cannot be had.
    """

    dimension = 2048

    def __init__(self, *, resize: Literal["tensorflow", "bilinear", "bicubic"] = "tensorflow"):
        super().__init__()
        path = fetch(NAME, url=URL, sha256=SHA256, size=SIZE, alternative=alternative())
        self.network = InceptionNetwork()
        self.network.load_state_dict(load_state(path))
        self.eval().requires_grad_(False)
        self.resize, self._prepare = RESIZINGS[resize]
        self.digest = digest_of("inception", self.version, SHA256, resize)

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features float32 ``[b, 2048]`` and logits without bias ``[b, 1008]`` of uint8 ``[b, 3, h, w]``."""
        return self.network(self._prepare(pixels.float()))


def alternative() -> str:
    """What to do where the weights cannot be had."""
    line = "without it, measure in another feature space: --features efficientnet"
    return line if installed() else f"{line} (first: {INSTALL})"


def tensorflow_bilinear(x: Tensor) -> Tensor:
    """``[b, c, h, w]`` to ``[b, c, 299, 299]`` as TensorFlow 1 does: the corner of a pixel is its coordinate."""
    return _along(_along(x, 3), 2)


def _along(x: Tensor, dim: int) -> Tensor:
    count = x.shape[dim]
    # TensorFlow keeps the scale and the coordinates in float32; more digits would move a coordinate over a pixel.
    where = torch.arange(SIDE, device=x.device, dtype=torch.float32) * torch.tensor(count / SIDE, dtype=torch.float32)
    low = where.long()
    high = (low + 1).clamp(max=count - 1)
    share = (where - low).view(-1, *[1] * (3 - dim))
    start = x.index_select(dim, low)
    return start + (x.index_select(dim, high) - start) * share


def _tensorflow(x: Tensor) -> Tensor:
    return (tensorflow_bilinear(x) - 128) / 128


def _bilinear(x: Tensor) -> Tensor:
    return 2 * F.interpolate(x / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False) - 1


def _bicubic(x: Tensor) -> Tensor:
    x = F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
    return (x.clamp(0, 255) - 128) / 128


RESIZINGS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "tensorflow": ("TensorFlow 1 bilinear to 299x299, as the first FIDs and torch-fidelity", _tensorflow),
    "bilinear": ("bilinear with half-pixel centres to 299x299, as pytorch-fid", _bilinear),
    "bicubic": ("Pillow's antialiased bicubic to 299x299, clipped, not rounded, as clean-fid", _bicubic),
}
"""In words, and float pictures in [0, 255] of any size to the input of the network."""


class InceptionNetwork(nn.Module):
    """Inception-v3 (arXiv 1512.00567) as in the graph that FIDs use, with random weights.

    It departs from the paper in three places: average pools leave padding out of the mean, the last block pools by
    maximum, and there are 1008 classes. Names are those of torchvision, which the file of weights has.

    ``forward`` takes float ``[b, 3, 299, 299]`` in about [-1, 1] and returns features ``[b, 2048]`` and logits
    ``[b, 1008]`` without the classifier's bias, as the Inception score wants them (arXiv 1801.01973).
    """

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, padded=False)
        self.Mixed_5b = _fine(192, pooled=32)
        self.Mixed_5c = _fine(256, pooled=64)
        self.Mixed_5d = _fine(288, pooled=64)
        self.Mixed_6a = Mixed(_halve, branch3x3=[Unit(288, 384, 3, stride=2)], branch3x3dbl=_double(288, stride=2))
        self.Mixed_6b = _middle(128)
        self.Mixed_6c = _middle(160)
        self.Mixed_6d = _middle(160)
        self.Mixed_6e = _middle(192)
        self.Mixed_7a = Mixed(
            _halve,
            branch3x3=[Unit(768, 192, 1), Unit(192, 320, 3, stride=2)],
            branch7x7x3=[
                Unit(768, 192, 1),
                Unit(192, 192, ROW),
                Unit(192, 192, COLUMN),
                Unit(192, 192, 3, stride=2),
            ],
        )
        self.Mixed_7b = _coarse(1280, _average)
        self.Mixed_7c = _coarse(2048, _largest)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_halve(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        found = x.mean(dim=(2, 3))
        return found, F.linear(found, self.fc.weight)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU; ``[b, inputs, h, w]`` to ``[b, outputs, h, w]``.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: one side, or height and width.
        stride: 1 or 2.
        padded: with zeros, so that the size stays; never with stride 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padded: bool = True,
    ):
        super().__init__()
        padding = "same" if padded and stride == 1 else "valid"
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


Step = Unit | tuple[Unit, Unit]
"""What a branch does next: one unit, or two over the same input whose outputs are joined."""


class Mixed(nn.Module):
    """Branches over the same input, joined by channels.

    Args:
        pool: what comes before the units of ``branch_pool``, which is the last branch and may have none.
        branches: their steps, by the names that the file of weights has for them.
    """

    def __init__(self, pool: Callable[[Tensor], Tensor], **branches: list[Step]):
        super().__init__()
        self._pool = pool
        self._last = branches.get("branch_pool", [])
        self._others = [steps for name, steps in branches.items() if name != "branch_pool"]
        for branch, steps in branches.items():
            for number, step in enumerate(steps, start=1):
                name = branch if len(steps) == 1 else f"{branch}_{number}"
                if isinstance(step, tuple):
                    self.add_module(f"{name}a", step[0])
                    self.add_module(f"{name}b", step[1])
                else:
                    self.add_module(name, step)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(_run(steps, x) for steps in self._others), _run(self._last, self._pool(x))], dim=1)


def _run(steps: list[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = torch.cat([unit(x) for unit in step], dim=1) if isinstance(step, tuple) else step(x)
    return x


ROW, COLUMN = (1, 7), (7, 1)


def _fine(width: int, *, pooled: int) -> Mixed:
    """For 35x35."""
    return Mixed(
        _average,
        branch1x1=[Unit(width, 64, 1)],
        branch5x5=[Unit(width, 48, 1), Unit(48, 64, 5)],
        branch3x3dbl=_double(width),
        branch_pool=[Unit(width, pooled, 1)],
    )


def _middle(width: int) -> Mixed:
    """For 17x17, 768 channels."""
    rows_first: list[Step] = [Unit(width, width, ROW), Unit(width, 192, COLUMN)]
    columns_first: list[Step] = [Unit(width, width, kernel) for kernel in (COLUMN, ROW, COLUMN)]
    return Mixed(
        _average,
        branch1x1=[Unit(768, 192, 1)],
        branch7x7=[Unit(768, width, 1), *rows_first],
        branch7x7dbl=[Unit(768, width, 1), *columns_first, Unit(width, 192, ROW)],
        branch_pool=[Unit(768, 192, 1)],
    )


def _coarse(width: int, pool: Callable[[Tensor], Tensor]) -> Mixed:
    """For 8x8."""
    return Mixed(
        pool,
        branch1x1=[Unit(width, 320, 1)],
        branch3x3=[Unit(width, 384, 1), _fork()],
        branch3x3dbl=[Unit(width, 448, 1), Unit(448, 384, 3), _fork()],
        branch_pool=[Unit(width, 192, 1)],
    )


def _double(width: int, *, stride: int = 1) -> list[Step]:
    return [Unit(width, 64, 1), Unit(64, 96, 3), Unit(96, 96, 3, stride=stride)]


def _fork() -> tuple[Unit, Unit]:
    return Unit(384, 384, (1, 3)), Unit(384, 384, (3, 1))


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2)


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def _largest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
