"""Searched grids: noise levels chosen where a model's own trajectories bend, by dynamic programming.

Chen et al. 2024 (GITS, arXiv 2405.11326) noticed that the trajectories of a model bend alike whatever the picture, so
that a few of them say where all others need steps.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ddm.diffusion.guidance import Denoise
from ddm.diffusion.samplers.base import direction
from ddm.diffusion.samplers.heun import heun
from ddm.errors import DdmError, RequestError


def search_grid(denoise: Denoise, x: Tensor, fine: Tensor, steps: int) -> Tensor:
    """The grid of ``steps`` of the levels of ``fine`` on which steps miss the model's trajectories least.

    :func:`step_costs`, :func:`cheapest_paths` and :func:`grids_along` are its parts, for the grids of all numbers of
    steps from one search.

    Args:
        denoise: the model.
        x: starting noise ``[b, c, h, w]``, standard deviation ``fine[0]``; some 32 are enough.
        fine: descending sigmas ``[levels]`` that may be chosen, ending in 0; some 60.
        steps: of the sampler, 1 to ``levels - 1``.

    Returns:
        float64 ``[steps + 1]`` on the CPU, from ``fine[0]`` to 0.

    Raises:
        RequestError: more steps than there are levels.
        DdmError: the model's answers are not finite.
    """
    check_steps(steps, len(fine) - 1)
    return grids_along(fine, cheapest_paths(step_costs(denoise, x, fine), steps))[steps]


def check_steps(steps: int, most: int) -> None:
    """Raise :class:`RequestError` where a grid of so many steps cannot be chosen from ``most`` levels."""
    if not 1 <= steps <= most:
        raise RequestError(f"sample.steps: {steps} is not allowed with the searched grid; allowed: 1 to {most}")


@torch.no_grad()
def step_costs(denoise: Denoise, x: Tensor, fine: Tensor) -> Tensor:
    """How far a step from one level to another ends beside the trajectory, when it began on it.

    The trajectories are those of Heun's method on ``fine``; the step is one of ``ipndm(order=2)``, which also knows the
    direction where the step before it began. The last step, into 0, is of first order in every sampler and ends at x0,
    so where it begins is chosen like all the rest.

    The paper takes Euler steps, measures how far they leave the straight line from start to end, and gives each step
    1.15 times the weight of the one before. On a small model of CIFAR-10, against 100 steps of Heun's method, that
    weight made all samplers worse. Plain distances of Euler steps were the best for ``ddim``, but with them ``ipndm``
    had a third more error than on karras from 8 steps on. With these it has no more, or less, and ``ddim`` still has a
    quarter less.

    Args:
        denoise: the model, called ``2 * levels - 3`` times.
        x: starting noise ``[b, c, h, w]``. Three times ``levels * x`` are held: 71 MB for 32 of 3x32x32 in float32.
        fine: descending sigmas ``[levels]``, ending in 0.

    Returns:
        float64 ``[levels, levels, levels]`` on the CPU: the mean squared difference of pixels by where the step before
        began (the same place where there was none), where it begins and where it ends; infinite where that is no way
        down.

    Raises:
        DdmError: the model's answers are not finite.
    """
    points, slopes = _trajectory(denoise, x, fine)
    costs = torch.full((len(fine),) * 3, torch.inf, dtype=torch.float64)
    for here, slope in enumerate(slopes):
        lengths = (fine[here + 1 :] - fine[here])[:, None].to(points)
        missed = points[here] + lengths * slope - points[here + 1 :]
        turns = slope - slopes[:here]
        costs[: here + 1, here, here + 1 :] = missed.square().mean(1).cpu().double()
        # What half a turn, added to the direction, changes about the mean square, without a tensor for each pair.
        shared = turns @ missed.T / x.numel()
        change = lengths.T * shared + lengths.T.square() / 4 * turns.square().mean(1, keepdim=True)
        costs[:here, here, here + 1 : -1] += change[:, :-1].cpu().double()
    return costs.clamp(min=0)


def cheapest_paths(costs: Tensor, most: int) -> dict[int, list[int]]:
    """The cheapest way from the first level to the last in exactly n steps, for every n at once.

    Args:
        costs: float64 ``[levels, levels, levels]`` as of :func:`step_costs`.
        most: the largest n, at most ``levels - 1``.

    Returns:
        By n from 1 to ``most``, the n + 1 levels visited, as places.
    """
    last = len(costs) - 1
    remaining = costs[:, :, last]
    following: list[Tensor] = []
    paths = {1: [0, last]}
    for steps in range(2, most + 1):
        remaining, choice = (costs + remaining).min(dim=2)
        following.append(choice)
        path = [0, 0]
        for choice in reversed(following):
            path.append(int(choice[path[-2], path[-1]]))
        paths[steps] = [*path[1:], last]
    return paths


def grids_along(fine: Tensor, paths: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
    """The levels at the places of each path, float64 on the CPU."""
    return {steps: fine.double().cpu()[list(path)] for steps, path in paths.items()}


def _trajectory(denoise: Denoise, x: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
    """Where Heun's method is at each level ``[levels, values]``, and its direction there (but for the last)."""
    points, slopes = x.new_empty(len(fine), x.numel()), x.new_empty(len(fine) - 1, x.numel())
    calls = 0

    def watched(x: Tensor, sigma: Tensor, /) -> Tensor:
        nonlocal calls
        x0 = denoise(x, sigma)
        if calls % 2 == 0:  # every second call of Heun's method is where Euler's would lead
            points[calls // 2], slopes[calls // 2] = x.flatten(), direction(x, x0, sigma).flatten()
        calls += 1
        return x0

    *_, last = heun(watched, x, fine, lambda: x)
    points[-1] = last.x.flatten()
    if not (points.isfinite().all() and slopes.isfinite().all()):
        raise DdmError("no grid can be searched: what the model makes is not finite; try an earlier checkpoint")
    return points, slopes
