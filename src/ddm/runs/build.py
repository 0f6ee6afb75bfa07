"""A Config made into objects; the only file that knows both sides."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ddm.data import ImageSet, get_data, sources
from ddm.diffusion import GaussianDiffusion, check_interval, clippings, make_grid, samplers
from ddm.errors import RequestError
from ddm.networks import Network, networks
from ddm.runs import evaluation
from ddm.runs.config import Config, Sampling
from ddm.runs.trackers import check_trackers
from ddm.training import Trainer, averages, optimizers


def check(config: Config) -> None:
    """Bind every choice of a Config, before data or device is touched.

    Raises:
        RequestError: one line that names the field, the value and what is allowed.
    """
    sources.check(config.data, field="data")
    for rule in config.train.ema:
        averages.check(rule, field="train.ema")
    optimizers.check(config.train.optimizer, field="train.optimizer")
    check_trackers(config.trackers)
    if not config.train.ema:
        raise RequestError("train.ema: no average is not allowed; allowed: one or more, e.g. constant(decay=0.9999)")
    with shapes_alone():
        network = make_network(config, channels=3, classes=10 if config.conditional else 0)
    network.check_size(config.image_size, config.image_size)
    diffusion = make_diffusion(config, network)
    samplers.check(config.sample.sampler, field="sample.sampler")
    make_grid(config.sample.grid, diffusion.sigmas, config.sample.steps)
    clippings.check(config.sample.clip, field="sample.clip")
    check_interval(config.sample.guidance_low, config.sample.guidance_high)
    check_evaluation(config)
    if config.sample.guidance != 1 and not config.conditional:
        raise RequestError(
            f"sample.guidance: {config.sample.guidance} is not allowed when conditional is False; allowed: 1"
        )


def check_evaluation(config: Config) -> None:
    """Raise :class:`RequestError` for what could not be measured, or a best checkpoint that nothing would tell."""
    evaluation.check(config.evaluate)
    best = config.keep.best
    if best in ("fid", "kid") and not (config.every.evaluate and best in config.evaluate.metrics):
        raise RequestError(
            f"keep.best: {best!r} is not allowed when every.evaluate is {config.every.evaluate} and evaluate.metrics "
            f"are {', '.join(config.evaluate.metrics)}; allowed: loss, gradient_norm, or measure {best} while training"
        )


class _Unfilled(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "normal_":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Networks made here have shapes and no memory; nothing is drawn.

    To draw normal numbers without memory, torch imports its compiler, which takes longer than to sample 16 pictures.
    """
    with torch.device("meta"), _Unfilled():
        yield


def make_network(config: Config, *, channels: int, classes: int) -> Network:
    """The backbone, with fresh weights from torch's global generator."""
    network = networks.bind(config.network, field="network")
    given = {"channels": channels, "classes": classes, "size": config.image_size}
    taken = networks.parameters(network.func)
    return network(**{name: value for name, value in given.items() if name in taken})


def make_diffusion(config: Config, network: Network) -> GaussianDiffusion:
    """The network with the schedule, objective and weighting of the Config."""
    return GaussianDiffusion(
        network,
        timesteps=config.timesteps,
        schedule=config.schedule,
        objective=config.objective,
        weighting=config.weighting,
        task=config.task,
    )


def make_data(config: Config) -> ImageSet:
    """The pictures of the Config, read and cached.

    Raises:
        RequestError: they cannot be had, or have no labels where the Config wants them.
    """
    data = get_data(config.data, config.train.batch, config.image_size)
    if config.conditional and data.labels is None:
        raise RequestError(f"conditional: True is not allowed, {config.data} has no labels; allowed: False")
    return data


def make_trainer(config: Config, data: ImageSet, *, device: str) -> Trainer:
    """A trainer at step 0: the same Config gives the same initial weights."""
    torch.manual_seed(config.train.seed)
    classes = len(data.classes) if config.conditional else 0
    diffusion = make_diffusion(config, make_network(config, channels=data.channels, classes=classes))
    return Trainer(diffusion, data, device=device, **config.train.model_dump())


def sampling_options(sample: Sampling) -> dict[str, Any]:
    """The options of a :class:`ddm.generators.DiffusionGenerator` in these settings."""
    return sample.model_dump(exclude={"count"})
