"""The Learn tab without a browser: a denoiser that is exact, targets that are what they are called, refused requests."""

import base64
import io
import math
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ddm.diffusion import make_grid, objectives, samplers, schedules
from ddm.errors import RequestError

pytest.importorskip("gradio")
from ddm.commands.studio import learning, toy
from ddm.commands.studio.learn import Lessons
from ddm.commands.studio.learning import TARGETS, Moment, shape
from ddm.commands.studio.shared import Models, Studio
from ddm.commands.studio.toy import PARTICLES, TOYS, Mixture, compare, follow

DRAWING = {"consistency", "ddpm", "dpmpp_sde", "euler_ancestral"}
"""Samplers that draw noise with their own options."""

WIDE = torch.tensor([0.001, 80.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    return Lessons(Studio(Models({})))


def log_density(mixture: Mixture, sigma: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of the noisy data, from torch.distributions."""
    spread = torch.full_like(mixture.means, math.hypot(mixture.s, sigma))
    parts = Independent(Normal(mixture.means, spread), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mixture.means), dtype=torch.float64)), parts).log_prob


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 60.0])
def test_the_denoiser_is_exact_by_tweedies_formula(name: str, sigma: float):
    points = (torch.randn(50, 2, dtype=torch.float64) * math.hypot(1, sigma)).requires_grad_()
    (slope,) = torch.autograd.grad(log_density(TOYS[name], sigma)(points).sum(), points)
    expected = (points + sigma**2 * slope).detach()
    x = points.detach().reshape(-1, 1, 1, 2)
    for level in (torch.tensor(sigma, dtype=torch.float64), torch.full((50,), sigma, dtype=torch.float64)):
        torch.testing.assert_close(TOYS[name].denoise(x, level).flatten(1), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", TOYS)
def test_the_density_and_the_draws_are_those_of_the_mixture(name: str):
    points = torch.randn(40, 2, dtype=torch.float64)
    ratio = TOYS[name].density(points).log() - log_density(TOYS[name], 0.0)(points)
    assert ratio.std() < 1e-9, "equal up to a factor"
    drawn = TOYS[name].draw(20_000, "test")
    torch.testing.assert_close(drawn.mean(0), TOYS[name].means.mean(0), rtol=0, atol=0.03)
    variance = TOYS[name].means.var(0, correction=0) + TOYS[name].s ** 2
    torch.testing.assert_close(drawn.var(0), variance, rtol=0.05, atol=0)


@pytest.mark.parametrize("name", TOYS)
def test_what_counts_as_exact_agrees_with_another_solver_at_ten_times_the_steps(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(toy, "EVALUATIONS", 10_000)
    finer = follow(TOYS[name], "heun", make_grid("karras(high=80, low=0.0002)", WIDE * torch.tensor([0.2, 1]), 1500), 0)
    assert (toy.solution(name, 80.0, 0).ends - finer.ends).norm(dim=1).max() < 3e-4


@pytest.mark.parametrize("name, order", [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_errors_fall_as_the_order_of_the_sampler_says(name: str, order: int):
    few, many = (compare("two hills", name, "log_snr", steps).error for steps in (40, 80))
    assert order - 0.35 < math.log2(few / many) < order + 0.6


@pytest.mark.parametrize("name", samplers)
def test_every_sampler_walks(name: str):
    found = compare("five islands", name, "karras", 12)
    assert len(found.walk.places) == len(found.walk.sigmas) > 5
    assert found.walk.drawn == (name in DRAWING)
    assert found.walk.sigmas[-1].eq(0).all() and found.walk.sigmas.diff(dim=0).le(0).all()
    assert found.distance < (0.5 if name == "consistency" else 0.2)
    assert (found.error < 0.6) == (name not in DRAWING)


@pytest.mark.parametrize("name", ["ddim", "heun", "unipc", "adaptive(tolerance=0.0001)"])
def test_each_particle_is_at_the_level_that_is_said(name: str):
    """For a single Gaussian the flow is known: x shrinks as its standard deviation does."""
    one = Mixture(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    walk = follow(one, name, make_grid("log_snr", WIDE, 200 if "adaptive" not in name else 2), 0)
    spread = (walk.sigmas**2 + one.s**2).sqrt()
    expected = walk.places[0] * (spread / spread[0])[..., None]
    relative = (walk.places - expected).norm(dim=2) / spread
    assert relative.max() < (0.2 if name == "ddim" else 0.01)


def test_the_distance_of_a_shifted_cloud_is_the_shift():
    one = Mixture(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    quantiles = torch.special.ndtri((torch.arange(200, dtype=torch.float64) + 0.5) / 200) * 0.5
    radius = 0.5 * (-2 * torch.log1p(-(torch.arange(200, dtype=torch.float64) + 0.5) / 200)).sqrt()
    angle = torch.arange(200, dtype=torch.float64)[:, None] * 2 * math.pi / 200
    cloud = torch.stack((radius * angle.cos(), radius * angle.sin()), -1).reshape(-1, 2)
    assert one.distance(cloud) < 0.005 < quantiles.std()
    angles = torch.arange(toy.DIRECTIONS) * math.pi / toy.DIRECTIONS
    expected = 0.3 * float(angles.cos().abs().mean())
    assert one.distance(cloud + torch.tensor([0.3, 0])) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"toy_name": "three moons"}, "toy: 'three moons' is unknown"),
        ({"sampler": "magic"}, "sampler: 'magic' is unknown"),
        ({"sampler": "heun(churn=-1)"}, "greater than or equal to 0"),
        ({"sampler": "__import__('os')"}, "is not a choice|has an option without a name"),
        ({"sampler": "adaptive(tolerance=1e-9, iterations=1000000)"}, "more than 1,000 evaluations"),
        ({"grid": "searched"}, "searched is not allowed here"),
        ({"grid": "levels(at=(1e300, 1))", "steps": 2}, "too large"),
        ({"grid": "levels(at=(1, 2))", "steps": 2}, "does not descend"),
        ({"steps": 0}, "steps: 0 is not allowed; allowed: a whole number from 1 to 100"),
        ({"steps": 101}, "steps: 101 is not allowed"),
        ({"steps": 3.5}, "steps: 3.5 is not allowed"),
        ({"steps": True}, "steps: True is not allowed"),
        ({"seed": -1}, "seed: -1 is not allowed"),
        ({"seed": None}, "seed: None is not allowed"),
    ],
)
def test_wrong_requests_for_ways_are_refused(change: dict, words: str, lessons: Lessons):
    asked = {"toy_name": "two moons", "sampler": "ddim", "grid": "karras", "steps": 4, "seed": 0} | change
    with pytest.raises(RequestError, match=words):
        lessons.learn_paths(**asked)


@pytest.fixture(params=[1, 300, 1000])
def moment(request: pytest.FixtureRequest) -> Moment:
    return Moment.of(shape("star"), "linear", request.param, seed=3)


def test_the_picture_at_a_timestep_is_the_papers(moment: Moment):
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - betas)[: moment.timestep].prod()
    assert moment.alpha_bar == pytest.approx(float(alpha_bar), rel=1e-6)
    expected = alpha_bar.sqrt() * moment.x0 + (1 - alpha_bar).sqrt() * moment.noise
    torch.testing.assert_close(moment.noisy, expected, rtol=1e-6, atol=1e-6)


def test_targets_are_what_the_papers_call_them(moment: Moment):
    signal, rest = math.sqrt(moment.alpha_bar), math.sqrt(1 - moment.alpha_bar)
    expected = {"eps": moment.noise, "x0": moment.x0, "v": signal * moment.noise - rest * moment.x0}
    for name in TARGETS:
        torch.testing.assert_close(moment.target(name), expected[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", objectives)
def test_each_target_gives_the_picture_back(name: str, moment: Moment):
    scales = objectives[name](moment.sigma)
    x = moment.x0 + moment.sigma * moment.noise
    torch.testing.assert_close(scales.skip * x + scales.out * moment.target(name), moment.x0, rtol=1e-6, atol=1e-6)


def test_the_share_that_x_gives_away_is_the_squared_correlation(moment: Moment):
    for name in TARGETS:
        found = np.corrcoef(moment.noisy.flatten().numpy(), moment.target(name).flatten().numpy())[0, 1] ** 2
        assert float(moment.given_away(name)) == pytest.approx(found, abs=1e-6)


def test_x0_is_trivial_at_first_and_eps_at_last_and_v_nowhere():
    ends = torch.tensor([1e-3, 1e3], dtype=torch.float64)
    moment = Moment.of(shape("heart"), "flow", 500)
    assert moment.given_away("x0", ends).tolist() == pytest.approx([1, 0], abs=0.01)
    assert moment.given_away("eps", ends).tolist() == pytest.approx([0, 1], abs=0.01)
    assert moment.given_away("v", ends).tolist() == pytest.approx([0, 0], abs=0.01)


def test_a_picture_of_one_colour_has_nothing_to_give_away():
    black = Moment.of(torch.zeros(3, 32, 32, dtype=torch.uint8), "cosine", 500)
    assert float(black.given_away("x0")) == 0


def pictures(page: str) -> list[np.ndarray]:
    """The PNGs within a piece of a page."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def test_the_first_lesson_shows_exact_pictures_and_the_numbers(lessons: Lessons):
    page = lessons.learn_forward("star", "linear", 300, 3)
    moment = Moment.of(shape("star"), "linear", 300, seed=3)
    expected = [learning.visible(each).permute(1, 2, 0).numpy() for each in (moment.x0, moment.noise, moment.noisy)]
    for found, wanted in zip(pictures(page), expected):
        assert np.array_equal(found, wanted)
    assert f"σ = {float(moment.sigma):.3g}" in page and f"{moment.alpha_bar:.1%}" in page
    for name in schedules:
        value = float(schedules[name](1000)[299])
        assert f"{name} {value:.3g}" in page, "the drawing says in words what it shows"


def test_the_second_lesson_shows_the_three_targets(lessons: Lessons):
    page = lessons.learn_targets("moon", "cosine", 700)
    moment = Moment.of(shape("moon"), "cosine", 700)
    shown = [moment.noisy, *(moment.target(name) for name in TARGETS)]
    assert len(pictures(page)) == 4
    for found, wanted in zip(pictures(page), shown):
        assert np.array_equal(found, learning.visible(wanted).permute(1, 2, 0).numpy())
    for name in TARGETS:
        assert f"{float(moment.given_away(name)):.0%}" in page


@pytest.mark.parametrize("name", [*samplers, "heun(churn=40)"])
def test_the_third_lesson_tells_the_error_of_every_sampler(name: str, lessons: Lessons):
    page, found = lessons.learn_paths("two moons", name, "karras", 6), compare("two moons", name, "karras", 6)
    assert f"<dd>{found.error:.3g}</dd>" in page and f"<dd>{found.walk.evaluations}</dd>" in page
    assert ("fresh noise" in page) == found.walk.drawn
    assert page.count("<svg") == 2 and page.count('role="img"') == page.count("aria-label=") == 2
    assert f"{PARTICLES} ends are {found.error:.3g}" in page, "the alternative text has the number"


def test_a_file_is_taken_at_its_own_size_and_large_ones_smaller(lessons: Lessons):
    for side, shown in ((16, 16), (40, 40), (300, 64)):
        file = io.BytesIO()
        Image.new("L", (side, side), 90).save(file, "PNG")
        page = lessons.learn_forward(base64.b64encode(file.getvalue()).decode(), "cosine", 1)
        assert pictures(page)[0].shape == (shown, shown, 3)


@pytest.mark.parametrize(
    "asked, words",
    [
        (("cat",), "shape: 'cat' is unknown"),
        (("/etc/passwd",), "shape: '/etc/passwd' is unknown"),
        (("/etc/../etc/../etc/passwd/and/more",), "not a file in base64|this type of file|not allowed"),
        (("",), "shape: '' is unknown"),
        ((None,), "there is none"),
        (("star", "straight"), "schedule: 'straight' is unknown"),
        (("star", "lognormal(low=9, high=1)"), "do not ascend"),
        (("star", "cosine", 0), "timestep: 0 is not allowed; allowed: a whole number from 1 to 1,000"),
        (("star", "cosine", 1001), "timestep: 1001"),
        (("star", "cosine", 2.5), "timestep: 2.5"),
        (("star", "cosine", float("nan")), "timestep: nan"),
        (("star", "cosine", 5, -1), "seed: -1"),
    ],
)
def test_wrong_requests_for_pictures_are_refused(asked: tuple, words: str, lessons: Lessons):
    for action in (lessons.learn_forward, lessons.learn_targets):
        with pytest.raises(RequestError, match=words):
            action(*asked)


def test_what_a_request_says_is_never_markup(lessons: Lessons):
    page = lessons.learn_paths("two moons", "heun(churn=40, churn_noise=1.003)", "karras", 3)
    assert "heun(churn=40, churn_noise=1.003)" in page
    with pytest.raises(RequestError):
        lessons.learn_forward("star", "<script>")


def test_every_redraw_is_instant(lessons: Lessons):
    """Counted in seconds of a processor, so that a busy machine makes no difference; the first use is warming up."""

    def redraws() -> None:
        lessons.learn_forward("ring", "sigmoid", 321)
        lessons.learn_targets("ring", "sigmoid", 321)
        lessons.learn_paths("two moons", "heun", "karras", 50)

    redraws()
    started = time.process_time()
    redraws()
    assert time.process_time() - started < 0.6, "three redraws, 0.3 s each at most"
