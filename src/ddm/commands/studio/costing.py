"""What a request costs before it is begun: evaluations of the network, counted on one that does nothing."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ddm.commands.studio.denoising import ours
from ddm.commands.work import Work
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator
from ddm.runs.cost import evaluations_of, with_evaluations, with_steps
from ddm.runs.model import Model
from ddm.runs.searched import GridFamily, gains

STEPS = 1000
"""Of a sampler at most, as many as the paper's."""

MOST = 4 * STEPS
"""Evaluations for a picture: two in a step of second order, twice that with guidance."""

CALLS = 3 * STEPS
"""Of the network for one picture at most: no sampler takes more in so many steps."""


class _Idle(nn.Module):
    """A network of so many classes that answers 0 at once, but not for ever: a sampler may be told to go on."""

    def __init__(self, classes: int, calls: float):
        super().__init__()
        self.classes, self.left, self.nothing = classes, calls, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RequestError(f"sampler: it takes more than {CALLS:,} evaluations; allow it a larger error")
        return torch.zeros_like(x)


def idle(generator: DiffusionGenerator, *, calls: float = math.inf) -> DiffusionGenerator:
    """The same way of making pictures with networks that do nothing, to be counted: of one pixel.

    Args:
        generator: makes pictures.
        calls: that each network answers.
    """
    diffusion, guide = (
        each and each.with_network(_Idle(generator.classes, calls)) for each in (generator.diffusion, generator.guide)
    )
    assert diffusion is not None, "a generator has a model"
    settings = generator.settings() | {"precision": "fp32"}
    names = {"guide": guide, "guide_name": settings.pop("guide")}
    return DiffusionGenerator(diffusion, shape=(generator.shape[0], 1, 1), **settings, **names)


def evaluations(generator: DiffusionGenerator) -> int:
    """How often the network sees a picture while it becomes one; a guess where the sampler finds its own steps.

    Raises:
        RequestError: more often than for any picture that may be asked for.
    """
    return evaluations_of(idle(generator, calls=CALLS)) or 0


def adjusted(
    model: Model, *, sampler: str = "", grid: str = "", wanted: int | None = None, guidance: float | None = None
) -> Model:
    """The same model with another way of making pictures; None, 0 or no word leave what it has.

    Args:
        model: one of ours.
        sampler: a choice such as ``heun(churn=40)``.
        grid: a choice such as ``karras(rho=5)``.
        wanted: evaluations of the network for a picture, of which as many steps are made as it allows.
        guidance: how far towards the class; 1 is none.

    Raises:
        RequestError: a choice that there is not, or that this model cannot take.
    """
    changes = {name: value for name, value in (("sampler", sampler), ("grid", grid), ("guidance", guidance)) if value}
    if sampler and not gains(sampler) and model.grids and model.grids.otherwise:
        changes.setdefault("grid", model.grids.otherwise)
    if "grid" in changes:
        model = replace(model, grids=None)
    generator = ours(model).with_settings(**changes)
    if wanted:
        if not 1 <= wanted <= MOST:
            raise RequestError(f"evaluations: {wanted} is not allowed; allowed: 1 to {MOST}")
        evaluations(generator)  # it comes to an end
        generator = with_steps(generator, _steps(generator, int(wanted), model.grids), model.grids)
    return replace(model, generator=generator)


def _steps(generator: DiffusionGenerator, wanted: int, grids: GridFamily | None) -> int:
    """As many as so many evaluations allow; messages have the word of the page."""
    try:
        found = with_evaluations(idle(generator), wanted, grids)
    except RequestError as error:
        raise RequestError(str(error).replace("nfe:", "evaluations:")) from None
    assert found is not None, "it has a network"
    return found.settings()["steps"]


def cost_of(work: Work) -> int:
    """Evaluations of the network that each picture of the work takes, counted or (edits) bounded."""
    generator = ours(work.model)
    steps = len(generator.grid) - 1
    if steps > STEPS:
        raise RequestError(f"steps: {steps} is not allowed here; allowed: 1 to {STEPS}")
    return -(-evaluations(generator) * work.steps // steps)
