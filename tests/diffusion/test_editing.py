"""Oracles: the flow of Gaussian data in closed form, and two pixels whose conditional distribution is known."""

import math
from collections.abc import Callable

import pytest
import torch
from oracles import Gaussian
from torch import Tensor

from ddm.diffusion import make_grid, samplers
from ddm.diffusion.editing import between, grid_below, inpainting, invert, spherical
from ddm.errors import RequestError
from ddm.seeding import PictureNoise

SIGMAS = torch.linspace(math.log(0.002), math.log(80), 1000, dtype=torch.float64).exp()
PICTURES = torch.tensor([-1, -0.3, 0.3, 0.5, 1], dtype=torch.float64).reshape(5, 1, 1, 1)


def end(choice: str, denoise, x: Tensor, grid: Tensor, noise=None) -> Tensor:
    *_, last = samplers.bind(choice)(denoise, x, grid, noise or (lambda: torch.randn_like(x)))
    return last.x


# --- inversion


def test_inversion_is_the_flow_in_closed_form_and_leads_back():
    oracle, fine = Gaussian(), torch.linspace(math.log(1e-4), math.log(80), 1000, dtype=torch.float64).exp()
    grid = make_grid("karras(low=0.0001)", fine, 2000)
    *_, last = invert(oracle.denoise, PICTURES, grid)
    torch.testing.assert_close(last.x, oracle.flow(PICTURES, grid[-2], grid[0]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end("heun", oracle.denoise, last.x, grid), PICTURES, rtol=0, atol=1e-6)
    torch.testing.assert_close(end("dpmpp_3m", oracle.denoise, last.x, grid), PICTURES, rtol=0, atol=1e-5)


def test_inversion_is_of_second_order():
    oracle = Gaussian()

    def error(steps: int) -> float:
        grid = make_grid("karras", SIGMAS, steps)
        *_, last = invert(oracle.denoise, PICTURES, grid)
        return float((last.x - oracle.flow(PICTURES, grid[-2], grid[0])).abs().max())

    assert math.log2(error(100) / error(200)) == pytest.approx(2, abs=0.2)


def test_inversion_passes_every_level_once():
    grid, seen = make_grid("karras", SIGMAS, 6), []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma))
        return x * 0

    steps = list(invert(denoise, PICTURES, grid))
    assert len(steps) == 5
    assert sorted(set(seen)) == sorted(grid[:-1].tolist())
    # A model to which everything is noise: x grows with the level.
    torch.testing.assert_close(steps[-1].x, PICTURES * grid[0] / grid[-2])


# --- between two noises


def test_the_ends_of_the_arc_are_exact():
    a, b = torch.randn(2, 7, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spherical(a, b, torch.zeros(7)), a)
    assert torch.equal(spherical(a, b, torch.ones(7)), b)
    torch.testing.assert_close(spherical(a, a, torch.full((7,), 0.3)), a)
    assert spherical(a, -a, torch.full((7,), 0.3)).isfinite().all(), "opposite noises have no arc, and no NaN either"


def test_the_arc_keeps_lengths_and_turns_evenly():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.nn.functional.normalize(torch.randn(2, 9, 12, dtype=torch.float64, generator=generator), dim=-1)
    shares = torch.linspace(0, 1, 9, dtype=torch.float64)
    found = spherical(a.reshape(9, 3, 2, 2), b.reshape(9, 3, 2, 2), shares).flatten(1)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(9, dtype=torch.float64), rtol=1e-12, atol=0)
    whole, turned = ((a * each).sum(1).clamp(-1, 1).acos() for each in (b, found))
    torch.testing.assert_close(turned, whole * shares, rtol=1e-7, atol=1e-7)


