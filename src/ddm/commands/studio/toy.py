"""Data of two numbers whose exact denoiser is known, so that it can be seen what a sampler does wrong.

The data are mixtures of round Gaussians of one width s. With noise of level sigma they stay one, of the variance
s^2 + sigma^2, and the mean of x0 given x is a weighted mean over the parts: no network, nothing learned.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddm.diffusion import Denoise, make_grid, samplers, schedules
from ddm.diffusion.gaussian import per_picture
from ddm.errors import RequestError, unknown
from ddm.seeding import generator

PARTICLES = 200
"""Starting points, each followed to its end."""

STEPS = 100
"""Of a sampler at most."""

EVALUATIONS = 1000
"""Of the denoiser at most: some samplers take as many as their options ask for."""

EXACT = 150
"""Steps of the solution that counts as exact: no particle is further from its true end than 0.0003."""

DIRECTIONS = 8
"""In which two clouds are compared."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Equally likely round Gaussians of one width.

    Args:
        means: float64 ``[k, 2]``.
        s: standard deviation of each part.
    """

    means: Tensor
    s: float

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The mean of x0 given x.

        Args:
            x: ``[n, 1, 1, 2]``.
            sigma: a scalar or ``[n]``.
        """
        variance = self.s**2 + per_picture(sigma, x[:, 0, 0]) ** 2
        flat = x.flatten(1)
        away = flat.square().sum(1, keepdim=True) - 2 * flat @ self.means.T + self.means.square().sum(1)
        nearest = torch.softmax(-away / (2 * variance), 1) @ self.means
        return (nearest + self.s**2 / variance * (flat - nearest)).reshape(x.shape)

    def density(self, points: Tensor) -> Tensor:
        """Of the data, at ``[n, 2]``, up to a factor."""
        return torch.exp(-torch.cdist(points, self.means).square() / (2 * self.s**2)).sum(1)

    def draw(self, count: int, *parts: int | str) -> Tensor:
        """Exact draws ``[count, 2]``, a function of the parts."""
        random = generator("draw", *parts)
        which = torch.randint(len(self.means), (count,), generator=random)
        return self.means[which] + self.s * torch.randn(count, 2, generator=random, dtype=torch.float64)

    def distance(self, points: Tensor) -> float:
        """How far a cloud ``[n, 2]`` is from the data: the mean over directions of the Wasserstein-1 distance.

        In each direction the data's own distribution function is known; it is the area between that and the cloud's.
        """
        angles = torch.arange(DIRECTIONS, dtype=torch.float64) * math.pi / DIRECTIONS
        turn = torch.stack((angles.cos(), angles.sin()))
        seen, means = points @ turn, self.means @ turn
        levels = torch.linspace(float(min(seen.min(), means.min())) - 4 * self.s,
                                float(max(seen.max(), means.max())) + 4 * self.s, 400, dtype=torch.float64)  # fmt: skip
        ours = torch.searchsorted(seen.T.sort().values.contiguous(), levels.expand(DIRECTIONS, -1).contiguous())
        theirs = torch.special.ndtr((levels[:, None, None] - means) / self.s).mean(1).T
        return float((ours / len(points) - theirs).abs().mean() * (levels[-1] - levels[0]))


def _arc(x: float, y: float, turn: float) -> Tensor:
    angles = torch.linspace(0, math.pi, 12, dtype=torch.float64) + turn
    return torch.stack((x + angles.cos(), y + angles.sin()), 1)


def _ring() -> Tensor:
    angles = torch.arange(5, dtype=torch.float64) * 2 * math.pi / 5 + math.pi / 2
    return 1.3 * torch.stack((angles.cos(), angles.sin()), 1)


TOYS = {
    "two moons": Mixture(torch.cat((_arc(-0.5, -0.25, 0), _arc(0.5, 0.25, math.pi))), 0.11),
    "five islands": Mixture(_ring(), 0.15),
    "two hills": Mixture(torch.tensor([[-0.8, 0.0], [0.8, 0.0]], dtype=torch.float64), 0.45),
}
"""By the names of the page."""


@functools.cache
def levels() -> Tensor:
    """Those of the schedule of Ho et al. 2020, from which the grids choose: 0.01 to 157."""
    return schedules["linear"](1000)


