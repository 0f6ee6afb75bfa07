"""What a picture costs: the parameters of the network and how often it is evaluated."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator, Generator, PipelineGenerator
from ddm.registry import Choice
from ddm.runs.searched import GridFamily

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
    """Numbers in the network, without those of a guide; None without one."""
    network = network_of(generator)
    return None if network is None else sum(parameter.numel() for parameter in network.parameters())


def evaluations_of(generator: Generator, *, seed: int = 0) -> int | None:
    """How often the network sees a picture while it becomes one, as counted in making one; None without a network.

    Guidance shows every picture twice at each step in its interval, whether in one batch or in two. What a guide sees
    counts like what the model sees, even where its network is smaller.

    Args:
        generator: makes the picture.
        seed: of the picture.
    """
    if not _networks_of(generator):
        return None
    with counted(generator) as seen:
        generator.generate([seed])
    return seen()


@contextmanager
def counted(generator: Generator) -> Iterator[Callable[[], int]]:
    """While it is open, how often the networks of a generator saw a picture: a batch of 64 counts as 64."""
    count = 0

    def see(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal count
        count += len(
            next(each for each in (*arguments, *named.values()) if isinstance(each, Tensor) and each.ndim == 4)
        )

    hooks = [each.register_forward_pre_hook(see, with_kwargs=True) for each in _networks_of(generator)]
    try:
        yield lambda: count
    finally:
        for hook in hooks:
            hook.remove()


def _networks_of(generator: Generator) -> set[nn.Module]:
    """The network and that of a guide, which may be the same."""
    if isinstance(generator, DiffusionGenerator):
        return set(generator.networks)
    network = network_of(generator)
    return set() if network is None else {network}


def with_evaluations(generator: Generator, wanted: int, grids: GridFamily | None = None) -> Generator | None:
    """The same generator with as many steps as ``wanted`` evaluations of the network allow; None if it has no steps.

    Args:
        generator: makes pictures.
        wanted: evaluations for each.
        grids: as in :func:`with_steps`.

    Raises:
        RequestError: not even one step is possible with so few, or it cannot take so many; or the sampler chooses its
            steps itself.
    """
    if network_of(generator) is None:
        return None

    def count(steps: int) -> int:
        return evaluations_of(_any_grid(generator, steps, grids)) or 0

    few, more = count(2), count(3)
    if few == more:
        sampler = generator.settings().get("sampler")
        raise RequestError(f"nfe: {wanted} is not allowed with {sampler}, which takes as many as it finds it needs")
    if _is_guided_in_part(generator):  # more steps are at least as many evaluations, but by how many differs
        steps, least = bisect_right(range(1, wanted + 1), wanted, key=count), count(1)
    else:  # each further step takes as many: one, or two of second order, twice that with guidance
        steps, least = 2 + (wanted - few) // max(more - few, 1), 2 * few - more
    if steps < 1:
        raise RequestError(f"nfe: {wanted} is not allowed; allowed: {least} or more, which one step takes")
    return with_steps(generator, steps, grids)


def _is_guided_in_part(generator: Generator) -> bool:
    settings = generator.settings()
    bounds = settings.get("guidance_low", 0), settings.get("guidance_high")
    return settings.get("guidance", 1) != 1 and bounds != (0, None)


def _any_grid(generator: Generator, steps: int, grids: GridFamily | None) -> Generator:
    """As :func:`with_steps`, but where there is no grid of so many steps on one that can have any number of them."""
    settings = generator.settings()
    if Choice.parse(settings.get("grid", "karras")).name != "levels":
        return with_steps(generator, steps)
    known = {settings["steps"]: settings["grid"]} if grids is None else grids.choices
    return with_steps(generator, steps, GridFamily(known, "karras"))


def with_steps(generator: Generator, steps: int, grids: GridFamily | None = None) -> Generator:
    """The same generator with another number of steps.

    Args:
        generator: makes pictures.
        steps: of the new one.
        grids: that of each number of steps, as in :attr:`ddm.runs.model.Model.grids`; None keeps the choice as it is.

    Raises:
        RequestError: it cannot take so many: a grid of given levels has as many steps as levels.
    """
    if isinstance(generator, DiffusionGenerator):
        changes = {} if grids is None else {"grid": grids.of(steps)}
        return generator.with_settings(steps=steps, **changes)
    if isinstance(generator, PipelineGenerator):
        return PipelineGenerator(generator.pipeline, steps=steps)
    raise TypeError(f"{type(generator).__name__} has no steps")