def test_a_picture_has_an_arc_of_its_own():
    a, b = torch.randn(2, 4, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    shares = torch.tensor([0.1, 0.5, 0.9, 0.2])
    together = spherical(a, b, shares)
    for number in range(4):
        one = slice(number, number + 1)
        assert torch.equal(together[one], spherical(a[one], b[one], shares[one]))


def test_interpolated_noise_is_standard_normal_in_every_draw():
    count, shape = 400, (3, 8, 8)
    noise = between(
        PictureNoise(range(count), shape), PictureNoise(range(count, 2 * count), shape), torch.full((count,), 0.37)
    )
    first, second = noise(), noise()
    for drawn in (first, second):
        total = drawn.numel()
        assert abs(float(drawn.mean())) < 4 / math.sqrt(total)
        assert float(drawn.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * total))
        # Kolmogorov and Smirnov's distance from the normal distribution; 1.95 is exceeded once in a thousand times.
        normal = torch.special.ndtr(drawn.flatten().sort().values.double())
        steps = torch.arange(total, dtype=torch.float64) / total
        assert float((normal - steps).abs().max()) * math.sqrt(total) < 1.95
    straight = PictureNoise(range(count), shape)() * 0.5 + PictureNoise(range(count, 2 * count), shape)() * 0.5
    assert float(straight.std()) < 0.75, "what a straight line would give"
    assert abs(float((first * second).mean())) < 4 / math.sqrt(first.numel())


# --- inpainting

MEAN = torch.tensor([0.1, -0.2], dtype=torch.float64).reshape(1, 1, 1, 2)
SPREAD = (0.5, 0.4)
KNOWN = torch.tensor([0.7, 0.0], dtype=torch.float64).reshape(1, 1, 1, 2)
UNKNOWN = torch.tensor([False, True]).reshape(1, 1, 1, 2)


