from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from ddm.metrics import kid as module
from ddm.metrics.kid import kernel_distance, kid
from metrics.samples import calibration, embedded, lognormal, normal, source


def kernel(x: Tensor, y: Tensor) -> float:
    return float((x @ y / len(x) + 1) ** 3)


def test_the_sums_written_out():
    random = source(0)
    x, y = normal(5, 3, random), normal(4, 3, random) + 1
    among_x = np.mean([kernel(x[i], x[j]) for i, j in product(range(5), repeat=2) if i != j])
    among_y = np.mean([kernel(y[i], y[j]) for i, j in product(range(4), repeat=2) if i != j])
    across = np.mean([kernel(x[i], y[j]) for i, j in product(range(5), range(4))])
    assert kid(embedded(x), embedded(y)).value == pytest.approx(among_x + among_y - 2 * across, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_torchmetrics_agrees():
    real, fake = normal(200, 10, source(1)), lognormal(200, 10, source(2))
    peer = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=200).set_dtype(torch.float64)
    peer.update(real, real=True)
    peer.update(fake, real=False)
    assert kid(embedded(real), embedded(fake)).value == pytest.approx(peer.compute()[0].item(), rel=1e-10)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    real, fake = normal(70, 6, source(1)), normal(50, 6, source(2)) + 0.5
    whole = kernel_distance(real, fake)
    monkeypatch.setattr(module, "ROWS", 7)
    assert kernel_distance(real, fake) == pytest.approx(whole, rel=1e-12)


def third_moment(mean: Tensor, covariance: Tensor) -> Tensor:
    """E[x_i x_j x_k] of a Gaussian."""
    mixed = torch.einsum("i,jk->ijk", mean, covariance)
    return torch.einsum("i,j,k->ijk", mean, mean, mean) + mixed + mixed.permute(1, 0, 2) + mixed.permute(2, 1, 0)


def expected_kernel(mean: Tensor, covariance: Tensor, other: Tensor, other_covariance: Tensor) -> float:
    """E[(x.y / d + 1)^3] of independent Gaussians: the moments of one contracted with those of the other."""
    d = len(mean)
    first = mean @ other
    second = ((covariance + torch.outer(mean, mean)) * (other_covariance + torch.outer(other, other))).sum()
    third = (third_moment(mean, covariance) * third_moment(other, other_covariance)).sum()
    return float(1 + 3 * first / d + 3 * second / d**2 + third / d**3)


def test_no_bias_between_gaussians():
    d, random = 4, source(3)
    mean, scale = torch.linspace(0, 1, d, dtype=torch.float64), torch.linspace(1, 2, d, dtype=torch.float64)
    zero, one, wide = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64), torch.diag(scale**2)
    truth = expected_kernel(zero, one, zero, one) + expected_kernel(mean, wide, mean, wide)
    truth -= 2 * expected_kernel(zero, one, mean, wide)
    # Few pictures, where a biased estimate would be far off.
    found = [kernel_distance(normal(20, d, random), normal(20, d, random) * scale + mean)[0] for _ in range(4000)]
    error = np.std(found) / 4000**0.5
    assert np.mean(found) == pytest.approx(truth, abs=3 * error)
    assert error < truth / 20


def test_equal_sets_by_the_known_formula():
    """Without its diagonal, the mean of the kernel among n pictures is (n mean - diagonal) / (n - 1)."""
    features = normal(60, 5, source(4))
    matrix = (features @ features.T / 5 + 1) ** 3
    expected = 2 * (matrix.mean() - matrix.diagonal().mean()).item() / 59
    found = kid(embedded(features), embedded(features.flip(0)))
    assert found.value == pytest.approx(expected, rel=1e-10)
    assert found.value < 0


SOURCES = {
    "the same": lambda random: normal(100, 8, random),
    "shifted": lambda random: normal(100, 8, random) + 0.4,
    "lognormal": lambda random: lognormal(100, 8, random) - 1,
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("n_real", [100, 400])
def test_the_interval_is_the_spread_over_repetitions(name: str, n_real: int):
    random = source(5)
    real = embedded(normal(n_real, 8, random))
    ratio = calibration([kid(real, embedded(SOURCES[name](random))) for _ in range(300)])
    assert 0.85 < ratio < 1.15


def test_at_most_so_many_pictures_of_either_kind():
    real, fake = embedded(normal(40, 4, source(1))), embedded(normal(90, 4, source(2)))
    found = kid(real, fake, pictures=30)
    assert found.value == kid(real.spread(30), fake.spread(30)).value
    assert found.details == {"n_real": 30, "n_fake": 30}


def test_float32_features():
    real, fake = normal(200, 16, source(1)), normal(200, 16, source(2)) + 0.1
    exact, rounded = kid(embedded(real), embedded(fake)), kid(embedded(real.float()), embedded(fake.float()))
    assert rounded.value == pytest.approx(exact.value, rel=1e-5)
