"""Averages of the weights over training: what is sampled from, since the last step's weights are noisy."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from ddm.registry import Registry

averages = Registry("average", given=("step",))

Rule = Callable[[int], float]
"""What share of the old average survives step 1, 2, ...: 0 copies the weights, 1 leaves the average alone."""


@averages.register
def constant(step: int, *, decay: Annotated[float, Ge(0), Lt(1)] = 0.9999) -> float:
    """Constant decay, shortened to (1 + n) / (10 + n) in the first steps so that the random start is soon forgotten."""
    return min(decay, step / (9 + step))


@averages.register
def inverse_power(
    step: int,
    *,
    decay: Annotated[float, Ge(0), Lt(1)] = 0.995,
    power: Annotated[float, Gt(0), Le(1)] = 2 / 3,
    after: Annotated[int, Ge(0)] = 100,
    every: Annotated[int, Gt(0)] = 10,
) -> float:
    """1 - (1 + n)^-power up to ``decay``, n counted from step ``after``, applied once in ``every`` steps.

    The average of the package ema-pytorch at its defaults, which denoising-diffusion-pytorch (and so the paper) used.
    """
    if (step - 1) % every:
        return 1.0
    counted = step - 1 - after
    return min(decay, 1 - (1 + counted) ** -power) if counted > 0 else 0.0


@averages.register
def power(step: int, *, width: Annotated[float, Gt(0), Lt(0.28)] = 0.05) -> float:
    """Power-function average; Karras et al. 2023 (arXiv 2312.02696, section 3.1).

    ``width`` is its relative width (sigma_rel): the standard deviation of the averaged steps over the number of steps,
    so the average grows with the run.
    """
    return (1 - 1 / step) ** (_exponent(width) + 1)


@functools.cache
def _exponent(width: float) -> float:
    """The gamma at which width = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)); it falls as gamma grows: bisect."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        if (middle + 1) ** 0.5 / ((middle + 2) * (middle + 3) ** 0.5) > width:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class Ema:
    """Several averages of one network, each a second network that is never trained.

    Args:
        network: the one in training.
        rules: choices such as ``"constant(decay=0.995)"`` or ``"power(width=0.1)"``.

    Raises:
        RequestError: an unknown rule or option.
    """

    def __init__(self, network: nn.Module, rules: Sequence[str]):
        self.rules: list[Rule] = [averages.bind(rule, field="train.ema") for rule in rules]
        self.networks = [copy.deepcopy(network).eval().requires_grad_(False) for _ in rules]
        self._live: list[Tensor] = list(network.parameters())
        self._averaged: list[list[Tensor]] = [list(each.parameters()) for each in self.networks]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step ``step`` (1, 2, ...); a few kernels in all, no synchronisation."""
        for rule, averaged in zip(self.rules, self._averaged):
            decay = rule(step)
            if decay < 1:
                torch._foreach_lerp_(averaged, self._live, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
