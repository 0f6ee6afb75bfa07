import pytest
import torch
from torch import Tensor

from ddm.diffusion import GaussianDiffusion, objectives, schedules, weightings

SIGMAS = torch.logspace(-3, 3, 50, dtype=torch.float64)

# What each paper says the network's target is, written in its own variance-preserving (or straight-path) coordinates.
TEXTBOOK = {
    "eps": lambda x0, noise, sigma: noise,
    "x0": lambda x0, noise, sigma: x0,
    "v": lambda x0, noise, sigma: noise / (1 + sigma**2).sqrt() - x0 * sigma / (1 + sigma**2).sqrt(),
    "velocity": lambda x0, noise, sigma: noise - x0,
    "edm": lambda x0, noise, sigma: (
        (x0 - 0.25 / (sigma**2 + 0.25) * (x0 + sigma * noise)) / (sigma * 0.5 / (sigma**2 + 0.25).sqrt())
    ),
}


class Recorder(torch.nn.Module):
    """A network that answers zero and remembers what it was asked."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.x, self.t = x, t
        return torch.zeros_like(x)


@pytest.mark.parametrize("schedule", schedules)
@pytest.mark.parametrize("objective", objectives)
def test_loss_target_is_the_textbook_one(schedule: str, objective: str):
    diffusion = GaussianDiffusion(Recorder(), schedule=schedule, objective=objective)
    x0, noise = torch.randn(2, 16, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    position = torch.linspace(0, 999, 16, dtype=torch.float64).round()
    sigma = diffusion.sigma_at(position).reshape(-1, 1, 1, 1)
    # The network answers zero, so the loss of one pixel is the target squared.
    expected = TEXTBOOK[objective](x0, noise, sigma).flatten().square()
    torch.testing.assert_close(diffusion.loss(x0, position=position, noise=noise), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("objective", objectives)
def test_a_perfect_network_gives_back_x0(objective: str):
    x0, noise = torch.randn(2, 50, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sigma = SIGMAS.reshape(-1, 1, 1, 1)
    scales = objectives.bind(objective)(sigma)
    guess = scales.skip * (x0 + sigma * noise) + scales.out * TEXTBOOK[objective](x0, noise, sigma)
    torch.testing.assert_close(guess, x0, rtol=1e-9, atol=1e-9)


def test_network_inputs_have_unit_variance():
    assert torch.allclose(objectives.bind("edm")(SIGMAS).in_ ** 2 * (SIGMAS**2 + 0.25), torch.ones(50).double())
    assert torch.allclose(objectives.bind("eps")(SIGMAS).in_ ** 2 * (SIGMAS**2 + 1), torch.ones(50).double())


def test_edm_weight_is_exactly_one_with_the_edm_objective():
    out = objectives.bind("edm")(SIGMAS).out
    torch.testing.assert_close(weightings.bind("edm_lambda")(SIGMAS, out), torch.ones_like(out), rtol=1e-14, atol=0)


SNR = SIGMAS**-2
MIN_SNR = {"eps": SNR.clamp(max=5) / SNR, "x0": SNR.clamp(max=5), "v": SNR.clamp(max=5) / (SNR + 1)}
PLAIN_SNR = {"eps": torch.ones_like(SNR), "x0": SNR, "v": SNR / (SNR + 1)}


@pytest.mark.parametrize("objective", MIN_SNR)
def test_min_snr_is_the_published_formula_of_each_objective(objective: str):
    out = objectives.bind(objective)(SIGMAS).out
    torch.testing.assert_close(weightings.bind("min_snr")(SIGMAS, out), MIN_SNR[objective], rtol=1e-12, atol=0)
    torch.testing.assert_close(weightings.bind("snr")(SIGMAS, out), PLAIN_SNR[objective], rtol=1e-12, atol=0)


@pytest.mark.parametrize("weighting", ["snr", "min_snr", "edm_lambda"])
def test_a_weight_means_the_same_for_every_objective(weighting: str):
    """The weighted error of x0 may not depend on what the network predicts."""
    x0_error = {
        name: weightings.bind(weighting)(SIGMAS, objectives.bind(name)(SIGMAS).out)
        / objectives.bind(name)(SIGMAS).out ** 2
        for name in objectives
    }
    for values in x0_error.values():
        torch.testing.assert_close(values, x0_error["x0"], rtol=1e-9, atol=0)


def test_noise_is_added_in_float32_whatever_the_precision_of_the_network():
    recorder = Recorder()
    diffusion = GaussianDiffusion(recorder, schedule="linear")
    x0, noise = torch.randn(2, 4, 3, 8, 8)
    position = torch.zeros(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = diffusion.loss(x0, position=position, noise=noise)
    sigma = diffusion.sigmas[0].float()
    assert recorder.x.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(recorder.x, (x0 + sigma * noise) / (1 + sigma**2).sqrt(), rtol=1e-6, atol=1e-6)


def test_draws_cover_the_schedule_by_default():
    recorder = Recorder()
    diffusion = GaussianDiffusion(recorder, timesteps=4, schedule="cosine")
    torch.manual_seed(0)
    losses = diffusion.loss(torch.zeros(4000, 1, 1, 1))
    assert losses.shape == (4000,)
    assert torch.bincount(recorder.t.long(), minlength=4).float().div(4000).sub(0.25).abs().max() < 0.03
    assert losses.mean().item() == pytest.approx(1.0, abs=0.1)
