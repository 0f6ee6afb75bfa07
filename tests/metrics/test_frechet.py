import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ddm.errors import RequestError
from ddm.metrics import checks
from ddm.metrics.frechet import Moments, bias, fid, fid_infinity, frechet_distance, merge, moments
from metrics.samples import calibration, embedded, lognormal, normal, source

DOUBLE = torch.float64


def gaussian(mean: Tensor, covariance: Tensor) -> Moments:
    """The moments of a distribution rather than of a sample."""
    return Moments(10**9, mean.to(DOUBLE), covariance.to(DOUBLE))


def random_covariance(d: int, seed: int) -> Tensor:
    root = normal(d, d, source(seed))
    return root @ root.T / d


def by_square_root(a: Moments, b: Moments) -> float:
    """The textbook form: the trace of the square root of a product that is not symmetric."""
    product = sqrtm((a.covariance @ b.covariance).numpy())
    gap = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace()
    return float(gap) - 2 * float(np.real(np.trace(product)))


def test_commuting_gaussians():
    one, other = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 1.0])
    a = gaussian(torch.zeros(3), torch.diag(one))
    b = gaussian(torch.tensor([1.0, 0.0, 2.0]), torch.diag(other))
    expected = 5 + (one.sqrt() - other.sqrt()).square().sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("d", [2, 10, 60])
def test_gaussians_that_do_not_commute(d: int):
    a = gaussian(torch.zeros(d), random_covariance(d, 1))
    b = gaussian(torch.linspace(-1, 1, d), random_covariance(d, 2))
    assert frechet_distance(a, b) == pytest.approx(by_square_root(a, b), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_singular_gaussians():
    """On two lines along u and v: |u|^2 + |v|^2 - 2 |u.v|."""
    u, v = torch.tensor([3.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    a, b = gaussian(torch.zeros(4), torch.outer(u, u)), gaussian(torch.zeros(4), torch.outer(v, v))
    assert frechet_distance(a, b) == pytest.approx(9 + 3 - 2 * 3, rel=1e-12)
    point = gaussian(torch.zeros(4), torch.zeros(4, 4))
    assert frechet_distance(a, point) == frechet_distance(point, a) == pytest.approx(9)
    assert frechet_distance(point, point) == 0


@pytest.mark.parametrize("n", [3, 20, 40, 500])
def test_equal_sets_are_not_apart(n: int):
    features = normal(n, 40, source(n)) @ torch.diag(torch.logspace(0, -3, 40, dtype=DOUBLE))
    here, there = moments(features), moments(features.flip(0))
    assert 0 <= frechet_distance(here, here) < 1e-9
    assert 0 <= frechet_distance(here, there) < 1e-9
    assert 0 <= fid(embedded(features), embedded(features.flip(0))).value < 1e-9


def test_fewer_pictures_than_dimensions():
    a, b = moments(normal(30, 50, source(1))), moments(normal(20, 50, source(2)) * 1.5)
    with np.errstate(all="ignore"):
        expected = by_square_root(a, b)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


class AsTheyAre(nn.Module):
    """A feature network for torchmetrics whose pictures are the features."""

    num_features = 12

    def forward(self, features: Tensor) -> Tensor:
        return features


def test_torchmetrics_agrees():
    real, fake = normal(300, 12, source(1)), normal(250, 12, source(2)) @ random_covariance(12, 3) + 0.3
    peer = FrechetInceptionDistance(feature=AsTheyAre()).set_dtype(DOUBLE)
    peer.update(real, real=True)
    peer.update(fake, real=False)
    assert fid(embedded(real), embedded(fake)).value == pytest.approx(peer.compute().item(), rel=1e-6)


def test_moments_are_numpys_in_any_chunks(monkeypatch: pytest.MonkeyPatch):
    features = normal(103, 7, source(0)) + 100
    monkeypatch.setattr(checks, "ROWS", 10)
    found = moments(features)
    assert found.count == 103
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(features.numpy().T), rtol=1e-10, atol=1e-12)


def test_merged_moments_are_those_of_all_together():
    features = normal(50, 5, source(0)) + 3
    parts = [features[:7], features[7:9], features[9:]]
    whole, merged = moments(features), merge([moments(part) for part in parts])
    assert merged.count == 50
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-12, atol=1e-14)


def test_float32_features_lose_nothing_but_their_own_rounding():
    real, fake = normal(400, 16, source(1)), normal(400, 16, source(2)) * 1.2
    exact = fid(embedded(real), embedded(fake))
    rounded = fid(embedded(real.float()), embedded(fake.float()))
    assert rounded.value == pytest.approx(exact.value, rel=1e-6)
    assert rounded.error == pytest.approx(exact.error, rel=1e-6)


@pytest.mark.parametrize("scales", [torch.ones(24), torch.logspace(0, -2, 24)], ids=["flat", "falling"])
def test_the_closed_form_of_the_bias(scales: Tensor):
    """Both samples are of one Gaussian, so all of the distance is bias."""
    random = source(5)
    found, expected = [], []
    for _ in range(60):
        a, b = (moments(normal(n, 24, random) * scales) for n in (400, 700))
        found.append(frechet_distance(a, b))
        expected.append(bias(a, b))
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.04)


