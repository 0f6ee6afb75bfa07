"""The multistep samplers, step by step beside those of diffusers, in float64, on one denoiser, grid and noise."""

import importlib
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from oracles import Mixture
from torch import Tensor

from ddm.diffusion import GaussianDiffusion, make_grid, samplers

# Diffusers hands tensors to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

STEPS = [6, 14, 15, 30]
"""Fewer than 15 steps and more: diffusers lowers the order of the last ones only below 15."""


class Made(torch.nn.Module):
    """A smooth made-up network."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.9 * torch.sin(x) + 0.2 * torch.cos(t / 300).reshape(-1, 1, 1, 1) * x.roll(1, -1)


DIFFUSION = GaussianDiffusion(Made(), schedule="linear", objective="v")
GRIDS = ["trailing", "karras", "log_snr(low=0.05)"]


def grid_of(choice: str, steps: int) -> Tensor:
    return make_grid(choice, DIFFUSION.sigmas, steps)


def draws(seed: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=generator)


def our_steps(choice: str, grid: Tensor, noise: Callable[[], Tensor] | None = None) -> list[Tensor]:
    start = draws(5)() * grid[0]
    return [step.x for step in samplers.bind(choice)(DIFFUSION.denoise, start, grid, noise or draws(7))]


class Wide:
    """The torch that a scheduler sees: with it the peer's casts to float32 keep all their digits."""

    float32 = torch.float64

    def __getattr__(self, name: str):
        return getattr(torch, name)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch):
    """Makes a scheduler of diffusers that works in float64; it is asked to keep its order up to the end."""
    pytest.importorskip("diffusers")
    names = {"dpmsolver": "DPMSolver", "edm_dpmsolver": "EDMDPMSolver", "unipc": "UniPC", "deis": "DEIS"}

    def make(kind: str, **settings):
        home = importlib.import_module(f"diffusers.schedulers.scheduling_{kind}_multistep")
        monkeypatch.setattr(home, "torch", Wide())
        return getattr(home, f"{names[kind]}MultistepScheduler")(**{"lower_order_final": False, **settings})

    return make


def their_steps(scheduler, grid: Tensor, extra: Callable[[], dict] = dict) -> Iterator[Tensor]:
    """The peer on our grid: it takes every number from its sigmas, which it has rounded to float32 and we replace. Its
    sample is x / sqrt(1 + sigma^2)."""
    scheduler.set_timesteps(len(grid) - 1)
    scheduler.set_begin_index(0)
    scheduler.sigmas = grid
    x = draws(5)() * grid[0]
    for t, sigma, following in zip(scheduler.timesteps, grid[:-1], grid[1:]):
        x0 = DIFFUSION.denoise(x, sigma)
        moved = scheduler.step(x0, t, x / (1 + sigma**2).sqrt(), **extra())
        x = moved.prev_sample * (1 + following**2).sqrt()
        yield x


def differences(ours: list[Tensor], theirs: Iterator[Tensor]) -> list[float]:
    """The largest difference at every step, relative to the largest pixel."""
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)]


def agree(ours: list[Tensor], theirs: Iterator[Tensor]) -> None:
    differ_in_the_last(0, ours, theirs)


def differ_in_the_last(count: int, ours: list[Tensor], theirs: Iterator[Tensor]) -> None:
    found = differences(ours, theirs)
    first = len(found) - count
    # Not by max and min, which may pass over what is not a number.
    assert all(each < 1e-10 for each in found[:first]), found
    assert all(each > 1e-4 for each in found[first:]), found


every_grid = pytest.mark.parametrize("grid, steps", list(itertools.product(GRIDS, STEPS)))
every_count = pytest.mark.parametrize("steps", STEPS)
dpmpp = pytest.mark.parametrize("choice, order", [("dpmpp_2m", 2), ("dpmpp_3m(curvature=0.5)", 3)])
orders = pytest.mark.parametrize("order", [1, 2, 3])
variants = pytest.mark.parametrize("variant", ["bh1", "bh2"])


