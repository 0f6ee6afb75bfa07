"""What is learned, where the answer is known: Gaussian pixels of standard deviation S and a network that scales them."""

import pytest
import torch
from torch import Tensor, nn

from ddm.diffusion import GaussianDiffusion, tasks
from ddm.diffusion.tasks import partly_even, stage_at

S = 0.5
LEVELS = 64


class Gain(nn.Module):
    """A factor for every timestep, between them interpolated: the best answer for Gaussian pixels is one."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((LEVELS,), 0.5, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        below = t.long().clamp(0, LEVELS - 2)
        return torch.lerp(self.gain[below], self.gain[below + 1], (t - below).to(x.dtype))[:, None, None, None] * x


def diffusion(task: str, network: nn.Module | None = None) -> GaussianDiffusion:
    return GaussianDiffusion(
        network or Gain(),
        timesteps=LEVELS,
        schedule="lognormal(mean=-0.4, std=1.4)",
        objective="edm",
        weighting="edm_lambda",
        task=task,
    )


def learned(task: str, steps: int = 1500, batch: int = 1024) -> tuple[Tensor, Tensor]:
    """Sigmas from 0.05 to 20 and the factor by which each noisy pixel is multiplied after a training."""
    torch.manual_seed(0)
    model = diffusion(task)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for step in range(steps):
        x0 = S * torch.randn(batch, 1, 1, 1, dtype=torch.float64)
        uniform = (torch.arange(batch, dtype=torch.float64) + torch.rand(batch, dtype=torch.float64)) / batch
        loss = model.loss(x0, position=model.position(uniform), noise=torch.randn_like(x0), share=step / steps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    sigma = torch.logspace(-1.3, 1.3, 14, dtype=torch.float64)
    with torch.no_grad():
        return sigma, model.denoise(torch.ones(14, 1, 1, 1, dtype=torch.float64), sigma).flatten()


def test_denoising_learns_the_mean_of_what_may_be_behind():
    sigma, factor = learned("denoising")
    torch.testing.assert_close(factor, S**2 / (S**2 + sigma**2), atol=0.02, rtol=0)


def test_consistency_learns_the_end_of_the_flow():
    sigma, factor = learned("consistency(stages=5)", steps=2500)
    end, mean = S / (S**2 + sigma**2).sqrt(), S**2 / (S**2 + sigma**2)
    torch.testing.assert_close(factor, end, atol=0.04, rtol=0)
    assert (end - mean).max() > 0.2, "which is something else"


@pytest.mark.parametrize("stage", [1, 4])
def test_the_target_is_the_guess_at_the_lower_level(stage: int):
    """By hand, for a picture and a level: the same noise, no gradient through the target, error over the step."""
    torch.manual_seed(1)
    model = diffusion("consistency(stages=4, even=0.0, near=2.0, factor=3.0)", nn_seeded())
    x0, noise = torch.randn(6, 1, 2, 2, dtype=torch.float64), torch.randn(6, 1, 2, 2, dtype=torch.float64)
    position = torch.linspace(20, 60, 6, dtype=torch.float64)
    share = (stage - 0.5) / 4
    sigma = model.sigma_at(position)
    lower = (sigma * (1 - (1 + 2 / (1 + sigma.exp())) / 3**stage)).clamp(min=0)
    assert (lower > 0).any()
    every = [sigma[:, None, None, None], lower[:, None, None, None]]
    guess = model.denoise(x0 + every[0] * noise, sigma)
    target = torch.where(every[1] > 0, model.denoise(x0 + every[1] * noise, lower), x0).detach()
    expected = (guess - target).square().mean((1, 2, 3)).sqrt() / (sigma - lower)
    actual = model.loss(x0, position=position, noise=noise, share=share)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    (by_hand,) = torch.autograd.grad(expected.sum(), model.model.gain)
    (found,) = torch.autograd.grad(actual.sum(), model.model.gain)
    torch.testing.assert_close(found, 2 * by_hand, rtol=1e-8, atol=1e-10)


def nn_seeded() -> Gain:
    network = Gain()
    with torch.no_grad():
        network.gain.copy_(torch.rand(LEVELS, dtype=torch.float64))
    return network


def test_a_perfect_guess_has_a_gradient():
    model = diffusion("consistency(even=0.0)")
    zeros = torch.zeros(4, 1, 1, 1, dtype=torch.float64)
    loss = model.loss(zeros, noise=zeros, position=torch.full((4,), 30.0, dtype=torch.float64))
    loss.sum().backward()
    assert model.model.gain.grad.isfinite().all()


def test_stages_take_equal_parts():
    assert [stage_at(step / 12, 4) for step in range(13)] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4]


@pytest.mark.parametrize("even", [0.0, 0.3, 1.0])
def test_a_share_of_the_levels_is_spread_evenly(even: float):
    model = diffusion("denoising")
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    log_sigma = model.sigma_at(partly_even(model, model.position(uniform), even)).log()
    plain = model.sigma_at(model.position(uniform)).log()
    low, high = model.sigmas[0].log(), model.sigmas[-1].log()
    for at in torch.linspace(0.1, 0.9, 9, dtype=torch.float64):
        level = low + at * (high - low)
        expected = even * at + (1 - even) * (plain < level).double().mean()
        assert ((log_sigma < level).double().mean() - expected).abs() < 2e-3


def test_what_there_is():
    assert set(tasks) == {"denoising", "consistency"}
