"""Samplers that remember little, step by step beside those of diffusers, in float64, on one denoiser, grid and noise.

Heun, Euler ancestral, EDM's Euler, KDPM2, the single-step DPM-Solver, iPNDM and the consistency sampler.
"""

import importlib
from collections.abc import Iterator

import pytest
import torch
from test_multistep_peers import DIFFUSION, Wide, agree, differ_in_the_last, draws, every_grid, grid_of, our_steps
from torch import Tensor

from ddm.diffusion import samplers

# Diffusers hands tensors to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

STEPS = [1, 2, 6, 30]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch):
    """Makes a scheduler of diffusers that works in float64, on our levels: its own are rounded to float32."""
    pytest.importorskip("diffusers")

    def make(kind: str, name: str, steps: int, sigmas: Tensor, **settings):
        home = importlib.import_module(f"diffusers.schedulers.scheduling_{kind}")
        monkeypatch.setattr(home, "torch", Wide())
        scheduler = getattr(home, f"{name}Scheduler")(**settings)
        scheduler.set_timesteps(steps)
        scheduler.set_begin_index(0)
        assert len(getattr(scheduler, "sigmas", sigmas)) == len(sigmas)
        scheduler.sigmas = sigmas
        scheduler.is_scale_input_called = True  # it is asked to scale nothing; our denoiser does
        return scheduler

    return make


def slope(x: Tensor, sigma: Tensor) -> Tensor:
    """What a network that predicts the noise would say."""
    return (x - DIFFUSION.denoise(x, sigma)) / sigma


@every_grid
@pytest.mark.parametrize("choice", ["euler_ancestral", "ddim(eta=1)", "ddpm"])
def test_euler_ancestral(peer, choice: str, grid: str, steps: int):
    """Three names of one sampler. The peer draws noise for its step to 0 too, and multiplies it by 0."""
    levels, generator = grid_of(grid, steps), torch.Generator().manual_seed(7)
    scheduler = peer("euler_ancestral_discrete", "EulerAncestralDiscrete", steps, levels)

    def theirs() -> Iterator[Tensor]:
        x = draws(5)() * levels[0]
        for t, sigma in zip(scheduler.timesteps, levels):
            x = scheduler.step(slope(x, sigma), t, x, generator=generator).prev_sample
            yield x

    agree(our_steps(choice, levels), theirs())


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_euler_ancestral_is_ddim_at_any_eta(eta: float):
    levels = grid_of("karras", 12)
    assert all(map(torch.equal, *(our_steps(f"{name}(eta={eta})", levels) for name in ("euler_ancestral", "ddim"))))


@every_grid
@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_edm_euler(peer, grid: str, steps: int, churn: float):
    """Without churn it is ddim. With churn it is what heun's step begins with, and no sampler of ours: isolated here by
    a denoiser that never changes its mind, for which Heun's correction is nothing but rounding."""
    levels, generator = grid_of(grid, steps), torch.Generator().manual_seed(7)
    scheduler, picture = peer("edm_euler", "EDMEuler", steps, levels), draws(3)().tanh()
    denoise = (lambda x, sigma: picture) if churn else DIFFUSION.denoise

    def theirs() -> Iterator[Tensor]:
        x = draws(5)() * levels[0]
        for t, sigma in zip(scheduler.timesteps, levels):
            options = {"s_churn": churn, "s_noise": 1.01, "generator": generator}
            x = scheduler.step(x, t, x, pred_original_sample=denoise(x, sigma), **options).prev_sample
            yield x

    choice = f"heun(churn={churn}, churn_noise=1.01)" if churn else "ddim"
    ours = samplers.bind(choice)(denoise, draws(5)() * levels[0], levels, draws(7))
    agree([step.x for step in ours], theirs())


def pairs(levels: Tensor) -> Tensor:
    """The levels as schedulers with two evaluations a step keep them: all but the first and the last twice."""
    return torch.cat((levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]))


@every_grid
def test_heun(peer, grid: str, steps: int):
    levels = grid_of(grid, steps)
    scheduler = peer("heun_discrete", "HeunDiscrete", steps, pairs(levels), prediction_type="sample")

    def theirs() -> Iterator[Tensor]:
        x = draws(5)() * levels[0]
        asked = [levels[0], *levels[1:-1].repeat_interleave(2)]
        for number, (t, sigma) in enumerate(zip(scheduler.timesteps, asked, strict=True)):
            x = scheduler.step(DIFFUSION.denoise(x, sigma), t, x).prev_sample
            # Two calls a step, but one for the last.
            if number % 2 or number == len(asked) - 1:
                yield x

    agree(our_steps("heun", levels), theirs())


@every_grid
def test_dpm_solver_2_with_half_is_kdpm2(peer, grid: str, steps: int):
    """The peer's step to 0 is ours: of first order."""
    levels = grid_of(grid, steps)
    zero, between = levels[-1:], (levels[:-2] * levels[1:-1]).sqrt()
    scheduler = peer("k_dpm_2_discrete", "KDPM2Discrete", steps, torch.cat((pairs(levels), zero, zero)))
    # On the way to 0 its level between is 0 too, and there it stops.
    scheduler.sigmas_interpol = torch.cat((levels[:1], between.repeat_interleave(2), zero, zero, zero))

    def theirs() -> Iterator[Tensor]:
        x = draws(5)() * levels[0]
        asked = [*torch.stack((levels[:-2], between), 1).flatten(), levels[-2]]
        for number, (t, sigma) in enumerate(zip(scheduler.timesteps, asked, strict=True)):
            x = scheduler.step(slope(x, sigma), t, x).prev_sample
            if number % 2 or number == len(asked) - 1:
                yield x

    agree(our_steps("dpm_solver_2", levels), theirs())


