"""What a picture costs: the parameters of the network and how often it is evaluated."""

from typing import Any

from torch import Tensor, nn

from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, Generator, PipelineGenerator

NETWORKS = ("unet", "transformer")
"""What pipelines call the network that they evaluate at every step."""


def network_of(generator: Generator) -> nn.Module | None:
    """The network that is evaluated again and again for one picture; None for pictures that are there already."""
    if isinstance(generator, DiffusionGenerator):
        return generator.diffusion.model
    if isinstance(generator, PipelineGenerator):
        parts = generator.pipeline.components
        return next((parts[name] for name in NETWORKS if name in parts), None)
    return None


def parameters_of(generator: Generator) -> int | None:
    """Numbers in the network; None without one."""
    network = network_of(generator)
    return None if network is None else sum(parameter.numel() for parameter in network.parameters())


def evaluations_of(generator: Generator, *, seed: int = 0) -> int | None:
    """How often the network sees a picture while it becomes one, as counted in making one; None without a network.

    Guidance shows every picture twice at each step, whether in one batch or in two.

    Args:
        generator: makes the picture.
        seed: of the picture.
    """
    network, count = network_of(generator), 0
    if network is None:
        return None

    def see(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal count
        count += len(
            next(each for each in (*arguments, *named.values()) if isinstance(each, Tensor) and each.ndim == 4)
        )

    hook = network.register_forward_pre_hook(see, with_kwargs=True)
    try:
        generator.generate([seed])
    finally:
        hook.remove()
    return count


def with_evaluations(generator: Generator, wanted: int) -> Generator | None:
    """The same generator with as many steps as ``wanted`` evaluations of the network allow; None if it has no steps.

    Raises:
        RequestError: not even one step is possible with so few, or it cannot take so many.
    """
    if network_of(generator) is None:
        return None
    few, more = (evaluations_of(with_steps(generator, steps)) or 0 for steps in (2, 3))
    # A sampler takes as many evaluations for each further step: one, or two of second order, twice that with guidance.
    steps = 2 + (wanted - few) // max(more - few, 1)
    if steps < 1:
        raise RequestError(f"nfe: {wanted} is not allowed; allowed: {2 * few - more} or more, which one step takes")
    return with_steps(generator, steps)


def with_steps(generator: Generator, steps: int) -> Generator:
    """The same generator with another number of steps; raises :class:`RequestError` where it cannot take them."""
    if isinstance(generator, DiffusionGenerator):
        settings: dict[str, Any] = {**generator.settings(), "steps": steps}
        return DiffusionGenerator(generator.diffusion, shape=generator.shape, **settings)
    if isinstance(generator, PipelineGenerator):
        return PipelineGenerator(generator.pipeline, steps=steps)
    raise TypeError(f"{type(generator).__name__} has no steps")