SPECTRUM = torch.logspace(0, -1, 12, dtype=DOUBLE)
SOURCES = {
    "gaussian": lambda random: normal(500, 12, random) * SPECTRUM * 1.4 + 0.1,
    "turned": lambda random: (normal(500, 12, random) * SPECTRUM).flip(1),
    "lognormal": lambda random: lognormal(500, 12, random),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_interval_is_the_spread_over_repetitions(name: str):
    random = source(3)
    real = embedded(normal(2000, 12, random) * SPECTRUM)
    ratio = calibration([fid(real, embedded(SOURCES[name](random))) for _ in range(300)])
    assert 0.85 < ratio < 1.15


def test_the_interval_is_wide_rather_than_narrow_where_all_is_bias():
    random = source(4)
    real = embedded(normal(2000, 12, random) * SPECTRUM)
    ratio = calibration([fid(real, embedded(normal(500, 12, random) * SPECTRUM)) for _ in range(200)])
    assert 1 < ratio < 1.5


def test_a_singular_covariance_is_said_and_has_a_rough_interval():
    random = source(6)
    real = embedded(normal(500, 30, random))
    found = fid(real, embedded(normal(20, 30, random) * 1.5))
    assert found.warnings[0].startswith("20 generated pictures in 30 dimensions (n smaller than the dimension: the cov")
    ratio = calibration([fid(real, embedded(normal(20, 30, random) * 1.5)) for _ in range(60)])
    assert 0.5 < ratio < 2


def test_how_much_of_the_value_is_bias_is_said():
    random = source(7)
    real = embedded(normal(2000, 20, random))
    near = fid(real, embedded(normal(100, 20, random) * 1.2))
    share = near.details["bias_closed_form"] / near.value
    assert 0.2 < share < 1 and near.warnings[0].startswith(f"about {share:.0%} of the value is bias")
    far = fid(real, embedded(normal(500, 20, random) + 3))
    assert far.warnings == ()
    assert {"n_real": 2000, "n_fake": 500, "dimension": 20}.items() <= far.details.items()
    nothing = fid(embedded(normal(500, 20, random)), embedded(normal(500, 20, random)))
    assert nothing.details["bias_closed_form"] == pytest.approx(nothing.value, rel=0.3)


@pytest.mark.parametrize("scale", [1.0, 1.15, 2.0])
def test_the_extrapolated_distance_covers_the_truth(scale: float):
    """The truth: the distance of the generating distribution itself to the reference that is there."""
    random = source(8)
    real = normal(1000, 12, random)
    truth = frechet_distance(moments(real), gaussian(torch.zeros(12), torch.eye(12) * scale**2))
    found = [fid_infinity(embedded(real), embedded(normal(240, 12, random) * scale)) for _ in range(120)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert covered >= 0.9
    error = np.std([each.value for each in found]) / 120**0.5
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=3 * error)
    plain = np.mean([each.details["distances"][0] for each in found])
    assert plain - truth > 10 * error or scale == 2.0, "the plain distance is biased"


def test_the_extrapolation_says_what_it_did():
    random = source(9)
    real, fake = embedded(normal(1000, 12, random)), embedded(normal(600, 12, random) * 1.1)
    found = fid_infinity(real, fake)
    details = found.details
    assert details["sizes"] == [600, 550, 300]
    assert details["distances"][0] == pytest.approx(fid(real, fake).value, rel=1e-9)
    assert details["distances"] == sorted(details["distances"]), "fewer pictures, more bias"
    assert details["line_at_half"] == pytest.approx(details["distances"][2], rel=0.1), "the bias is linear in 1/n"
    both = fid(real, fake).details["bias_closed_form"]
    assert details["bias_of_the_reference"] == pytest.approx(both * 600 / 1600)
    assert found.warnings == ()
    few = fid_infinity(real, fake.take(slice(48)))
    assert few.warnings == ()
    narrow = fid_infinity(embedded(normal(100, 60, random)), embedded(normal(50, 60, random)))
    assert "fewer than 3 pictures a dimension" in narrow.warnings[0]


def test_too_few_pictures():
    two, many = embedded(torch.eye(2)), embedded(normal(60, 2, source(0)))
    with pytest.raises(RequestError, match=r"^generated pictures: 2 are too few; allowed: 3 or more$"):
        fid(many, two)
    with pytest.raises(RequestError, match=r"^generated pictures: 2 are too few; allowed: 48 or more$"):
        fid_infinity(many, two)
    with pytest.raises(RequestError, match=r"^real pictures: 1 are too few; allowed: 2 or more$"):
        fid(two.take(slice(1)), many)