@pytest.mark.filterwarnings("ignore:.*algorithm_types=dpmsolver:FutureWarning")
@every_grid
@pytest.mark.parametrize("r", [0.25, 0.5, 0.8])
def test_dpm_solver_2_is_the_single_step_solver(peer, r: float, grid: str, steps: int):
    """The peer has no step to 0, and takes the points between for levels of its own. Its sample is x / sqrt(1 + s^2)."""
    levels = grid_of(grid, steps)[:-1]
    between = levels[:-1] ** (1 - r) * levels[1:] ** r
    visited = torch.cat((torch.stack((levels[:-1], between), 1).flatten(), levels[-1:]))
    settings = {"algorithm_type": "dpmsolver", "prediction_type": "sample", "final_sigmas_type": "sigma_min"}
    count = len(visited) - 1
    scheduler = peer("dpmsolver_singlestep", "DPMSolverSinglestep", count, visited, solver_order=2, **settings)

    def theirs() -> Iterator[Tensor]:
        x = draws(5)() * levels[0]
        for number, t in enumerate(scheduler.timesteps):
            sigma, following = visited[number], visited[number + 1]
            moved = scheduler.step(DIFFUSION.denoise(x, sigma), t, x / (1 + sigma**2).sqrt())
            x = moved.prev_sample * (1 + following**2).sqrt()
            if number % 2:
                yield x

    agree(our_steps(f"dpm_solver_2(r={r})", levels), theirs())


@every_grid
def test_dpm_solver_2_to_the_very_end_is_heun(grid: str, steps: int):
    levels = grid_of(grid, steps)
    agree(our_steps("dpm_solver_2(r=1)", levels), iter(our_steps("heun", levels)))


@every_grid
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm(peer, order: int, grid: str, steps: int):
    """The peer has levels of its own, kept as alpha and beta of x / sqrt(1 + sigma^2), and ours can take their place;
    its network predicts v. Its order is always 4: here it is made to forget. Its step to 0 keeps the order and ours is
    of order 1, which shows where that step is long."""
    levels = grid_of(grid, steps)
    scheduler = peer("ipndm", "IPNDM", steps, levels)
    scheduler.alphas = 1 / (1 + levels**2).sqrt()
    scheduler.betas = levels * scheduler.alphas

    def theirs() -> Iterator[Tensor]:
        x = draws(5)() * levels[0]
        for number, (t, sigma) in enumerate(zip(scheduler.timesteps, levels)):
            alpha, beta = scheduler.alphas[number], scheduler.betas[number]
            velocity = alpha * slope(x, sigma) - beta * DIFFUSION.denoise(x, sigma)
            scheduler.ets = scheduler.ets[-(order - 1) :] if order > 1 else []
            x = scheduler.step(velocity, t, x * alpha).prev_sample / scheduler.alphas[number + 1]
            yield x

    ours, peers = our_steps(f"ipndm(order={order})", levels), list(theirs())
    if order == 1:
        agree(ours, iter(peers))
    elif grid == "trailing":
        differ_in_the_last(1, ours, iter(peers))
    else:
        agree(ours[:-1], iter(peers[:-1]))


@pytest.mark.parametrize("lowest", [0.0, 0.002, 0.1])
@pytest.mark.parametrize("steps", STEPS)
def test_consistency(peer, lowest: float, steps: int):
    """The peer's network is the identity at ``lowest``, and its picture still holds so much noise; ours is at 0. So its
    level is our sqrt(sigma^2 + lowest^2), and one network serves both."""
    ours = grid_of("karras", steps)
    levels = (ours**2 + lowest**2).sqrt()
    generator = torch.Generator().manual_seed(7)
    settings = {"sigma_min": lowest, "sigma_max": 1e3, "clip_denoised": False}
    scheduler = peer("consistency_models", "CMStochasticIterative", steps, levels, **settings)

    def function(x: Tensor, level: Tensor) -> Tensor:
        return (x / (1 + level)).sin() + 0.1 * x.roll(1, -1) / (1 + level)

    def theirs() -> Iterator[Tensor]:
        x = draws(5)() * ours[0]
        for t, level in zip(scheduler.timesteps, levels):
            skip, out = scheduler.get_scalings_for_boundary_condition(level)
            x = scheduler.step((function(x, level) - skip * x) / out, t, x, generator=generator).prev_sample
            yield x

    denoise = lambda x, sigma: function(x, (sigma**2 + lowest**2).sqrt())
    made = [step.x for step in samplers.bind("consistency")(denoise, draws(5)() * ours[0], ours, draws(7))]
    agree(made, theirs())


@pytest.mark.parametrize("choice", ["ipndm", "dpm_solver_2", "dpm_solver_2(r=1)", "euler_ancestral", "consistency"])
@pytest.mark.parametrize("steps", STEPS)
def test_what_is_evaluated_and_nothing_waits_for_the_device(choice: str, steps: int):
    """A tensor of the meta device has no values: whatever asked for one would raise."""
    levels, asked = grid_of("karras", steps), []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma))
        return x / 2

    x = torch.empty(2, 1, 3, 3, device="meta")
    taken = list(samplers.bind(choice)(denoise, x, levels, lambda: x))
    assert len(taken) == steps and taken[-1].x.dtype == torch.float32
    share = {"dpm_solver_2": 0.5, "dpm_solver_2(r=1)": 1}.get(choice)
    between = [] if share is None else (levels[:-2] ** (1 - share) * levels[1:-1] ** share).tolist()
    assert sorted(asked) == pytest.approx(sorted([*levels[:-1].tolist(), *between]))
    assert len(asked) == (steps if share is None else 2 * steps - 1)
