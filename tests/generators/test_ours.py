import json
import math

import pytest
import torch
from torch import Tensor

from ddm.diffusion import GaussianDiffusion
from ddm.errors import DdmError, RequestError
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


def test_bf16_is_near_and_the_sampler_stays_exact():
    torch.manual_seed(0)
    network = networks.bind("residual_unet(width=8, mults=(1, 2), blocks=1)")(channels=3, classes=0, size=8)
    with torch.no_grad():  # a fresh network returns zeros
        for each in network.parameters():
            each.copy_(torch.randn_like(each) * 0.1)
    seen = set()
    network.entry.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
    exact = DiffusionGenerator(GaussianDiffusion(network), shape=(3, 8, 8), sampler="ddim", steps=4)
    rough = exact.with_settings(precision="bf16")
    a, b = exact.floats(range(4)), rough.floats(range(4))
    assert seen == {torch.float32, torch.bfloat16}
    assert a.dtype == b.dtype == torch.float64
    assert 0 < (a - b).abs().max() < 0.05 * a.abs().max()
    assert rough.settings()["precision"] == "bf16"
    assert not torch.is_autocast_enabled("cpu")


def test_what_it_says_of_itself():
    torch.manual_seed(0)
    network = networks.bind("residual_unet(width=8, mults=(1, 2), blocks=1)")(channels=3, classes=3, size=4)
    generator = make(network, guidance=2.0, clip="static")
    assert (generator.classes, generator.limit) == (3, None)
    assert generator.labels_of(range(2, 7)) == [2, 0, 1, 2, 0]
    settings = {"sampler": "ddim", "steps": 2, "grid": "karras", "guidance": 2.0, "clip": "static"}
    settings |= {"guidance_low": 0.0, "guidance_high": None, "guide": None, "precision": "fp32"}
    assert generator.settings() == settings
    again = DiffusionGenerator(generator.diffusion, shape=generator.shape, **generator.settings())
    seeds = range(6)
    assert torch.equal(generator.generate(seeds), again.generate(seeds))
    assert torch.equal(generator.generate(seeds), generator.generate(seeds, generator.labels_of(seeds)))
    plain = networks.bind("residual_unet(width=8, mults=(1, 2), blocks=1)")(channels=3, classes=0, size=4)
    assert make(plain).labels_of([1]) is None


# --- guidance


class Tinted(Network):
    """Every pixel is the tint and a tenth of the label; remembers what it was asked."""

    def __init__(self, tint: float, classes: int = 3, channels: int = 3, divisor: int = 1):
        super().__init__(channels=channels, classes=classes, divisor=divisor)
        self.tint, self.asked = torch.nn.Parameter(torch.tensor(tint)), []

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.asked.append((len(x), label is not None and label.tolist(), self.training))
        return self.tint.expand_as(x) + (0 if label is None else (label / 10)[:, None, None, None])


def tinted(tint: float = 0.2, *, classes: int = 3, guide: Tinted | None = None, **options) -> DiffusionGenerator:
    diffusion = GaussianDiffusion(Tinted(tint, classes), objective="x0")
    if guide is not None:
        options |= {"guide": GaussianDiffusion(guide, objective="x0"), "guide_name": "step 7"}
    return DiffusionGenerator(diffusion, shape=(3, 4, 4), sampler="ddim", **{"steps": 3, **options})


def test_a_guide_is_asked_for_the_same_labels_and_left_behind():
    guide = Tinted(0.1)
    generator = tinted(guide=guide, guidance=2.5)
    found = generator.floats([3, 4, 5], [2, 0, 1])
    expected = 0.1 + torch.tensor([0.2, 0.0, 0.1]) + 2.5 * (0.2 - 0.1)
    assert found[:, 0, 0, 0].tolist() == pytest.approx(expected.tolist())
    assert (found == found[:, :1, :1, :1]).all()
    assert guide.asked == [(3, [2, 0, 1], False)] * 3 and guide.training


def test_a_guide_needs_no_labels():
    found = tinted(classes=0, guide=Tinted(0.1, classes=0), guidance=2.0).floats([0])
    assert found.flatten().tolist() == pytest.approx([0.3] * 48)


