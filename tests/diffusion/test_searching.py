"""The oracles: every choice of levels tried one after the other, single steps made by the samplers themselves, and
Gaussian data, whose flow is known in closed form."""

import math
from itertools import combinations, product

import pytest
import torch
from oracles import Gaussian, Mixture
from torch import Tensor

from ddm.diffusion import grids, make_grid, samplers
from ddm.diffusion.searching import cheapest_paths, grids_along, search_grid, step_costs
from ddm.errors import DdmError, RequestError

SIGMAS = torch.linspace(math.log(0.002), math.log(80), 1000, dtype=torch.float64).exp()
FINE = make_grid("karras", SIGMAS, 60)


def starts(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * FINE[0]


def solve(choice: str, oracle: Gaussian | Mixture, x: Tensor, grid: Tensor) -> Tensor:
    *_, last = samplers.bind(choice)(oracle.denoise, x, grid, lambda: x)
    return last.x


def total(costs: Tensor, path: list[int]) -> float:
    return sum(float(costs[before, here, there]) for before, here, there in zip([0, *path], path, path[1:]))


# --- the choice


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_of_levels_is_cheaper(seed: int):
    count = 9
    costs = torch.rand(count, count, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    before, here, there = torch.meshgrid(*[torch.arange(count)] * 3, indexing="ij")
    costs[(before > here) | (here >= there)] = torch.inf
    found = cheapest_paths(costs, count - 1)
    assert set(found) == set(range(1, count))
    for steps, path in found.items():
        every = [[0, *between, count - 1] for between in combinations(range(1, count - 1), steps - 1)]
        assert path == min(every, key=lambda each: total(costs, each))


@pytest.mark.parametrize("oracle", [Gaussian(), Mixture()])
def test_more_steps_never_cost_more(oracle: Gaussian | Mixture):
    costs = step_costs(oracle.denoise, starts(0, 64, 1, 2, 2), FINE)
    found = [total(costs, path) for path in cheapest_paths(costs, 30).values()]
    assert all(more < fewer for fewer, more in zip(found, found[1:]))
    assert found[0] > 50 * found[19], "the test would not see costs that are all alike"


# --- what a step costs


@pytest.mark.parametrize("oracle", [Gaussian(), Mixture()])
def test_a_step_costs_what_it_misses_the_trajectory_by(oracle: Gaussian | Mixture):
    fine, x = make_grid("karras", SIGMAS, 7), starts(1, 3, 2, 2, 2)
    costs = step_costs(oracle.denoise, x, fine)
    trajectory = [x, *(solve("heun", oracle, x, fine[: level + 1]) for level in range(1, 8))]
    noises = [(point - oracle.denoise(point, sigma)) / sigma for point, sigma in zip(trajectory, fine[:-1])]
    assert costs.shape == (8, 8, 8) and costs.dtype == torch.float64
    for before, here, there in product(range(8), repeat=3):
        if not before <= here < there:
            assert costs[before, here, there] == torch.inf
            continue
        # The sampler begins at ``before`` so that its first step leads from there, as the trajectory does, to ``here``.
        places = [here, there] if before == here else [before, here, there]
        first = trajectory[here] + (fine[before] - fine[here]) * noises[before]
        answers = [trajectory[here] - fine[here] * noises[before], oracle.denoise(trajectory[here], fine[here])]
        ready = iter(answers[-len(places) + 1 :])
        *_, last = samplers.bind("ipndm(order=2)")(lambda x, sigma: next(ready), first, fine[places], lambda: x)  # noqa: B023
        missed = (last.x - trajectory[there]).square().mean()
        assert float(costs[before, here, there]) == pytest.approx(float(missed), rel=1e-6, abs=1e-18)


def test_batches_can_be_searched_one_after_the_other():
    x = starts(2, 6, 1, 3, 3)
    parts = [step_costs(Mixture().denoise, part, FINE) * (len(part) / 6) for part in (x[:4], x[4:])]
    torch.testing.assert_close(parts[0] + parts[1], step_costs(Mixture().denoise, x, FINE), rtol=1e-9, atol=1e-15)


def test_float32_is_enough():
    x = starts(2, 32, 1, 3, 3)
    exact, rounded = (cheapest_paths(step_costs(Mixture().denoise, each, FINE), 12) for each in (x, x.float()))
    assert exact == rounded


def test_the_model_is_called_twice_a_level_without_gradients():
    calls = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append((len(x), torch.is_grad_enabled()))
        return Gaussian().denoise(x, sigma)

    step_costs(denoise, starts(0, 5, 1, 2, 2), FINE)
    assert calls == [(5, False)] * (2 * len(FINE) - 3)


def test_answers_that_are_not_finite_are_told():
    for bad in (torch.nan, torch.inf):
        with pytest.raises(DdmError, match="^no grid can be searched: what the model makes is not finite"):
            step_costs(lambda x, sigma: x * bad if sigma < 1 else x, starts(0, 2, 1, 2, 2), FINE)  # noqa: B023


# --- the grid


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 60])
def test_a_grid_is_chosen_from_the_fine_levels(steps: int):
    grid = search_grid(Mixture().denoise, starts(0, 16, 1, 2, 2).float(), FINE, steps)
    assert grid.shape == (steps + 1,) and grid.dtype == torch.float64
    assert (grid[0], grid[-1]) == (FINE[0], 0)
    assert (grid.diff() < 0).all()
    assert set(grid.tolist()) <= set(FINE.tolist())


