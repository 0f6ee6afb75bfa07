"""Pictures made from pictures by a generator: held to what the same generator makes of noise alone."""

from collections import deque
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import ddm
from ddm.diffusion import GaussianDiffusion, Step
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, editing
from ddm.networks.base import Network

SHAPE = (3, 4, 4)


class Wavy(Network):
    """Smooth, depends on everything it is given, and remembers the labels it saw."""

    def __init__(self, classes: int = 5):
        super().__init__(channels=3, classes=classes, divisor=1)
        self.scale, self.seen = torch.nn.Parameter(torch.ones(1)), set()

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        if label is not None:
            self.seen |= set(label.tolist())
            x = x + 0.1 * label.reshape(-1, 1, 1, 1)
        return self.scale * torch.sin(x) + 0.2 * torch.cos(t / 300).reshape(-1, 1, 1, 1) * x.roll(1, -1)


def make(classes: int = 5, **options) -> DiffusionGenerator:
    diffusion = GaussianDiffusion(Wavy(classes), schedule="lognormal", objective="edm")
    return DiffusionGenerator(diffusion, shape=SHAPE, **{"steps": 6, **options})


def seen(generator: DiffusionGenerator) -> set[int]:
    assert isinstance(generator.diffusion.model, Wavy)
    return generator.diffusion.model.seen


def last(steps: Iterator[Step]) -> Tensor:
    return deque(steps, maxlen=1).pop().x


def pictures(count: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(count)) * 2 - 1


EVERY = ["heun", "heun(churn=20)", "ddpm", "ddim(eta=0.5)", "dpmpp_3m", "dpmpp_sde", "unipc", "consistency"]


@pytest.mark.parametrize("sampler", EVERY)
def test_all_noise_on_nothing_is_a_fresh_picture(sampler: str):
    generator, seeds = make(sampler=sampler), [3, 8]
    fresh = generator.floats(seeds, [1, 2])
    top = float(generator.grid[0])
    assert torch.equal(last(editing.from_pictures(generator, torch.zeros(2, *SHAPE), top, seeds, [1, 2])), fresh)
    everything = torch.ones(1, 1, 1, dtype=torch.bool)
    assert torch.equal(last(editing.inpaint(generator, pictures(2), everything, seeds, [1, 2])), fresh)


@pytest.mark.parametrize("sampler", EVERY)
def test_between_ends_in_the_pictures_of_the_two_seeds(sampler: str):
    generator = make(sampler=sampler)
    found = last(editing.between(generator, 3, 9, [0, 0.5, 1], [4, 4, 4]))
    ends = generator.floats([3, 9], [4, 4])
    torch.testing.assert_close(found[[0, 2]], ends, rtol=1e-5, atol=1e-5)
    assert (found[1] - found[0]).abs().max() > 0.01 and (found[1] - found[2]).abs().max() > 0.01
    torch.testing.assert_close(last(editing.between(generator, 3, 9, [0.5])), generator_at(generator, 3))


def generator_at(generator: DiffusionGenerator, first: int) -> Tensor:
    """The picture half way to seed 9 with the label of the first seed, asked for by name."""
    return last(editing.between(generator, first, 9, [0.5], generator.labels_of([first])))


def test_no_noise_leaves_the_picture_and_what_is_known_stays():
    generator, start = make(), pictures(4)
    little = last(editing.from_pictures(generator, start, 0.0021, range(4)))
    assert (little - start).abs().max() < 0.02
    unknown = torch.zeros(1, 4, 4, dtype=torch.bool)
    unknown[:, 1:3, 1:3] = True
    for sigma in (None, 5.0):
        found = last(editing.inpaint(generator, start, unknown, range(4), sigma=sigma))
        kept = ~unknown.expand(4, *SHAPE)
        torch.testing.assert_close(found[kept], start.double()[kept], rtol=0, atol=1e-12)
        assert (found - start).abs()[~kept].min() > 1e-4