def test_a_model_is_its_own_guide_in_vain():
    torch.manual_seed(0)
    network = networks.bind("residual_unet(width=8, mults=(1, 2), blocks=1)")(channels=3, classes=3, size=4)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # its last layer begins with zeros
    generator = make(network)
    alone = generator.floats(range(4))
    assert alone.std(0).max() > 0
    for guidance in (1.0, 0.0, 4.0):
        guided = generator.with_settings(guide=generator.diffusion, guide_name="itself", guidance=guidance)
        assert torch.equal(guided.floats(range(4)), alone)


def test_guidance_counts_in_its_interval_alone():
    options = {"guidance": 3.0, "steps": 5}
    generator = tinted(**options)
    middle = generator.grid[2].item()
    unguided, guided = tinted(steps=5).floats([1]), generator.floats([1])
    assert not torch.equal(guided, unguided)
    everywhere = generator.with_settings(guidance_low=0.001, guidance_high=80.5)
    nowhere = generator.with_settings(guidance_low=middle, guidance_high=middle * 1.01)
    assert torch.equal(everywhere.floats([1]), guided) and torch.equal(nowhere.floats([1]), unguided)
    for low, high, pictures in [(0.0, middle, [1, 1, 2, 2, 2]), (middle, None, [2, 2, 1, 1, 1])]:
        part = generator.with_settings(guidance_low=low, guidance_high=high)
        network = part.diffusion.model
        assert isinstance(network, Tinted)
        network.asked.clear()
        part.floats([1])
        assert [count for count, _, _ in network.asked] == pictures


def test_a_guide_counts_in_the_interval_alone():
    guide = Tinted(0.1)
    generator = tinted(guide=guide, guidance=2.0, steps=5)
    middle = generator.grid[2].item()
    for low, high, answers in [(0.0, middle, 3), (middle, None, 2), (0.0, None, 5), (middle, middle * 1.01, 0)]:
        guide.asked.clear()
        generator.with_settings(guidance_low=low, guidance_high=high).floats([1])
        assert len(guide.asked) == answers


def test_clipping_is_the_last_word():
    generator = tinted(0.7, guide=Tinted(0.2), guidance=2.0)
    assert generator.floats([0]).max() == pytest.approx(1.2)
    assert generator.with_settings(clip="static").floats([0]).max() == pytest.approx(1)
    assert generator.with_settings(clip="dynamic(quantile=0.5)").floats([0, 1]).flatten(1).amax(1).tolist() == [1, 1]


def test_settings_are_json_and_make_the_same_again():
    generator = tinted(guide=Tinted(0.1), guidance=2.0, guidance_low=0.5, guidance_high=math.inf, clip="static")
    settings = json.loads(json.dumps(generator.settings(), allow_nan=False))
    assert settings == generator.settings()
    assert (settings["guidance_low"], settings["guidance_high"], settings["guide"]) == (0.5, None, "step 7")
    assert torch.equal(generator.with_settings().floats([5]), generator.floats([5]))
    more = generator.with_settings(steps=4, guidance_high=9.0)
    assert more.settings() == settings | {"steps": 4, "guidance_high": 9.0} and more.guide is generator.guide


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": 2.0, "classes": 0}, "sample.guidance: 2.0 is not allowed for a model without labels; allowed: 1"),
        ({"guide": Tinted(0.1, classes=4)}, "guide: a model of 4 classes is not allowed for one of 3"),
        ({"guide": Tinted(0.1, channels=1)}, "guide: a model of 1 channels is not allowed for one of 3"),
        ({"guide": Tinted(0.1, divisor=8)}, "image_size: 4 is not divisible by 8"),
        ({"guide": Tinted(0.1), "guide_name": ""}, "guide_name: a guide needs one"),
        ({"guidance_low": 3.0, "guidance_high": 2.0}, "sample.guidance_low: 3 is not allowed; allowed: 0 or more, and"),
        ({"clip": "hard"}, "sample.clip: 'hard' is unknown; allowed: dynamic, none, static"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, message: str):
    named = options.pop("guide_name", None)
    with pytest.raises(RequestError) as caught:
        generator = tinted(**options)
        generator.with_settings(guide_name=named)
    assert message in str(caught.value) and "\n" not in str(caught.value)
