"""Samplers that need tests of their own: steps made to measure, an order that depends on the grid, a trained network."""

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest
import torch
from oracles import Gaussian, Mixture
from test_multistep_peers import quantiles
from torch import Tensor

from ddm.diffusion import GaussianDiffusion, labelled, make_grid, samplers
from ddm.diffusion.samplers.adaptive import _try as attempt
from ddm.errors import DdmError

SIGMAS = torch.linspace(math.log(0.002), math.log(80), 1000, dtype=torch.float64).exp()
GRID = make_grid("karras", SIGMAS, 18)
TO_005 = torch.tensor([80, 0.05], dtype=torch.float64)


def start(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 80


def none() -> Tensor:
    raise AssertionError("no noise is asked for")


class Counted:
    """An oracle that takes a level for every picture and counts how often it was asked."""

    def __init__(self, oracle: Gaussian | Mixture):
        self.oracle, self.levels = oracle, []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (len(x),)
        self.levels.append(sigma)
        return self.oracle.denoise(x, sigma.reshape(-1, 1, 1, 1))


def adapt(oracle: Gaussian | Mixture, x: Tensor, grid: Tensor = GRID, **options) -> SimpleNamespace:
    denoise = Counted(oracle)
    steps = list(samplers["adaptive"](denoise, x, grid, none, **options))
    return SimpleNamespace(x=steps[-1].x, steps=steps, levels=denoise.levels, evaluations=len(denoise.levels))


class TestAdaptive:
    TOLERANCES = (0.03, 0.003, 0.0003)
    COUNTS = (64, 128, 256)

    @pytest.mark.parametrize("oracle", [Gaussian(), Mixture()])
    def test_the_error_is_near_the_tolerance_and_evaluations_are_what_it_costs(self, oracle: Gaussian | Mixture):
        x = start(50, 1, 4, 4)
        exact = oracle.flow if isinstance(oracle, Gaussian) else lambda *a: quantiles(oracle, *a)
        wanted = exact(x, *TO_005)
        found = [adapt(oracle, x, TO_005, tolerance=tolerance) for tolerance in self.TOLERANCES]
        errors = [float((each.x - wanted).square().mean((1, 2, 3)).sqrt().median()) for each in found]
        assert all(tolerance / 100 < each < tolerance for tolerance, each in zip(self.TOLERANCES, errors)), errors
        evaluations = [each.evaluations for each in found]
        assert evaluations == sorted(set(evaluations)) and evaluations[0] < 40, evaluations

    def test_the_end_is_that_of_the_flow_to_zero(self):
        x, oracle = start(50, 1, 4, 4), Gaussian()
        wanted = oracle.flow(x, GRID[0], torch.zeros(()))
        # 0.002 is 1 / 200 of the data's spread: half its square is what the last step, of first order, gets wrong.
        torch.testing.assert_close(adapt(oracle, x, tolerance=1e-6).x, wanted, rtol=0, atol=5e-5)

    def test_a_step_is_of_order_three_and_its_estimate_of_order_two(self):
        """With steps of a given length; what they make in one step is of one power more."""
        x, oracle, errors, estimates = start(20, 1, 2, 2) / 8, Gaussian(), [], []
        denoise = Counted(oracle)
        for count in self.COUNTS:
            levels = torch.linspace(math.log(10), math.log(0.05), count + 1, dtype=torch.float64).exp()
            here, largest = x, 0.0
            for sigma, following in zip(levels[:-1].expand(20, -1).T, levels[1:].expand(20, -1).T):
                trial = attempt(denoise, here, denoise(here, sigma), sigma, following)
                here, largest = trial.x, max(largest, float(trial.error.abs().mean()))
            errors.append(float((here - oracle.flow(x, levels[0], levels[-1])).abs().mean()))
            estimates.append(largest)
        assert slope_of(self.COUNTS, errors) == pytest.approx(3, abs=0.15), errors
        assert slope_of(self.COUNTS, estimates) == pytest.approx(3, abs=0.15), estimates

    def test_a_smaller_tolerance_takes_as_many_steps_as_the_order_says(self):
        rough, fine = (
            adapt(Gaussian(), start(4, 1, 2, 2), TO_005, tolerance=each).evaluations for each in (1e-6, 1e-7)
        )
        assert fine / rough == pytest.approx(10 ** (1 / 3), rel=0.1)

    def test_a_picture_does_not_know_its_neighbours(self):
        """Hard neighbours: pixels between the two centres, where the flow parts, and one far outside."""
        hard = torch.tensor([0.05, 0.051, 5e3], dtype=torch.float64).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
        easy = start(4, 1, 4, 4)
        together = adapt(Mixture(), torch.cat((easy[:2], hard, easy[2:])), tolerance=0.003)
        for place, number in ((0, 0), (1, 1), (2, 5), (3, 6)):
            alone = adapt(Mixture(), easy[place : place + 1], tolerance=0.003)
            assert alone.evaluations < together.evaluations
            torch.testing.assert_close(alone.x[0], together.x[number], rtol=0, atol=1e-6)
            # Its own steps, and then it waits where it is.
            own = [step.x[0] for step in alone.steps]
            torch.testing.assert_close([step.x[number] for step in together.steps[: len(own) - 1]], own[:-1])
            done = [step.x[number] for step in together.steps[len(own) - 2 : -1]]
            assert len(done) > 1 and all(torch.equal(each, done[0]) for each in done)

    def test_levels_descend_by_themselves_and_end_at_the_lowest(self):
        found = adapt(Mixture(), start(6, 1, 4, 4))
        assert (found.levels[0] == GRID[0]).all() and (found.levels[-1] == GRID[-2]).all()
        assert min(float(each.min()) for each in found.levels) == GRID[-2]
        assert torch.equal(found.x, found.steps[-1].x0) and torch.equal(found.x, found.steps[-2].x0)
        assert found.evaluations == 1 + 3 * (len(found.steps) - 1)  # the step to 0 is free
        assert len({float(each) for each in found.levels[-6]}) > 1

    def test_only_the_ends_of_the_grid_count(self):
        x = start(3, 1, 4, 4)
        ends = torch.stack((GRID[0], GRID[-2], GRID[-1]))
        assert torch.equal(adapt(Mixture(), x).x, adapt(Mixture(), x, ends).x)
        above = adapt(Mixture(), x, ends[:2])
        assert torch.equal(above.x, adapt(Mixture(), x).steps[-2].x)
        only = adapt(Gaussian(), x, torch.tensor([80.0, 0.0]).double())
        assert only.evaluations == len(only.steps) == 1
        assert torch.equal(only.x, Gaussian().denoise(x, torch.tensor(80.0).double()))

    def test_single_precision_stays_so(self):
        x = start(3, 1, 4, 4)
        single = adapt(Gaussian(), x.float())
        assert single.x.dtype == torch.float32
        torch.testing.assert_close(single.x.double(), adapt(Gaussian(), x).x, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("worse", [math.nan, math.inf])
    def test_what_is_not_finite_ends_at_once(self, worse: float):
        calls = []

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            calls.append(sigma)
            bad = (torch.arange(len(x)) == 2) & (sigma < 1)
            return torch.where(bad.reshape(-1, 1, 1, 1), worse, Gaussian().denoise(x, sigma.reshape(-1, 1, 1, 1)))

        with pytest.raises(
            DdmError, match=r"adaptive: picture 2 of the batch is not finite near sigma \d.*; try --clip"
        ):
            list(samplers["adaptive"](denoise, start(4, 1, 4, 4), GRID, none))
        # Seen in the iteration in which it first happened.
        assert sum(bool(sigma[2] < 1) for sigma in calls) <= 3

    def test_a_last_guess_that_is_not_finite_is_no_picture(self):
        """The error of a step is known before the guess at its end, and the last guess is the picture."""
        denoise = lambda x, s: torch.where(
            s.reshape(-1, 1, 1, 1) > GRID[-2], Gaussian().denoise(x, s.reshape(-1, 1, 1, 1)), math.nan
        )
        with pytest.raises(DdmError, match="is not finite near sigma 0.00"):
            list(samplers["adaptive"](denoise, start(2, 1, 4, 4), GRID, none))

    def test_nothing_but_nan_ends_after_one_iteration(self):
        calls = []
        with pytest.raises(DdmError, match="picture 0 of the batch is not finite near sigma 80"):
            list(samplers["adaptive"](lambda x, s: (calls.append(s), x * math.nan)[1], start(4, 1, 4, 4), GRID, none))
        assert len(calls) == 4

    @pytest.mark.parametrize("iterations", [1, 20])
    def test_the_number_of_iterations_is_bounded(self, iterations: int):
        """Noise for a denoiser: no step is ever short enough."""
        generator, calls = torch.Generator().manual_seed(0), []

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            calls.append(sigma)
            return torch.randn(x.shape, dtype=x.dtype, generator=generator)

        message = (
            rf"4 of 4 pictures are not done after {iterations} iterations, .* raise tolerance \(0.0001\) or iterations"
        )
        with pytest.raises(DdmError, match=message):
            list(samplers["adaptive"](denoise, start(4, 1, 4, 4), GRID, none, tolerance=1e-4, iterations=iterations))
        assert len(calls) == 1 + 3 * iterations

    @pytest.mark.parametrize("low", [0.0, 0.3])
    def test_guidance_takes_a_level_for_every_picture(self, low: float):
        class Network(torch.nn.Module):
            def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
                assert len(x) == len(t) == len(label)
                return torch.sin(x + label.reshape(-1, 1, 1, 1)) * (1 + t.reshape(-1, 1, 1, 1) / 1000)

        diffusion = GaussianDiffusion(Network(), schedule="lognormal", objective="edm")
        x, labels = start(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])

        def pictures(chosen: list[int]) -> Tensor:
            denoise = labelled(diffusion.denoise, labels[chosen], null=3, scale=2.0, low=low)
            return list(samplers["adaptive"](denoise, x[chosen], GRID, none))[-1].x

        together = pictures([0, 1, 2, 3])
        for number in range(4):
            torch.testing.assert_close(pictures([number])[0], together[number], rtol=0, atol=1e-6)


def slope_of(counts: Iterable[int], errors: list[float]) -> float:
    counts = torch.tensor(list(counts), dtype=torch.float64).log()
    return -float(
        torch.linalg.lstsq(
            torch.stack((counts, torch.ones_like(counts)), 1), torch.tensor(errors).double().log()
        ).solution[0]
    )


class ExactAtFirst:
    """A denoiser for a solver that knows nothing yet: its first directions are those of the exact flow, and what its x
    is short of then, having been moved by steps of lower order, is added whenever it asks."""

    def __init__(self, oracle: Gaussian, x: Tensor, sigma: Tensor, order: int):
        self.oracle, self.x, self.sigma, self.left = oracle, x, sigma, order

    def exact(self, sigma: Tensor) -> Tensor:
        return self.oracle.flow(self.x, self.sigma, sigma)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.left > 0:
            self.missing, self.left = self.exact(sigma) - x, self.left - 1
        return self.oracle.denoise(x + self.missing, sigma) - self.missing


class TestIPNDM:
    COUNTS = (64, 128, 256, 512)

    @pytest.mark.parametrize("order", [1, 2, 3, 4])
    def test_it_integrates_polynomials_of_its_order_on_an_even_grid(self, order: int):
        """A denoiser that says of any x that its noise is a polynomial in sigma."""
        levels = torch.linspace(9, 1, 17, dtype=torch.float64)
        for degree in range(5):
            integral = lambda sigma: (sigma - 4) ** (degree + 1) / (degree + 1)  # noqa: B023
            denoise = lambda x, sigma: x - sigma * (sigma - 4) ** degree  # noqa: B023
            steps = list(samplers["ipndm"](denoise, start(2, 1, 1, 1), levels, none, order=order))
            # The first order - 1 steps are of lower order; from there on every step is judged by itself.
            moved = torch.stack(
                [b.x - a.x for a, b in zip(steps[order - 2 :] if order > 1 else steps, steps[max(order - 1, 1) :])]
            )
            wanted = integral(levels[1:]).diff()[-len(moved) :].reshape(-1, 1, 1, 1, 1).expand_as(moved)
            assert torch.allclose(moved, wanted, rtol=0, atol=1e-9) == (degree < order), degree

    def errors(self, order: int, levels_of: Callable[[int], Tensor]) -> list[float]:
        oracle, found = Gaussian(std=1.0), []
        for count in self.COUNTS:
            levels = levels_of(count)
            denoise = ExactAtFirst(oracle, start(20, 1, 1, 1) / 80 * levels[0], levels[0], order)
            *_, last = samplers["ipndm"](denoise, denoise.x, levels, none, order=order)
            found.append(float((last.x + denoise.missing - denoise.exact(levels[-1])).abs().mean()))
        return found

    @pytest.mark.parametrize("order", [1, 2, 3, 4])
    def test_its_order_on_a_grid_even_in_sigma(self, order: int):
        # To 0.5 the leading error of order 4 would happen to vanish.
        found = self.errors(order, lambda count: torch.linspace(10, 1, count + 1, dtype=torch.float64))
        assert slope_of(self.COUNTS, found) == pytest.approx(order, abs=0.15), found

    @pytest.mark.parametrize(("order", "expected"), [(1, 1), (2, 2), (3, 2), (4, 2)])
    def test_its_order_on_the_karras_grid(self, order: int, expected: int):
        found = self.errors(order, lambda count: make_grid("karras(low=0.05)", SIGMAS, count + 1)[:-1])
        assert slope_of(self.COUNTS, found) == pytest.approx(expected, abs=0.15), found


class TestConsistency:
    def function(self, oracle: Gaussian):
        """What a consistency model of the data learns: where the flow through x ends."""
        return lambda x, sigma: oracle.flow(x, sigma, torch.zeros(()))

    def test_one_step_is_the_end_of_the_flow(self):
        x, oracle = start(5, 1, 2, 2), Gaussian()
        (step,) = samplers["consistency"](self.function(oracle), x, make_grid("karras", SIGMAS, 1), none)
        torch.testing.assert_close(step.x, oracle.flow(x, SIGMAS[-1], torch.zeros(())))

    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_pictures_have_the_mean_and_spread_of_the_data_after_any_steps(self, steps: int):
        oracle, count = Gaussian(), 40_000
        generator = torch.Generator().manual_seed(4)
        draw = lambda: torch.randn(count, 1, 1, 1, dtype=torch.float64, generator=generator)
        grid = make_grid("karras", SIGMAS, steps)
        # As noisy as the data at this level are: without them the exact function of x would be off by their share.
        x = oracle.mean + draw() * (oracle.std**2 + grid[0] ** 2).sqrt()
        *_, last = samplers["consistency"](self.function(oracle), x, grid, draw)
        error = 4 / math.sqrt(count)
        assert last.x.mean().item() == pytest.approx(oracle.mean, abs=error * oracle.std)
        assert last.x.std().item() == pytest.approx(oracle.std, rel=error / math.sqrt(2))

    def test_every_level_is_that_of_the_grid(self):
        """x is x0 with so much noise, which is fresh at every step."""
        grid, drawn = make_grid("karras", SIGMAS, 4), []
        draw = lambda: (drawn.append(torch.randn(2, 1, 3, 3).double()), drawn[-1])[1]
        steps = list(samplers["consistency"](lambda x, sigma: x / (1 + sigma), start(2, 1, 3, 3), grid, draw))
        assert len(drawn) == 3  # none in the last
        for step, noise, level in zip(steps, drawn, grid[1:]):
            torch.testing.assert_close(step.x - step.x0, level * noise)
        assert torch.equal(steps[-1].x, steps[-1].x0)