def test_one_search_gives_the_grids_of_all_numbers_of_steps():
    x = starts(0, 16, 1, 2, 2)
    found = grids_along(FINE, cheapest_paths(step_costs(Mixture().denoise, x, FINE), 12))
    assert set(found) == set(range(1, 13))
    for steps in (1, 4, 12):
        assert torch.equal(found[steps], search_grid(Mixture().denoise, x, FINE, steps))


@pytest.mark.parametrize("steps", [5, 8, 12])
@pytest.mark.parametrize("sampler", ["ddim", "ipndm(order=2)", "deis(order=2)"])
@pytest.mark.parametrize("std", [0.1, 0.4])
def test_gaussian_data_come_out_closer_than_on_other_grids(std: float, sampler: str, steps: int):
    oracle = Gaussian(std=std)
    searched = search_grid(oracle.denoise, starts(3, 32, 1, 2, 2), FINE, steps)
    x = starts(4, 500, 1, 2, 2)
    exact = oracle.flow(x, FINE[0], FINE[-1])

    def error(grid: Tensor) -> float:
        return float((solve(sampler, oracle, x, grid) - exact).square().mean().sqrt())

    assert error(searched) < 0.75 * min(error(make_grid(name, SIGMAS, steps)) for name in ("karras", "log_snr"))


@pytest.mark.parametrize("steps", [5, 8])
def test_two_gaussians_come_out_closer_than_on_karras(steps: int):
    oracle = Mixture()
    searched = search_grid(oracle.denoise, starts(3, 64, 1, 2, 2), FINE, steps)
    x = starts(4, 500, 1, 2, 2)
    exact = solve("heun", oracle, x, make_grid("karras", SIGMAS, 1000))

    def error(grid: Tensor) -> float:
        return float((solve("ddim", oracle, x, grid) - exact).square().mean().sqrt())

    assert error(searched) < 0.8 * error(make_grid("karras", SIGMAS, steps))


@pytest.mark.parametrize("steps", [0, 61])
def test_impossible_numbers_of_steps_are_refused(steps: int):
    with pytest.raises(
        RequestError, match=f"^sample.steps: {steps} is not allowed with the searched grid; allowed: 1 to"
    ):
        search_grid(Gaussian().denoise, starts(0, 2, 1, 2, 2), FINE, steps)


def test_where_no_model_is_known_the_grid_is_refused_and_listed():
    with pytest.raises(RequestError, match="^sample.grid: searched is not allowed here, it needs the trained model"):
        make_grid("searched", SIGMAS, 6)
    assert grids.signature("searched") == "searched"
    assert "arXiv 2405.11326" in grids.summary("searched")
