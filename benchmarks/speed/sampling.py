"""How long pictures take: seeds to finished uint8 pictures on the CPU."""

import time

import torch

from ddm.diffusion import GaussianDiffusion
from ddm.generators import DiffusionGenerator

from . import ours
from .rounds import Spread
from .session import Session


def measure(session: Session, compile: ours.Compile) -> None:
    """A row ``sampling``; the weights are random, which takes as long as others."""
    device, sizes = session.device.torch, session.sizes
    row = {"kind": "sampling", "pictures": sizes.sampled, "evaluations": sizes.evaluations}
    row |= {"network": sizes.sampler, "precision": ours.precision_of(device)}
    with session.attempt(row):
        session.begin()
        network = ours.make_network(sizes.sampler, sizes.side, device, None)
        parameters = sum(each.numel() for each in network.parameters())
        diffusion = GaussianDiffusion(network, schedule="lognormal", objective="edm", weighting="edm_lambda")
        shape = (3, sizes.side, sizes.side)
        options = {"sampler": "dpmpp_2m", "steps": sizes.evaluations, "precision": ours.precision_of(device)}
        generator = DiffusionGenerator(diffusion, shape=shape, **options)
        row["evaluations"] = evaluations_of(generator)
        if compile is not None:  # not before: a second batch size would make it compile for all sizes
            network.compile(**compile)
        generator.generate(range(sizes.sampling_batch))  # compiles and warms up
        seconds = [make_all(session, generator) for _ in range(1 if session.device.cuda else session.rounds)]
        session.rows.add(**row, parameters=parameters, sampler="dpmpp_2m", seconds=Spread.of(seconds).plain(4))
    session.device.clear()


def evaluations_of(generator: DiffusionGenerator) -> int:
    """How often the network is evaluated for a picture, as counted in making one."""
    count, denoise = 0, generator.denoiser([0])

    def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return denoise(x, sigma)

    noise = generator.noise([0])
    for _ in generator.solve(counted, noise() * generator.grid[0], generator.grid, noise):
        pass
    return count


def make_all(session: Session, generator: DiffusionGenerator) -> float:
    """Seconds of all pictures."""
    sizes, started = session.sizes, time.perf_counter()
    for first in range(0, sizes.sampled, sizes.sampling_batch):
        if time.monotonic() > session.until:
            raise TimeoutError(f"the time was up after {first} pictures")
        generator.generate(range(first, min(first + sizes.sampling_batch, sizes.sampled)))
    return time.perf_counter() - started