@every_grid
@dpmpp
def test_dpmpp(peer, choice: str, order: int, grid: str, steps: int):
    levels = grid_of(grid, steps)
    agree(
        our_steps(choice, levels), their_steps(peer("dpmsolver", prediction_type="sample", solver_order=order), levels)
    )


@every_count
@dpmpp
def test_dpmpp_by_default_lowers_the_last_but_one_of_few_steps(peer, choice: str, order: int, steps: int):
    levels = grid_of("karras", steps)
    scheduler = peer("dpmsolver", prediction_type="sample", solver_order=order, lower_order_final=True)
    # Our last step starts from what the one before it made: where that differs it does too.
    differing = 2 if order == 3 and steps < 15 else 0
    differ_in_the_last(differing, our_steps(choice, levels), their_steps(scheduler, levels))


@every_grid
def test_dpmpp_3m_is_the_predictor_of_unipc(peer, grid: str, steps: int):
    """With the whole quadratic term it is nobody's 3M, but it is UniP-3, i.e. UniPC without its corrector."""
    levels = grid_of(grid, steps)[:-1]
    scheduler = peer("unipc", prediction_type="sample", solver_order=3, disable_corrector=list(range(steps)))
    agree(our_steps("dpmpp_3m", levels), their_steps(scheduler, levels))


@every_grid
@pytest.mark.parametrize("choice, order", [("ddpm", 1), ("dpmpp_sde", 2)])
def test_dpmpp_sde(peer, choice: str, order: int, grid: str, steps: int):
    """The peer's step to sigma 0 is given noise too, and multiplies it by 0."""
    levels, noise = grid_of(grid, steps), draws(7)
    scheduler = peer("dpmsolver", prediction_type="sample", solver_order=order, algorithm_type="sde-dpmsolver++")
    agree(our_steps(choice, levels), their_steps(scheduler, levels, lambda: {"variance_noise": noise()}))


@every_count
@pytest.mark.parametrize("choice, order", [("dpmpp_2m", 2), ("dpmpp_3m(curvature=0.5)", 3), ("dpmpp_sde", 2)])
def test_the_edm_solver(peer, choice: str, order: int, steps: int):
    """The peer in the coordinates of EDM, which are ours; it asks for a network's output, so x0 is turned into one."""
    kind = "sde-dpmsolver++" if choice == "dpmpp_sde" else "dpmsolver++"
    scheduler = peer("edm_dpmsolver", solver_order=order, algorithm_type=kind)
    levels, generator = grid_of("karras", steps), torch.Generator().manual_seed(7)

    def theirs() -> Iterator[Tensor]:
        scheduler.set_timesteps(steps)
        scheduler.set_begin_index(0)
        scheduler.sigmas = levels
        x = draws(5)() * levels[0]
        for t, sigma in zip(scheduler.timesteps, levels):
            total = sigma**2 + 0.5**2
            output = (DIFFUSION.denoise(x, sigma) - 0.5**2 / total * x) / (sigma * 0.5 / total.sqrt())
            x = scheduler.step(output, t, x, generator=generator).prev_sample
            yield x

    agree(our_steps(choice, levels), theirs())


@every_grid
@variants
@orders
def test_unipc(peer, order: int, variant: str, grid: str, steps: int):
    """With the order kept up to the end the peer has no step to 0."""
    levels = grid_of(grid, steps)[:-1]
    scheduler = peer("unipc", prediction_type="sample", solver_order=order, solver_type=variant)
    agree(our_steps(f"unipc(order={order}, variant={variant!r})", levels), their_steps(scheduler, levels))