def test_without_noise_level_the_unknown_part_does_not_matter():
    generator, start = make(), pictures(2)
    unknown = torch.zeros(1, 4, 4, dtype=torch.bool)
    unknown[:, :2] = True
    other = torch.where(unknown, 0.5, start)
    results = [last(editing.inpaint(generator, each, unknown, [1, 2])) for each in (start, other)]
    assert torch.equal(*results)
    results = [last(editing.inpaint(generator, each, unknown, [1, 2], sigma=2.0)) for each in (start, other)]
    assert not torch.equal(*results), "with one it shows through"


def test_to_noise_and_back():
    generator, start = make(steps=400), pictures(3)
    steps = list(editing.reconstruct(generator, start, range(3), [1, 2, 3], shown=[1, 2, 3]))
    assert len(steps) == 399 + 400
    torch.testing.assert_close(steps[-1].x, start.double(), rtol=0, atol=5e-3)
    noise = last(editing.invert(generator, start, [1, 2, 3]))
    assert torch.equal(noise, steps[398].x)
    assert torch.equal(last(editing.from_noise(generator, noise, range(3), [1, 2, 3])), steps[-1].x)
    changed = last(editing.reconstruct(generator, start, range(3), [4, 4, 4], shown=[1, 2, 3]))
    assert (changed - start).abs().max() > 0.02, "another class on the way back"
    guided = make(steps=400, guidance=3.0)
    assert torch.equal(last(editing.invert(guided, start, [1, 2, 3])), noise), "the way up is never guided"


def test_one_step_cannot_be_inverted():
    with pytest.raises(RequestError, match="sample.steps: 1 is not allowed where pictures are inverted"):
        last(editing.reconstruct(make(steps=1, sampler="ddim"), pictures(1), [0]))


def test_a_picture_is_of_no_class_until_somebody_says_so():
    for work in (
        lambda each: editing.from_pictures(each, pictures(2), 1.0, [0, 1]),
        lambda each: editing.inpaint(each, pictures(2), torch.ones(1, 4, 4).bool(), [0, 1]),
        lambda each: editing.reconstruct(each, pictures(2), [0, 1]),
    ):
        generator = make()
        last(work(generator))
        assert seen(generator) == {5}
        assert last(work(make(classes=0))).isfinite().all(), "and a model without labels needs none"
    last(editing.between(generator := make(), 3, 9, [0, 1]))
    assert seen(generator) == {3}


def test_a_picture_does_not_depend_on_its_neighbours():
    generator, start = make(sampler="ddpm"), pictures(3)
    unknown = torch.ones(1, 4, 4, dtype=torch.bool)
    unknown[:, 0] = False
    for work in (
        lambda part: editing.from_pictures(generator, start[part], 2.0, [5, 6, 7][part]),
        lambda part: editing.inpaint(generator, start[part], unknown, [5, 6, 7][part]),
        lambda part: editing.between(generator, 5, 6, [0.1, 0.5, 0.7][part]),
    ):
        torch.testing.assert_close(last(work(slice(None)))[1:2], last(work(slice(1, 2))), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "draws"),
    [
        ("heun", False),
        ("heun(churn=10)", True),
        ("heun(churn=10, churn_low=1, churn_high=0.5)", False),
        ("ddim", False),
        ("ddim(eta=0.1)", True),
        ("ddpm", True),
        ("unipc", False),
        ("euler_ancestral", True),
        ("adaptive", False),
    ],
)
def test_whether_a_sampler_draws_noise_is_found_by_watching_it(sampler: str, draws: bool):
    assert editing.draws_noise(make(sampler=sampler)) is draws


def test_the_network_is_left_as_it_was():
    generator = make()
    generator.diffusion.train()
    for _ in editing.reconstruct(generator, pictures(1), [0]):
        assert generator.diffusion.model.training and torch.is_grad_enabled()


def test_it_is_exported():
    assert ddm.editing is editing
