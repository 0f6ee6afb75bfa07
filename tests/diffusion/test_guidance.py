"""Guidance and clipping against closed forms, NumPy and diffusers."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracles import Gaussian
from torch import Tensor

from ddm.diffusion import Denoise, autoguided, check_interval, clipped, clippings, labelled, samplers
from ddm.errors import RequestError

MEANS = torch.tensor([-0.5, 0.1, 0.7, 0.2], dtype=torch.float64)
"""Of the pictures of classes 0 to 2, and of all together."""
NULL = 3
STD = 0.4
LABEL = torch.tensor([0, 2, 1, 2])


class Classes:
    """The exact denoiser of Gaussian pictures of several classes; counts how many pictures it saw."""

    def __init__(self):
        self.seen = 0

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        self.seen += len(x)
        assert label is not None and len(label) == len(x) and (sigma.ndim == 0 or len(sigma) == len(x))
        mean, sigma = (each.reshape(-1, 1, 1, 1) for each in (MEANS[label], sigma))
        return (STD**2 * x + sigma**2 * mean) / (STD**2 + sigma**2)


def noisy(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3


def shifted(scale: float, label: Tensor = LABEL) -> Tensor:
    """Gaussians of one width, guided, are Gaussians with this mean ``[b, 1, 1, 1]``."""
    return (MEANS[NULL] + scale * (MEANS[label] - MEANS[NULL])).reshape(-1, 1, 1, 1)


def exact(x: Tensor, sigma: Tensor | float, mean: Tensor) -> Tensor:
    return (STD**2 * x + sigma**2 * mean) / (STD**2 + sigma**2)


def level(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 7.5])
@pytest.mark.parametrize("sigma", [0.02, 1.0, 40.0])
def test_guided_gaussians_are_gaussians_of_another_mean(scale: float, sigma: float):
    denoise = Classes()
    guided = labelled(denoise, LABEL, null=NULL, scale=scale)(noisy(), level(sigma))
    torch.testing.assert_close(guided, exact(noisy(), sigma, shifted(scale)), rtol=1e-12, atol=1e-12)
    assert denoise.seen == (4 if scale == 1 else 8)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_autoguidance_goes_from_the_guide_through_the_model(scale: float):
    """Gaussians of two widths: with precisions weighted as the formula says, in one division."""
    model, guide = Gaussian(0.3, 0.4), Gaussian(0.1, 0.9)
    seen: list[str] = []

    def counted(name: str, oracle: Gaussian) -> Denoise:
        return lambda x, sigma: (seen.append(name), oracle.denoise(x, sigma))[1]

    x, variance = noisy(), 1.3**2
    a, b = 0.4**2 + variance, 0.9**2 + variance
    numerator = scale * b * (0.4**2 * x + variance * 0.3) + (1 - scale) * a * (0.9**2 * x + variance * 0.1)
    found = autoguided(counted("model", model), counted("guide", guide), scale=scale)(x, level(1.3))
    torch.testing.assert_close(found, numerator / (a * b), rtol=1e-12, atol=1e-12)
    assert sorted(seen) == (["model"] if scale == 1 else ["guide", "model"])


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 2.0, 11.0])
def test_a_model_that_guides_itself_changes_nothing(scale: float):
    alone = Gaussian().denoise
    assert torch.equal(autoguided(alone, alone, scale=scale)(noisy(), level(0.7)), alone(noisy(), level(0.7)))


def test_guidance_pushes_away_from_the_guide():
    """Above 1 the model's guess lies between the guide's and the guided one."""
    model, guide = Gaussian(0.5).denoise, Gaussian(-0.2).denoise
    x, sigma = noisy(), level(2.0)
    assert (autoguided(model, guide, scale=2.0)(x, sigma) > model(x, sigma)).all()
    assert (model(x, sigma) > guide(x, sigma)).all()


# --- the interval

Guided = Callable[[float, float], Denoise]


def classifier_free(low: float, high: float) -> Denoise:
    return labelled(Classes(), LABEL, null=NULL, scale=3.0, low=low, high=high)


def by_a_guide(low: float, high: float) -> Denoise:
    model, guide = (lambda x, sigma, m=m: exact(x, sigma.reshape(-1, 1, 1, 1), m) for m in (shifted(1), shifted(0)))
    return autoguided(model, guide, scale=3.0, low=low, high=high)


@pytest.mark.parametrize("make", [classifier_free, by_a_guide])
@pytest.mark.parametrize(
    ("sigma", "inside"),
    [(0.2, False), (math.nextafter(0.2, 1), True), (1.0, True), (5.0, True), (math.nextafter(5.0, 9), False)],
)
def test_low_is_outside_and_high_is_inside(make: Guided, sigma: float, inside: bool):
    found = make(0.2, 5.0)(noisy(), level(sigma))
    torch.testing.assert_close(found, exact(noisy(), sigma, shifted(3 if inside else 1)), rtol=1e-12, atol=1e-12)


def test_outside_the_interval_costs_one_evaluation():
    for sigma, pictures in [(0.1, 4), (0.2, 4), (0.3, 8), (5.0, 8), (6.0, 4)]:
        denoise = Classes()
        labelled(denoise, LABEL, null=NULL, scale=3.0, low=0.2, high=5.0)(noisy(), level(sigma))
        assert denoise.seen == pictures
    seen: list[float] = []
    guide: Denoise = lambda x, sigma: (seen.append(float(sigma)), x)[1]
    guided = autoguided(lambda x, sigma: x, guide, scale=2.0, low=0.2, high=5.0)
    for sigma in (9.0, 5.0, 1.0, 0.2):
        guided(noisy(), level(sigma))
    assert seen == [5.0, 1.0]


@pytest.mark.parametrize("make", [classifier_free, by_a_guide])
@pytest.mark.parametrize("bounds", [(0.0, math.inf), (0.2, 5.0), (0.0, 5.0), (0.2, math.inf), (100.0, 200.0)])
def test_one_level_a_picture_is_as_if_each_were_alone_at_its_level(make: Guided, bounds: tuple[float, float]):
    levels = torch.tensor([0.1, 0.2, 5.0, 8.0], dtype=torch.float64)
    together = make(*bounds)(noisy(), levels)
    for place, sigma in enumerate(levels):
        assert torch.equal(together[place], make(*bounds)(noisy(), sigma)[place])


@pytest.mark.parametrize("make", [classifier_free, by_a_guide])
def test_a_flow_that_is_guided_on_its_middle_ends_where_three_flows_end(make: Guided):
    """Above, within and below the interval the flow is that of another Gaussian, each solved in closed form."""
    grid = torch.cat((torch.logspace(math.log10(80), -3, 6001, dtype=torch.float64), torch.zeros(1)))
    start = noisy() * 30
    *_, last = samplers.bind("ddim")(make(0.2, 5.0), start, grid, lambda: start)
    x = start
    for (upper, lower), scale in zip(pairwise([80, 5.0, 0.2, 0]), [1, 3, 1]):
        ratio = math.sqrt((STD**2 + lower**2) / (STD**2 + upper**2))
        x = shifted(scale) + (x - shifted(scale)) * ratio
    torch.testing.assert_close(last.x, x, rtol=0, atol=2e-3)
    whole = shifted(3) + (start - shifted(3)) * STD / math.sqrt(STD**2 + 80**2)
    assert (x - whole).abs().max() > 0.1, "the interval makes a difference"


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-1.0, None, "sample.guidance_low: -1 is not allowed; allowed: 0 or more$"),
        (math.nan, None, "sample.guidance_low: nan is not allowed; allowed: 0 or more$"),
        (2.0, 2.0, "sample.guidance_low: 2 is not allowed; allowed: 0 or more, and less than guidance_high, 2$"),
        (0.0, math.nan, "less than guidance_high, nan$"),
        (math.inf, math.inf, "less than guidance_high, inf$"),
    ],
)
def test_an_empty_interval_is_refused(low: float, high: float | None, message: str):
    with pytest.raises(RequestError, match=message):
        check_interval(low, high)


def test_whole_and_half_open_intervals_are_fine():
    for low, high in [(0.0, None), (3.0, None), (0.0, math.inf), (0.1, 0.2)]:
        check_interval(low, high)


# --- clipping


def wild(dtype: torch.dtype = torch.float64) -> Tensor:
    """Pictures of which the third is in [-1, 1], the others a little or far beyond it."""
    made = torch.rand(4, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return made * torch.tensor([9.0, 1.2, 0.9, 40.0], dtype=dtype).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_clipping_is_that_of_the_paper(dtype: torch.dtype, quantile: float):
    found = clippings.bind(f"dynamic(quantile={quantile})")(wild(dtype))
    for picture, ours in zip(wild(dtype).numpy(), found.numpy()):
        s = max(float(np.quantile(np.abs(picture), quantile)), 1.0)
        np.testing.assert_allclose(ours, np.clip(picture, -s, s) / s, rtol=1e-12 if dtype == torch.float64 else 1e-6)
    assert found.dtype == dtype and found.abs().max() <= 1


@pytest.mark.parametrize("quantile", [0.9, 0.995])
def test_dynamic_clipping_is_that_of_diffusers(quantile: float):
    diffusers = pytest.importorskip("diffusers")
    # Their sample_max_value of 1 would make it static.
    options = {"thresholding": True, "dynamic_thresholding_ratio": quantile, "sample_max_value": 1e9}
    theirs = diffusers.DDPMScheduler(**options)._threshold_sample(wild())
    assert torch.equal(clippings.bind(f"dynamic(quantile={quantile})")(wild()), theirs)


@pytest.mark.parametrize("name", list(clippings))
def test_every_clipping_leaves_pictures_in_range_alone_and_each_to_itself(name: str):
    clip = clippings.bind(name)
    found = clip(wild())
    assert torch.equal(found[2], wild()[2]) and found.dtype == torch.float64
    for place in range(4):
        assert torch.equal(clip(wild()[place : place + 1])[0], found[place])
        assert torch.equal(clip(wild()[[place, 3, 0]])[0], found[place])
    assert (found.abs().max() <= 1) == (name != "none")


def test_static_clipping_cuts_and_none_does_not():
    x0 = torch.tensor([-9.0, -1.0, 0.45, 1.5]).reshape(1, 1, 2, 2)
    assert clippings["static"](x0).flatten().tolist() == pytest.approx([-1, -1, 0.45, 1])
    assert clippings["none"](x0) is x0


def test_what_is_clipped_is_the_guess():
    guess = clipped(lambda x, sigma: x * sigma, clippings.bind("static"))
    assert guess(torch.tensor([[-1.0, 0.05, 1.0]]), torch.tensor(9.0)).tolist() == [pytest.approx([-1, 0.45, 1])]


@pytest.mark.parametrize("value", [0, 1.5, -0.1])
def test_a_quantile_is_a_share(value: float):
    with pytest.raises(RequestError, match=rf"sample.clip: dynamic\(quantile={value}\): quantile must be "):
        clippings.bind(f"dynamic(quantile={value})", field="sample.clip")
