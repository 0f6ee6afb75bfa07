import math
from collections.abc import Iterable

import pytest
import torch
from oracles import Gaussian, Mixture
from torch import Tensor

from ddm.diffusion import GaussianDiffusion, grids, make_grid, samplers
from ddm.errors import RequestError
from ddm.seeding import PictureNoise

SIGMAS = torch.linspace(math.log(0.002), math.log(80), 1000, dtype=torch.float64).exp()
ORDER = {
    "ddim": 1,
    "heun": 2,
    "dpm_solver_2": 2,
    "dpmpp_2m": 2,
    "dpmpp_3m": 3,
    "dpmpp_3m(curvature=0.5)": 2,  # public code halves the term that makes it order 3
    "unipc(order=1)": 2,
    "unipc(order=2)": 3,
    "unipc(order=3)": 4,
    "unipc(order=1, variant='bh1')": 2,
    "unipc(order=2, variant='bh1')": 3,
    "deis(order=1)": 1,
    "deis(order=2)": 2,
    "deis(order=3)": 3,
    "ipndm(order=1)": 1,
    "ipndm(order=2)": 2,
    "ipndm(order=3)": 2,  # its coefficients take all steps for equally long; on a grid even in sigma it is 3
    "ipndm(order=4)": 2,
}
"""Deterministic samplers and their published order of convergence. Multistep ones begin with lower orders, where sigma
is so high that x0 hardly moves; tests of single samplers look closer."""
STOCHASTIC = ["ddpm", "ddpm(variance='large')", "ddim(eta=1)", "ddim(eta=0.5)", "heun(churn=40)", "euler_ancestral"]
STOCHASTIC += ["dpmpp_sde"]
ELSEWHERE = ["adaptive", "consistency"]
"""Tested beside their own files: they have no fixed step, or need a network trained for them."""


def known(choices: Iterable[str]) -> list[str]:
    return [choice for choice in choices if choice.partition("(")[0] in samplers]


def test_every_sampler_is_in_one_of_the_lists():
    assert {choice.partition("(")[0] for choice in (*ORDER, *STOCHASTIC, *ELSEWHERE)} >= set(samplers)


def run(choice: str, denoise, x: Tensor, grid: Tensor, noise=None) -> Tensor:
    *_, last = samplers.bind(choice)(denoise, x, grid, noise or (lambda: torch.randn_like(x)))
    return last.x