def correlated(correlation: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact denoiser of pictures of two correlated Gaussian pixels."""
    both = correlation * SPREAD[0] * SPREAD[1]
    covariance = torch.tensor([[SPREAD[0] ** 2, both], [both, SPREAD[1] ** 2]], dtype=torch.float64)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        share = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(2, dtype=torch.float64))
        return MEAN + ((x - MEAN).flatten(1) @ share.T).reshape(x.shape)

    return denoise


def share_of_the_way(choice: str, correlation: float, steps: int) -> float:
    """How far the mean of the unknown pixel goes from its own mean to that given the known one, without any sampling:
    all is linear, so the mean of the results is the result of no noise."""
    grid, nothing = make_grid("karras", SIGMAS, steps), torch.zeros_like(KNOWN)
    found = end(choice, inpainting(correlated(correlation), KNOWN, UNKNOWN), KNOWN * 1, grid, lambda: nothing)
    given = correlation * SPREAD[1] / SPREAD[0] * float((KNOWN - MEAN)[..., 0])
    return float((found - MEAN)[..., 1]) / given


@pytest.mark.parametrize("choice", list(samplers))
def test_what_is_known_comes_out_as_it_went_in(choice: str):
    known = torch.rand(6, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    unknown = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(4)) < 0.5
    grid, noise = make_grid("karras", SIGMAS, 9), PictureNoise(range(6), (3, 4, 4), dtype=torch.float64)
    start = torch.where(unknown, 0, known) + grid[0] * noise()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return Gaussian().denoise(x, sigma.reshape(-1, 1, 1, 1))  # an adaptive sampler has a level for each picture

    found = end(choice, inpainting(denoise, known, unknown), start, grid, noise)
    kept = ~unknown.expand_as(known)
    torch.testing.assert_close(found[kept], known[kept], rtol=0, atol=1e-13)
    assert (found[~kept] - known[~kept]).abs().min() > 1e-4, "and the rest is not what it was"


def test_the_unknown_moves_towards_what_the_known_says_and_further_with_noise_on_the_way():
    shares = [share_of_the_way(choice, 0.8, 100) for choice in ("heun", "ddim(eta=1)", "heun(churn=1000)")]
    assert shares == pytest.approx([0.506, 0.680, 0.828], abs=0.005), "what the docstring says"
    assert shares == sorted(shares)
    assert share_of_the_way("heun(churn=10000)", 0.8, 1600) == pytest.approx(1, abs=0.02), "in the limit it is exact"
    assert share_of_the_way("heun", 0.8, 1600) == pytest.approx(shares[0], abs=0.005), "more steps alone do not help"


def test_the_unknown_is_exact_where_it_does_not_depend_on_the_known():
    count, generator = 20_000, torch.Generator().manual_seed(5)
    draw = lambda: torch.randn(count, 1, 1, 2, dtype=torch.float64, generator=generator)
    grid = make_grid("karras", SIGMAS, 100)
    start = torch.where(UNKNOWN, 0, KNOWN) + grid[0] * draw()
    found = end("heun", inpainting(correlated(0), KNOWN, UNKNOWN), start, grid)[..., 1]
    assert float(found.mean()) == pytest.approx(float(MEAN[..., 1]), abs=4 * SPREAD[1] / math.sqrt(count))
    assert float(found.std()) == pytest.approx(SPREAD[1], rel=4 / math.sqrt(2 * count) + 0.01)


# --- image to image


@pytest.mark.parametrize("choice", ["karras", "log_snr", "trailing", "linspace", "levels(at=(80, 20, 5, 2, 0.5, 0.1))"])
def test_a_grid_below_a_level_begins_there(choice: str):
    whole = make_grid(choice, SIGMAS, 6)
    found = grid_below(choice, SIGMAS, whole, 3.0)
    assert float(found[0]) == pytest.approx(3, rel=1e-12)
    assert float(found[-1]) == 0
    assert (found.diff() < 0).all()
    assert len(found) == len(whole), "as many steps"
    torch.testing.assert_close(grid_below(choice, SIGMAS, whole, float(whole[0])), whole)


def test_given_levels_are_stretched():
    """Along them the logarithm runs as it does along the whole: 4 lies half way between 8 and 2."""
    whole = make_grid("levels(at=(8, 2, 0.5, 0.125))", SIGMAS, 4)
    assert grid_below("levels(at=(8, 2, 0.5, 0.125))", SIGMAS, whole, 4.0).tolist() == pytest.approx(
        [4, 4 * 32 ** (-1 / 3), 4 * 32 ** (-2 / 3), 0.125, 0]
    )
    assert grid_below("levels(at=(8, 2))", SIGMAS, make_grid("levels(at=(8, 2))", SIGMAS, 2), 1.0).tolist() == [1, 0]


def test_a_grid_of_more_steps_than_levels_are_left_is_the_rest_of_the_whole():
    whole = make_grid("trailing", SIGMAS, 1000)
    sigma = float(SIGMAS[99])
    torch.testing.assert_close(grid_below("trailing", SIGMAS, whole, sigma), whole[900:])
    assert grid_below("karras(low=1)", SIGMAS, make_grid("karras(low=1)", SIGMAS, 9), 0.5).tolist() == [0.5, 0]


@pytest.mark.parametrize("sigma", [80.1, 0.002, 0, -1, math.nan, math.inf])
def test_levels_that_the_model_does_not_have_are_refused(sigma: float):
    with pytest.raises(RequestError, match="^noise: .* is not allowed; allowed: more than 0.002, up to 80$"):
        grid_below("karras", SIGMAS, make_grid("karras", SIGMAS, 18), sigma)


def test_from_little_noise_the_picture_comes_back_and_from_all_of_it_a_fresh_one():
    oracle, count, generator = Gaussian(), 20_000, torch.Generator().manual_seed(6)
    picture = torch.full((count, 1, 1, 1), 0.9, dtype=torch.float64)
    draw = lambda: torch.randn(picture.shape, dtype=torch.float64, generator=generator)
    whole = make_grid("karras", SIGMAS, 100)
    low, high = (grid_below("karras", SIGMAS, whole, sigma) for sigma in (0.0021, 80.0))
    near = end("heun", oracle.denoise, picture + low[0] * draw(), low)
    torch.testing.assert_close(near, picture, rtol=0, atol=6 * 0.0021)
    fresh = end("heun", oracle.denoise, picture + high[0] * draw(), high)
    # What is left of the picture at sigma 80: a share of std / 80, as in closed form.
    left = (0.9 - oracle.mean) * oracle.std / math.sqrt(oracle.std**2 + 80**2)
    assert float(fresh.mean()) == pytest.approx(oracle.mean + left, abs=4 * oracle.std / math.sqrt(count))
    assert float(fresh.std()) == pytest.approx(oracle.std, rel=4 / math.sqrt(2 * count) + 0.01)
