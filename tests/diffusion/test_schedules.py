import pytest
import torch

from ddm.diffusion import GaussianDiffusion, schedules
from ddm.diffusion.schedules import CONTINUOUS
from ddm.errors import RequestError


@pytest.mark.parametrize("name", schedules)
@pytest.mark.parametrize("timesteps", [2, 10, 1000])
def test_levels_ascend_and_are_finite(name: str, timesteps: int):
    sigmas = schedules.bind(name)(timesteps)
    assert sigmas.shape == (timesteps,)
    assert sigmas.dtype == torch.float64
    assert sigmas.isfinite().all()
    assert sigmas[0] > 0
    assert (sigmas.diff() > 0).all()


def test_linear_is_ho_et_al():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas_cumprod = (1 - betas).cumprod(0)
    torch.testing.assert_close(1 / (1 + schedules.bind("linear")(1000) ** 2), alphas_cumprod, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("name", "terminal"), [("linear", 4.0e-5), ("cosine", 2.4e-9), ("sigmoid", 3.0e-7)])
def test_terminal_signal_is_the_published_one(name: str, terminal: float):
    assert float(1 / (1 + schedules.bind(name)(1000)[-1] ** 2)) == pytest.approx(terminal, rel=0.03)


def test_lognormal_levels_have_the_distribution_they_are_named_for():
    logs = schedules.bind("lognormal(mean=-0.8, std=1.6)")(20_000).log()
    assert logs.mean().item() == pytest.approx(-0.8, abs=0.02)
    assert logs.std().item() == pytest.approx(1.6, rel=0.02)
    ends = schedules.bind("lognormal")(1000)[[0, -1]]
    torch.testing.assert_close(ends, torch.tensor([0.002, 80.0], dtype=torch.float64), rtol=1e-6, atol=0)


def test_flow_is_a_straight_path():
    sigmas = schedules.bind("flow")(1000)
    torch.testing.assert_close(sigmas / (1 + sigmas), (torch.arange(1000) + 0.5).double() / 1000)


@pytest.mark.parametrize("name", schedules)
def test_timestep_inverts_sigma(name: str):
    diffusion = GaussianDiffusion(torch.nn.Identity(), timesteps=1000, schedule=name)
    positions = diffusion.position(torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert positions.min() >= 0
    assert positions.max() <= 999
    torch.testing.assert_close(diffusion.timestep(diffusion.sigma_at(positions)), positions, rtol=1e-7, atol=1e-7)
    whole = bool((positions == positions.round()).all())
    assert whole is not (schedules[name] in CONTINUOUS)


def test_timestep_is_clamped_to_the_schedule():
    diffusion = GaussianDiffusion(torch.nn.Identity(), schedule="lognormal")
    ends = diffusion.timestep(torch.tensor([1e-9, 1e9], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 999.0], dtype=torch.float64))


def test_unknown_schedule_names_the_allowed():
    with pytest.raises(RequestError, match="'cosin' is unknown .did you mean 'cosine'.*linear"):
        GaussianDiffusion(torch.nn.Identity(), schedule="cosin")
    with pytest.raises(RequestError, match="timesteps: 1 is not allowed"):
        GaussianDiffusion(torch.nn.Identity(), timesteps=1)
