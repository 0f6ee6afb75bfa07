"""Samplers that draw noise on the way: the pictures are distributed as the data are, which only a joint test can see."""

import math

import pytest
import torch
from oracles import Mixture
from torch import Tensor

from ddm.diffusion import make_grid, samplers

SIGMAS = torch.linspace(math.log(0.002), math.log(80), 1000, dtype=torch.float64).exp()
COUNT = 20_000
STEPS = {"ddpm": 600, "ddpm(variance='large')": 600, "ddim(eta=1)": 600, "ddim(eta=0.5)": 600, "euler_ancestral": 600}
STEPS |= {"heun(churn=40)": 120, "heun(churn=40, churn_low=0.1, churn_high=5)": 400, "dpmpp_sde": 120}
"""Of each sampler, so many that its own bias is below a hundredth: more for those of order 1."""


def made(choice: str, denoise, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    draw = lambda: torch.randn(COUNT, *shape, dtype=torch.float64, generator=generator)
    levels = make_grid("karras", SIGMAS, STEPS[choice])
    *_, last = samplers.bind(choice)(denoise, draw() * levels[0], levels, draw)
    return last.x.flatten(1)


@pytest.mark.parametrize("choice", STEPS)
def test_a_correlated_gaussian_comes_out_with_its_covariance(choice: str):
    mean, factor = torch.tensor([0.3, -0.2]).double(), torch.tensor([[0.5, 0.0], [0.35, 0.2]]).double()
    covariance = factor @ factor.T

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(2))
        return (mean + (x.flatten(1) - mean) @ gain.T).reshape(x.shape)

    found = made(choice, denoise, (1, 1, 2))
    # Four standard errors, and a hundredth for the solver's own bias.
    spread = covariance.diag()
    close = lambda a, b, error: bool(((a - b).abs() <= 4 * error / math.sqrt(COUNT) + 0.01 * b.abs()).all())
    assert close(found.mean(0), mean, spread.sqrt())
    assert close(found.T.cov(), covariance, (spread[:, None] * spread + covariance**2).sqrt())


@pytest.mark.parametrize("choice", STEPS)
def test_a_mixture_comes_out_with_its_mean_and_spread_and_share(choice: str):
    oracle = Mixture()
    found = made(choice, oracle.denoise, (1, 1, 1))
    low, high = oracle.centres
    variance = oracle.std**2 + (high - low) ** 2 / 4
    error = 4 / math.sqrt(COUNT)
    assert found.mean().item() == pytest.approx((low + high) / 2, abs=error * math.sqrt(variance))
    assert found.var().item() == pytest.approx(variance, rel=error + 0.01)
    upper = found[found > (low + high) / 2]
    assert len(upper) / COUNT == pytest.approx(0.5, abs=error / 2)
    assert upper.mean().item() == pytest.approx(high, abs=error * math.sqrt(2) * oracle.std + 0.002)
    assert upper.std().item() == pytest.approx(oracle.std, rel=error + 0.02)


def test_churn_draws_at_the_levels_between_its_bounds_and_so_much():
    """Karras et al. 2022, algorithm 2: x at sigma (1 + gamma), gamma = min(S_churn / steps, sqrt(2) - 1)."""
    grid = make_grid("karras", SIGMAS, 20)
    for low, high, churn in ((0.0, math.inf, 4), (0.1, 5, 4), (0.1, 5, 40), (5, 0.1, 4)):
        asked = []

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            asked.append(float(sigma))  # noqa: B023
            return x / 2

        choice = f"heun(churn={churn}, churn_low={low}" + (f", churn_high={high})" if high < math.inf else ")")
        list(samplers.bind(choice)(denoise, torch.ones(1, 1, 1, 1).double(), grid, lambda: torch.ones(1, 1, 1, 1)))
        gamma = min(churn / 20, math.sqrt(2) - 1)
        expected = [sigma * (1 + gamma) if low <= sigma <= high else sigma for sigma in grid[:-1].tolist()]
        assert asked[::2] == pytest.approx(expected, rel=1e-12)
