"""The loss is the public package's: its objectives, schedules and weights at given timesteps and noise."""

from typing import Any

import pytest
import torch

import peers
from ddm.diffusion import GaussianDiffusion
from ddm.networks.unet import Unet

OBJECTIVES = {"eps": "pred_noise", "x0": "pred_x0", "v": "pred_v"}
WEIGHTINGS = {"snr": False, "min_snr(gamma=5)": True}
SCHEDULES = ("linear", "cosine", "sigmoid")
TIMESTEPS = torch.tensor([0, 1, 10, 250, 600, 998, 999])


def models(objective: str, schedule: str, weighting: str, timesteps: int = 1000) -> tuple[GaussianDiffusion, Any]:
    """Ours and theirs with the same weights."""
    torch.manual_seed(0)
    peer = peers.denoising_diffusion()
    theirs = peer.GaussianDiffusion(
        peer.Unet(8, dim_mults=(1, 2)),
        image_size=8,
        timesteps=timesteps,
        objective=OBJECTIVES[objective],
        beta_schedule=schedule,
        auto_normalize=False,
        min_snr_loss_weight=WEIGHTINGS[weighting],
    )
    network = Unet(8, (1, 2))
    network.load_state_dict(peers.from_peer(theirs.model.state_dict(), network.state_dict()))
    ours = GaussianDiffusion(network, timesteps=timesteps, objective=objective, schedule=schedule, weighting=weighting)
    return ours, theirs


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@peers.float64()
def test_loss_and_gradients_are_the_peers(objective: str, schedule: str, weighting: str):
    ours, theirs = models(objective, schedule, weighting)
    x0 = torch.rand(len(TIMESTEPS), 3, 8, 8) * 2 - 1
    noise = torch.randn_like(x0)
    actual = ours.loss(x0, position=TIMESTEPS.to(x0.dtype), noise=noise)
    each = theirs.p_losses(x0, TIMESTEPS, noise=noise, loss_reduction="none")
    mean = theirs.p_losses(x0, TIMESTEPS, noise=noise)
    torch.testing.assert_close(actual, each, rtol=1e-5, atol=0)
    torch.testing.assert_close(actual.mean(), mean, rtol=1e-5, atol=0)

    actual.mean().backward()
    mean.backward()
    gradients = peers.gradients(ours.model)
    expected = peers.from_peer(peers.gradients(theirs.model), ours.model.state_dict())
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert (gradient - expected[name]).abs().max() <= 1e-5 * expected[name].abs().max(), name


@pytest.mark.parametrize("timesteps", [100, 1000])
@pytest.mark.parametrize("schedule", SCHEDULES)
@peers.float64()
def test_schedules_are_the_peers(schedule: str, timesteps: int):
    ours, theirs = models("eps", schedule, "snr", timesteps)
    assert ours.sigmas.shape == (timesteps,)
    assert ours.sigmas.dtype == torch.float64
    # Theirs are rounded to float32 (6e-8) once they are made; without peers.float64() the ends of their sigmoid are
    # rounded before, and the last level is wrong by 3e-5.
    alphas_cumprod = 1 / (1 + ours.sigmas**2)
    torch.testing.assert_close(alphas_cumprod, theirs.alphas_cumprod.double(), rtol=2e-7, atol=0)
    torch.testing.assert_close(ours.sigmas, theirs.sqrt_recipm1_alphas_cumprod.double(), rtol=2e-7, atol=0)