@dataclass(frozen=True, eq=False)
class Walk:
    """Particles on their way from noise to data.

    Args:
        places: float64 ``[steps + 1, n, 2]``, the first of them noise; as x.
        sigmas: float64 ``[steps + 1, n]``, the level at which each particle is there.
        evaluations: of the denoiser.
        drawn: whether fresh noise was put on them on the way.
    """

    places: Tensor
    sigmas: Tensor
    evaluations: int
    drawn: bool

    @property
    def ends(self) -> Tensor:
        """``[n, 2]``."""
        return self.places[-1]

    @property
    def scaled(self) -> Tensor:
        """The places as the paper writes them: x / sqrt(1 + sigma^2), which stays on one sheet of paper."""
        return self.places * (1 + self.sigmas**2).rsqrt()[..., None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a sampler did, beside the exact solution from the same starting points.

    Args:
        toy: the data.
        walk: of the sampler.
        exact: of the probability flow.
        distance: of the cloud of ends from the data; see :meth:`Mixture.distance`.
        floor: of as many exact draws.
    """

    toy: Mixture
    walk: Walk
    exact: Walk
    distance: float
    floor: float

    @property
    def errors(self) -> Tensor:
        """How far each end is from the exact one, ``[n]``."""
        return (self.walk.ends - self.exact.ends).norm(dim=1)

    @property
    def error(self) -> float:
        """Root mean square of :attr:`errors`."""
        return float(self.errors.square().mean().sqrt())


def compare(toy: str, sampler: str, grid: str, steps: int, seed: int = 0) -> Comparison:
    """Let a sampler work on a toy.

    Args:
        toy: one of :data:`TOYS`.
        sampler: a choice such as ``heun(churn=40)``.
        grid: a choice such as ``karras(rho=7)``.
        steps: 1 to :data:`STEPS`.
        seed: of the noise.

    Raises:
        RequestError: one of them is not allowed, or more evaluations than :data:`EVALUATIONS`.
        DdmError: the sampler failed.
    """
    if toy not in TOYS:
        raise unknown("toy", toy, TOYS)
    stops = make_grid(grid, levels(), steps)
    walk = follow(TOYS[toy], sampler, stops, seed)
    if not walk.places.isfinite().all():
        raise RequestError(f"grid: {grid!r} is not allowed here; its levels are too large for numbers")
    exact = solution(toy, float(stops[0]), seed)
    floor = _floor(toy)
    return Comparison(TOYS[toy], walk, exact, TOYS[toy].distance(walk.ends), floor)


@functools.lru_cache(maxsize=32)
def solution(toy: str, top: float, seed: int) -> Walk:
    """The probability flow from noise of level ``top``, as exactly as matters; see :data:`EXACT`."""
    grid = make_grid(f"karras(high={top}, low=0.001)", torch.tensor([0.001, top], dtype=torch.float64), EXACT)
    return follow(TOYS[toy], "unipc", grid, seed)


@functools.lru_cache(maxsize=len(TOYS))
def _floor(toy: str) -> float:
    return sum(TOYS[toy].distance(TOYS[toy].draw(PARTICLES, toy, number)) for number in range(16)) / 16


def follow(toy: Mixture, sampler: str, grid: Tensor, seed: int) -> Walk:
    """The particles of a seed, step by step."""
    random = generator("particles", seed)
    first = torch.randn(PARTICLES, 1, 1, 2, generator=random, dtype=torch.float64) * grid[0]
    watched = _Watched(toy.denoise)
    drawn = 0

    def noise() -> Tensor:
        nonlocal drawn
        drawn += 1
        return torch.randn(first.shape, generator=random, dtype=torch.float64)

    places, sigmas = [first], [grid[0].expand(len(first))]
    following: Iterator[Tensor] = iter(grid[1:])
    for step in samplers.bind(sampler)(watched, first, grid, noise):
        sigmas.append(watched.level(sigmas[-1], step.x, places[-1], step.x is step.x0, next(following, grid[-1])))
        places.append(step.x)
    return Walk(torch.stack(places).flatten(2), torch.stack(sigmas), watched.count, drawn > 0)


class _Watched:
    """A denoiser that counts, and knows how noisy what it saw last was."""

    def __init__(self, denoise: Denoise):
        self.denoise, self.count, self.sigma = denoise, 0, torch.zeros(())

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.count += 1
        if self.count > EVALUATIONS:
            raise RequestError(f"sampler: more than {EVALUATIONS:,} evaluations are not allowed here")
        self.sigma = sigma
        return self.denoise(x, sigma)

    def level(self, before: Tensor, x: Tensor, was: Tensor, last: bool, following: Tensor) -> Tensor:
        """Of each particle after a step: that of the grid, but a sampler which finds its own asked at them last."""
        if not self.sigma.ndim:
            return following.expand(len(x))
        if last:
            return torch.zeros_like(before)
        return torch.where((x != was).flatten(1).any(1), self.sigma, before)