@pytest.mark.parametrize("oracle", [Gaussian(), Mixture()])
@pytest.mark.parametrize("name", known(ORDER))
def test_order_of_convergence_is_the_published_one(name: str, oracle: Gaussian | Mixture):
    x = torch.randn(200, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10

    def solve(steps: int, choice: str = name) -> Tensor:
        # Stops at sigma 0.05: the last step, to 0, is of first order in every solver and would hide the others.
        levels = torch.linspace(10**0.25, 0.05**0.25, steps + 1, dtype=torch.float64) ** 4
        return run(choice, oracle.denoise, x, levels)

    # Heun's error at 8192 steps would hide that of order 4; test_multistep_peers.py holds this to the exact flow.
    exact = solve(4096, "unipc(order=3)")
    if isinstance(oracle, Gaussian):
        closed = oracle.flow(x, *torch.tensor([10, 0.05], dtype=torch.float64))
        torch.testing.assert_close(exact, closed, rtol=1e-10, atol=1e-10)
    # From 64 steps on the order 4 of UniPC-3 is still 3.7: its first steps are of lower order, and long.
    counts = torch.tensor([128, 256, 512, 1024], dtype=torch.float64)
    errors = torch.tensor([float((solve(int(n)) - exact).abs().mean()) for n in counts], dtype=torch.float64)
    slope = -torch.linalg.lstsq(torch.stack((counts.log(), torch.ones(4).double()), 1), errors.log()).solution[0]
    assert float(slope) == pytest.approx(ORDER[name], abs=0.25), errors


@pytest.mark.parametrize("choice", known([*STOCHASTIC, *ORDER]))
def test_gaussian_data_come_out_with_their_mean_and_spread(choice: str):
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(20_000, 1, 1, 1, dtype=torch.float64, generator=generator)
    oracle = Gaussian()
    grid = make_grid("karras", SIGMAS, 200)
    pictures = run(choice, oracle.denoise, draw() * grid[0], grid, draw)
    # 20,000 draws: four standard errors of the mean and of the deviation, and the solver's own small bias.
    assert pictures.mean().item() == pytest.approx(oracle.mean, abs=4 * oracle.std / math.sqrt(20_000))
    assert pictures.std().item() == pytest.approx(oracle.std, rel=4 / math.sqrt(40_000) + 0.02)


@pytest.mark.parametrize("choice", known([*STOCHASTIC, *ORDER, *ELSEWHERE]))
def test_no_noise_is_left_at_the_end(choice: str):
    """With a denoiser that always answers the same picture, that picture is the end."""
    picture = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    grid = make_grid("karras", SIGMAS, 7)
    end = run(choice, lambda x, sigma: picture, torch.randn_like(picture) * 80, grid)
    torch.testing.assert_close(end, picture, rtol=0, atol=1e-14)


class Wavy(torch.nn.Module):
    """A smooth made-up network: any function will do where two samplers must agree on it."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.9 * torch.sin(x) + 0.2 * torch.cos(t / 300).reshape(-1, 1, 1, 1) * x.roll(1, -1)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [10, 50, 1000])
@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_ddim_is_that_of_diffusers(schedule: str, steps: int, eta: float):
    diffusers = pytest.importorskip("diffusers")
    diffusion = GaussianDiffusion(Wavy(), schedule=schedule, objective="eps")
    peer = diffusers.DDIMScheduler(1000, clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True)
    ours, theirs = run_both(
        diffusion, peer, f"ddim(eta={eta})", steps, lambda noise: {"eta": eta, "variance_noise": noise}
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [50, 1000])
def test_ddpm_is_that_of_diffusers(schedule: str, variance: str, steps: int):
    diffusers = pytest.importorskip("diffusers")
    diffusion = GaussianDiffusion(Wavy(), schedule=schedule, objective="eps")
    peer = diffusers.DDPMScheduler(
        1000, clip_sample=False, timestep_spacing="trailing", variance_type=f"fixed_{variance}"
    )
    generator = torch.Generator().manual_seed(7)
    ours, theirs = run_both(diffusion, peer, f"ddpm(variance={variance!r})", steps, lambda _: {"generator": generator})
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def run_both(diffusion: GaussianDiffusion, peer, choice: str, steps: int, extra) -> tuple[Tensor, Tensor]:
    """Final pictures of our sampler and of a diffusers scheduler, from one start and one stream of noise, in float64."""
    # The peer rounds its levels to float32; with ours it is compared on the same grid.
    peer.alphas_cumprod = 1 / (1 + diffusion.sigmas**2)
    peer.alphas = peer.alphas_cumprod / torch.cat((torch.ones(1).double(), peer.alphas_cumprod[:-1]))
    peer.betas = 1 - peer.alphas
    peer.set_timesteps(steps)
    start = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    noise = torch.Generator().manual_seed(7)
    draw = lambda: torch.randn(start.shape, dtype=torch.float64, generator=noise)
    x = start
    for t in peer.timesteps:
        output = diffusion.model(x, t.double().expand(3))
        if t == peer.timesteps[-1]:
            # At sigma 0 the sample is x0. The peer's DDPM with large variance adds a whole step's noise here whenever
            # its last timestep is not 0, and leaves it in the picture.
            x = peer.step(output, int(t), x, **extra(start)).pred_original_sample
        else:
            x = peer.step(output, int(t), x, **extra(draw())).prev_sample
    noise.manual_seed(7)
    grid = make_grid("trailing", diffusion.sigmas, steps)
    ours = run(choice, diffusion.denoise, start * (1 + grid[0] ** 2).sqrt(), grid, draw)
    return ours, x


def test_ddpm_is_ddim_with_eta_one():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64) * 80
    grid = make_grid("karras", SIGMAS, 30)
    results = []
    for choice in ("ddpm", "ddim(eta=1)"):
        generator = torch.Generator().manual_seed(1)
        draw = lambda: torch.randn(x.shape, dtype=x.dtype, generator=generator)  # noqa: B023
        results.append(run(choice, Mixture().denoise, x, grid, draw))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("choice", known([*STOCHASTIC, *ORDER, *ELSEWHERE]))
def test_a_picture_depends_on_its_seed_and_not_on_its_batch(choice: str):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            return self.network(x).tanh()

    diffusion = GaussianDiffusion(Network(), schedule="lognormal", objective="edm")
    grid = make_grid("karras", diffusion.sigmas, 10)

    @torch.no_grad()
    def pictures(seeds: list[int]) -> Tensor:
        noise = PictureNoise(seeds, (3, 8, 8), dtype=torch.float64)
        return run(choice, diffusion.denoise, noise() * grid[0], grid, noise)

    many = pictures(list(range(16)))
    for seed in (0, 5, 15):
        torch.testing.assert_close(pictures([seed])[0], many[seed], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(many[0], many[1])


@pytest.mark.parametrize("name", [name for name in grids if name not in ("levels", "searched")])
@pytest.mark.parametrize("steps", [1, 2, 18, 999])
def test_grids_descend_to_an_exact_zero(name: str, steps: int):
    grid = make_grid(name, SIGMAS, steps)
    assert grid.shape == (steps + 1,)
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()
    if name == "leading":
        assert float(grid[-2]) == pytest.approx(0.002)
    else:
        assert float(grid[0]) == pytest.approx(80)


@pytest.mark.parametrize("steps", [7, 10, 50, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_discrete_grids_visit_the_timesteps_of_diffusers(spacing: str, steps: int):
    diffusers = pytest.importorskip("diffusers")
    peer = diffusers.DDIMScheduler(1000, timestep_spacing=spacing)
    peer.set_timesteps(steps)
    ours = make_grid(spacing, torch.arange(1, 1001), steps)[:-1] - 1
    assert ours.tolist() == peer.timesteps.tolist()


def test_log_snr_grid_is_even_in_the_logarithm():
    grid = make_grid("log_snr", SIGMAS, 9)[:-1].log()
    torch.testing.assert_close(grid.diff(), torch.full((8,), math.log(0.002 / 80) / 8, dtype=torch.float64))


def test_levels_are_taken_as_they_are():
    assert make_grid("levels(at=(80, 3.5, 0.1))", SIGMAS, 3).tolist() == [80, 3.5, 0.1, 0]
    with pytest.raises(RequestError, match="4 is not allowed with a grid of 3 levels; allowed: 3"):
        make_grid("levels(at=(80, 3.5, 0.1))", SIGMAS, 4)
    with pytest.raises(RequestError, match="does not descend"):
        make_grid("levels(at=(80, 0.1, 3.5))", SIGMAS, 3)


def test_trailing_grid_visits_the_published_timesteps():
    grid = make_grid("trailing", torch.arange(1, 1001), 10)
    assert grid.tolist() == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    with pytest.raises(RequestError, match="1001 is not allowed with the trailing grid; allowed: 1 to 1000"):
        make_grid("trailing", SIGMAS, 1001)
    with pytest.raises(RequestError, match="0 is not allowed"):
        make_grid("karras", SIGMAS, 0)


def test_karras_grid_is_equation_five():
    grid = make_grid("karras", SIGMAS, 5)
    expected = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)]
    assert grid.tolist() == pytest.approx([*expected, 0])
    assert float(make_grid("karras(high=10)", SIGMAS, 5)[0]) == pytest.approx(10)


def test_wrong_sampler_options_are_refused():
    with pytest.raises(RequestError, match=r"sampler: heun\(churn=-1\): churn must be greater than or equal to 0"):
        samplers.bind("heun(churn=-1)")
    with pytest.raises(RequestError, match="option of heun: 'chrn' is unknown .did you mean 'churn'"):
        samplers.bind("heun(chrn=40)")
    with pytest.raises(RequestError, match="did you mean 'heun'"):
        samplers.bind("huen")
