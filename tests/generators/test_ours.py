import pytest
import torch
from torch import Tensor

from ddm.diffusion import GaussianDiffusion
from ddm.errors import DdmError
from ddm.generators import DiffusionGenerator
from ddm.generators.base import finished
from ddm.networks import networks
from ddm.networks.base import Network


class Spoiled(Network):
    """Right for all classes but the last, for which it gives ``value``."""

    def __init__(self, value: float, classes: int = 4):
        super().__init__(channels=3, classes=classes, divisor=1)
        self.value, self.scale = value, torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        return torch.where((label == self.classes - 1)[:, None, None, None], self.value, x * self.scale)


def make(network: Network, **options) -> DiffusionGenerator:
    return DiffusionGenerator(GaussianDiffusion(network), shape=(3, 4, 4), steps=2, sampler="ddim", **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pictures_that_are_not_finite_are_refused_by_seed(value: float):
    generator = make(Spoiled(value))
    assert generator.generate([0, 1, 2, 4]).shape == (4, 3, 4, 4)
    with pytest.raises(DdmError, match="^pictures of seeds 3, 7 are not finite: the sampling or the training went"):
        generator.generate(range(10))
    with pytest.raises(DdmError, match="^the picture of seed 5 is not finite: "):
        generator.generate([4, 5, 6], [0, 3, 1])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_many_are_counted_and_one_line(value: float):
    x = torch.zeros(40, 1, 2, 2)
    x[3:15, 0, 1, 1] = value
    with pytest.raises(
        DdmError, match=r"^pictures of seeds 103, 104, 105, 106, 107 \(and 7 more\) are not finite: rest$"
    ):
        finished(x, range(100, 140), advice="rest")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_finished_rounds_to_the_nearest_level(dtype: torch.dtype):
    levels = torch.tensor([[[[-300.0, 0, 0.4, 0.6, 127.4, 127.6, 254.6, 999]]]], dtype=torch.float64)
    x = (levels / 127.5 - 1).to(dtype)
    expected = [0, 0, 0, 1, 127, 128, 255, 255]
    found = finished(x, [0], advice="").flatten().tolist()
    assert found == expected if dtype != torch.bfloat16 else max(abs(a - b) for a, b in zip(found, expected)) <= 1


def test_what_it_says_of_itself():
    torch.manual_seed(0)
    network = networks.bind("residual_unet(width=8, mults=(1, 2), blocks=1)")(channels=3, classes=3, size=4)
    generator = make(network, guidance=2.0, clip=True)
    assert (generator.classes, generator.limit) == (3, None)
    assert generator.labels_of(range(2, 7)) == [2, 0, 1, 2, 0]
    settings = {"sampler": "ddim", "steps": 2, "grid": "karras", "guidance": 2.0, "clip": True}
    assert generator.settings() == settings
    again = DiffusionGenerator(generator.diffusion, shape=generator.shape, **generator.settings())
    seeds = range(6)
    assert torch.equal(generator.generate(seeds), again.generate(seeds))
    assert torch.equal(generator.generate(seeds), generator.generate(seeds, generator.labels_of(seeds)))
    plain = networks.bind("residual_unet(width=8, mults=(1, 2), blocks=1)")(channels=3, classes=0, size=4)
    assert make(plain).labels_of([1]) is None