@every_count
@variants
@orders
def test_unipc_by_default_lowers_the_last_but_one_step(peer, order: int, variant: str, steps: int):
    levels = grid_of("karras", steps)
    scheduler = peer("unipc", prediction_type="sample", solver_order=order, solver_type=variant, lower_order_final=True)
    ours = our_steps(f"unipc(order={order}, variant={variant!r})", levels)
    theirs = list(their_steps(scheduler, levels))
    # With bh1 its step to 0 multiplies infinity by 0; that ours is right is tested below.
    usable = steps - 1 if variant == "bh1" else steps
    differ_in_the_last(usable - (steps - 2) if order == 3 else 0, ours[:usable], iter(theirs[:usable]))


@every_grid
@orders
def test_deis(peer, order: int, grid: str, steps: int):
    """The peer has no step to 0."""
    levels = grid_of(grid, steps)[:-1]
    agree(
        our_steps(f"deis(order={order})", levels),
        their_steps(peer("deis", prediction_type="sample", solver_order=order), levels),
    )


@every_count
@orders
def test_deis_by_default_lowers_the_last_two_of_few_steps(peer, order: int, steps: int):
    levels = grid_of("karras", steps + 1)[:-1]
    scheduler = peer("deis", prediction_type="sample", solver_order=order, lower_order_final=True)
    differing = order - 1 if steps < 15 else 0
    differ_in_the_last(differing, our_steps(f"deis(order={order})", levels), their_steps(scheduler, levels))


@every_grid
@pytest.mark.parametrize("choice", ["dpmpp_2m", "dpmpp_3m", "unipc", "unipc(variant='bh1')", "deis"])
def test_the_step_to_zero_ends_at_x0_and_changes_none_before_it(choice: str, grid: str, steps: int):
    levels = grid_of(grid, steps)
    ours = our_steps(choice, levels)
    torch.testing.assert_close(ours[:-1], our_steps(choice, levels[:-1]), rtol=0, atol=0)
    torch.testing.assert_close(ours[-1], DIFFUSION.denoise(ours[-2], levels[-2]), rtol=0, atol=0)


def quantiles(mixture: Mixture, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The probability flow of the mixture, exactly: in one dimension it keeps every number's quantile."""

    def tails(at: Tensor, sigma: Tensor) -> Tensor:
        """Below and above; the smaller of the two has all its digits."""
        spread = (mixture.std**2 + sigma**2).sqrt()
        parts = torch.stack([(at - centre) / spread for centre in mixture.centres])
        return torch.stack((torch.special.ndtr(parts).mean(0), torch.special.ndtr(-parts).mean(0)))

    wanted = tails(x, start)
    low, high = torch.full_like(x, -9.0), torch.full_like(x, 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        found = tails(middle, end)
        below = torch.where(wanted[0] < 0.5, found[0] < wanted[0], found[1] > wanted[1])
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("choice, tolerance", [("unipc", 1e-10), ("deis", 1e-8), ("dpmpp_3m", 1e-8)])
def test_fine_grids_come_to_the_exact_flow_of_a_mixture(choice: str, tolerance: float):
    levels = torch.linspace(10**0.25, 0.05**0.25, 4097, dtype=torch.float64) ** 4
    x = torch.randn(200, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
    *_, last = samplers.bind(choice)(Mixture().denoise, x, levels, lambda: x)
    torch.testing.assert_close(last.x, quantiles(Mixture(), x, levels[0], levels[-1]), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("choice", ["dpmpp_2m", "dpmpp_3m", "dpmpp_sde", "unipc", "deis"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_one_evaluation_a_step_and_nothing_waits_for_the_device(choice: str, steps: int):
    """A tensor of the meta device has no values: whatever asked for one would raise."""
    asked = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma))
        return x / 2

    levels = grid_of("karras", steps)
    x = torch.empty(2, 1, 3, 3, device="meta")
    taken = list(samplers.bind(choice)(denoise, x, levels, lambda: x))
    assert asked == levels[:-1].tolist() and len(taken) == steps
    assert taken[-1].x.dtype == torch.float32
