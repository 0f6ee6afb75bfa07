"""What a picture costs: the oracle is a network that counts for itself what it sees."""

import pytest
import torch
from torch import Tensor, nn

from ddm.data import get_data
from ddm.diffusion import GaussianDiffusion, samplers
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, FixedPictures, PipelineGenerator
from ddm.runs.cost import evaluations_of, network_of, parameters_of, with_evaluations


class Counting(nn.Module):
    """Says that all is clean, and counts pictures."""

    def __init__(self, classes: int = 0):
        super().__init__()
        self.classes, self.seen = classes, 0
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.seen += len(x)
        return x * 0.9


def generator(classes: int = 0, **options) -> DiffusionGenerator:
    return DiffusionGenerator(GaussianDiffusion(Counting(classes)), shape=(1, 4, 4), **options)


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("ddim", lambda steps: steps),
        ("ddim(eta=1.0)", lambda steps: steps),
        ("ddpm", lambda steps: steps),
        ("dpmpp_2m", lambda steps: steps),
        ("heun", lambda steps: 2 * steps - 1),
        ("heun(churn=40)", lambda steps: 2 * steps - 1),
    ],
)
def test_evaluations_are_those_of_the_papers(sampler: str, expected, steps: int):
    assert evaluations_of(generator(sampler=sampler, steps=steps)) == expected(steps)
    guided = generator(classes=3, sampler=sampler, steps=steps, guidance=2.0)
    assert evaluations_of(guided, seed=5) == 2 * expected(steps), "guidance sees every picture twice"
    assert evaluations_of(generator(classes=3, sampler=sampler, steps=steps)) == expected(steps)


@pytest.mark.parametrize("sampler", [name for name in samplers if name != "adaptive"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("wanted", [3, 4, 9, 10, 35])
def test_as_many_steps_as_the_evaluations_allow(sampler: str, classes: int, wanted: int):
    options = {"guidance": 3.0} if classes else {}
    found = with_evaluations(generator(classes, sampler=sampler, steps=50, **options), wanted)
    assert isinstance(found, DiffusionGenerator)
    network = network_of(found)
    assert isinstance(network, Counting)
    network.seen = 0
    found.generate([1])
    assert network.seen <= wanted
    more = generator(classes, **found.settings() | {"steps": found.settings()["steps"] + 1})
    assert (evaluations_of(more) or 0) > wanted, "one step more would be too many"


def test_the_other_settings_stay():
    options = {"sampler": "ddim(eta=0.5)", "grid": "trailing", "clip": "static", "guidance_high": 3.0}
    made = generator(steps=50, **options)
    found = with_evaluations(made, 10)
    assert found is not None
    assert found.settings() == {**made.settings(), "steps": 10} and made.settings().items() >= options.items()


@pytest.mark.parametrize("bounds", [(0.5, 5.0), (0.0, 1.0), (3.0, None), (90.0, 99.0)])
def test_guidance_in_an_interval_costs_twice_there_alone(bounds: tuple[float, float | None]):
    low, high = bounds
    for steps in (1, 2, 7, 20):
        made = generator(3, sampler="ddim", steps=steps, guidance=2.0, guidance_low=low, guidance_high=high)
        inside = sum(low < sigma <= (high or 1000) for sigma in made.grid[:-1].tolist())
        assert evaluations_of(made) == steps + inside


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("bounds", [(0.5, 5.0), (0.0, 1.0), (3.0, None), (90.0, 99.0)])
@pytest.mark.parametrize("wanted", [3, 10, 35])
def test_steps_for_evaluations_know_the_interval(sampler: str, bounds: tuple[float, float | None], wanted: int):
    low, high = bounds
    made = generator(3, sampler=sampler, steps=50, guidance=2.0, guidance_low=low, guidance_high=high)
    found = with_evaluations(made, wanted)
    assert isinstance(found, DiffusionGenerator)
    assert (evaluations_of(found) or 0) <= wanted
    more = found.with_settings(steps=found.settings()["steps"] + 1)
    assert (evaluations_of(more) or 0) > wanted, "one step more would be too many"


def test_even_one_step_can_be_too_much_in_an_interval():
    made = generator(3, sampler="ddim", guidance=2.0, guidance_low=3.0)
    with pytest.raises(RequestError, match="nfe: 1 is not allowed; allowed: 2 or more, which one step takes"):
        with_evaluations(made, 1)


def test_what_a_guide_sees_is_counted_too():
    guide = GaussianDiffusion(Counting())
    made = generator(sampler="heun", steps=5, guide=guide, guide_name="worse", guidance=2.0)
    assert evaluations_of(made) == 2 * (2 * 5 - 1)
    assert evaluations_of(made.with_settings(guidance=1.0)) == 2 * 5 - 1, "a guide that is not needed is not asked"
    itself = made.with_settings(guide=made.diffusion)
    assert evaluations_of(itself) == 2 * (2 * 5 - 1) and parameters_of(itself) == parameters_of(generator())
    found = with_evaluations(made, 10)
    assert isinstance(found, DiffusionGenerator) and found.guide is guide and evaluations_of(found) == 10
    assert not guide.model._forward_pre_hooks


def test_too_few_and_too_many_are_refused():
    with pytest.raises(RequestError, match="nfe: 1 is not allowed; allowed: 2 or more, which one step takes"):
        with_evaluations(generator(3, sampler="heun", guidance=2.0), 1)
    with pytest.raises(RequestError, match=r"sample.steps: 2000 is not allowed with the trailing grid"):
        with_evaluations(generator(sampler="ddim", grid="trailing"), 2000)


def test_a_sampler_that_chooses_its_steps_cannot_be_told_its_evaluations():
    with pytest.raises(
        RequestError, match=r"^nfe: 50 is not allowed with adaptive\(tolerance=0.1\), which takes as many"
    ):
        with_evaluations(generator(sampler="adaptive(tolerance=0.1)"), 50)


def test_counting_leaves_nothing_behind():
    made = generator(sampler="ddim", steps=3)
    before = made.generate([4])
    evaluations_of(made)
    assert torch.equal(made.generate([4]), before)
    network = network_of(made)
    assert network is not None and not network._forward_pre_hooks


def test_parameters_are_all_numbers_of_the_network():
    assert parameters_of(generator()) == 3 * 4 + 4


def test_stored_pictures_cost_nothing():
    fixed = FixedPictures(get_data("shapes(count=4)", image_size=8))
    assert (network_of(fixed), parameters_of(fixed), evaluations_of(fixed), with_evaluations(fixed, 5)) == (None,) * 4


def test_a_pipeline_is_counted_too():
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = diffusers.UNet2DModel(8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, **blocks)
    made = PipelineGenerator(diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(100)), steps=7)
    assert network_of(made) is unet and parameters_of(made) == unet.num_parameters()
    assert evaluations_of(made) == 7
    assert evaluations_of(with_evaluations(made, 4)) == 4  # pyright: ignore[reportArgumentType]
