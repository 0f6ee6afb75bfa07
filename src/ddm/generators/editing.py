"""Pictures made from pictures: image to image, inpainting, to noise and back; and pictures between two seeds.

    from ddm import editing, load

    generator = load("runs/edm").generator
    for step in editing.from_pictures(generator, pictures, sigma=2.0, seeds=range(len(pictures))):
        ...  # step.x0 shows how far it is; the last step.x are the pictures

Each gives the steps of the sampler, as :meth:`DiffusionGenerator.stream` does; stop iterating to stop the work.
Pictures are floats ``[n, c, h, w]`` in [-1, 1] (:func:`ddm.images.to_float`). Labels are one class a picture; without
them a picture is of no class, which is the number ``generator.classes``.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddm.diffusion import Step
from ddm.diffusion.editing import between as noise_between
from ddm.diffusion.editing import grid_below, inpainting
from ddm.diffusion.editing import invert as flow_upward
from ddm.errors import RequestError
from ddm.generators.ours import DiffusionGenerator


def grid_from(generator: DiffusionGenerator, sigma: float | None) -> Tensor:
    """The noise levels of an edit that begins at ``sigma``; None is the whole grid.

    Raises:
        RequestError: the model's noise levels, or the generator's grid, do not reach there.
    """
    if sigma is None:
        return generator.grid
    return grid_below(generator.settings()["grid"], generator.diffusion.sigmas, generator.grid, sigma)


def from_pictures(
    generator: DiffusionGenerator,
    pictures: Tensor,
    sigma: float,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    *,
    unknown: Tensor | None = None,
) -> Iterator[Step]:
    """Image to image: noise is put on pictures and taken away again; Meng et al. 2021 (arXiv 2108.01073).

    Args:
        generator: the model and how it samples.
        pictures: ``[n, c, h, w]``.
        sigma: how much noise: little keeps a picture, the highest level leaves hardly anything of it.
        seeds: of the noise, one a picture.
        labels: one a picture; none by default.
        unknown: bool, broadcastable to the pictures: False keeps what is there; everything is made anew by default.

    Raises:
        RequestError: ``sigma`` is not one of the generator's noise levels.
    """
    return _from(generator, pictures, sigma, seeds, labels, unknown)


def inpaint(
    generator: DiffusionGenerator,
    pictures: Tensor,
    unknown: Tensor,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    *,
    sigma: float | None = None,
) -> Iterator[Step]:
    """Make a part of pictures anew that fits the rest; how, and how well: :func:`ddm.diffusion.editing.inpainting`.

    Args:
        generator: the model and how it samples; the more noise its sampler draws, as ``"heun(churn=100)"``
            with many steps does, the better the parts agree.
        pictures: ``[n, c, h, w]``; without ``sigma`` the unknown part of them does not matter.
        unknown: bool, broadcastable to the pictures: True where they are made anew.
        seeds: of the noise, one a picture.
        labels: one a picture; none by default.
        sigma: begin at this noise level, so that the old content of the unknown part shows through.

    Raises:
        RequestError: ``sigma`` is not one of the generator's noise levels.
    """
    return _from(generator, pictures, sigma, seeds, labels, unknown)


def _from(
    generator: DiffusionGenerator,
    pictures: Tensor,
    sigma: float | None,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    unknown: Tensor | None,
) -> Iterator[Step]:
    grid, noise = grid_from(generator, sigma), generator.noise(seeds)
    fresh = noise()
    start = known = pictures.to(fresh)
    denoise = generator.denoiser(seeds, _classes(generator, labels, len(pictures)))
    if unknown is not None:
        unknown = unknown.to(fresh.device)
        denoise = inpainting(denoise, known, unknown)
        if sigma is None:
            start = torch.where(unknown, 0, known)
    return generator.solve(denoise, start + grid[0] * fresh, grid, noise)


def invert(generator: DiffusionGenerator, pictures: Tensor, labels: Sequence[int] | None = None) -> Iterator[Step]:
    """Pictures to noise along the deterministic flow: the last ``x`` is at the generator's first level.

    Guidance is left out: with it the way up does not end in noise. :func:`from_noise` is the way back.

    Args:
        generator: the model and its grid.
        pictures: ``[n, c, h, w]``.
        labels: what the pictures show; none by default.

    Raises:
        RequestError: a grid of one step, on which there is no way.
    """
    if len(generator.grid) < 3:
        raise RequestError("sample.steps: 1 is not allowed where pictures are inverted; allowed: 2 or more")
    alone = generator.with_settings(guidance=1.0, guide=None, guide_name=None)
    start = pictures.to(generator.noise([0])())
    denoise = alone.denoiser(range(len(pictures)), _classes(alone, labels, len(pictures)))
    return alone.advance(flow_upward(denoise, start, alone.grid))


def from_noise(
    generator: DiffusionGenerator, noise: Tensor, seeds: Sequence[int], labels: Sequence[int] | None = None
) -> Iterator[Step]:
    """From noise at the generator's first level, such as :func:`invert` gives, down to pictures.

    Args:
        generator: the model and how it samples.
        noise: ``[n, c, h, w]``.
        seeds: of the noise that a stochastic sampler draws on its way, one a picture.
        labels: one a picture; none by default.
    """
    denoise = generator.denoiser(seeds, _classes(generator, labels, len(noise)))
    return generator.solve(denoise, noise, generator.grid, generator.noise(seeds))


def reconstruct(
    generator: DiffusionGenerator,
    pictures: Tensor,
    seeds: Sequence[int],
    labels: Sequence[int] | None = None,
    *,
    shown: Sequence[int] | None = None,
) -> Iterator[Step]:
    """Pictures to noise and back, first the steps of the way up, as many as the grid has less one.

    With the same labels both ways, no guidance and a deterministic sampler the pictures come back; with other
    ``labels`` or guidance they change into those.

    Args:
        generator: the model and how it samples.
        pictures: ``[n, c, h, w]``.
        seeds: as of :func:`from_noise`.
        labels: of the way back; none by default.
        shown: what the pictures show, the labels of the way up; none by default.

    Raises:
        RequestError: as :func:`invert` does.
    """
    noise = pictures
    for step in invert(generator, pictures, shown):
        noise = step.x
        yield step
    yield from from_noise(generator, noise, seeds, labels)


def between(
    generator: DiffusionGenerator, first: int, last: int, shares: Sequence[float], labels: Sequence[int] | None = None
) -> Iterator[Step]:
    """Pictures between those of two seeds: their noise is interpolated, in every step, on the sphere where noise lies.

    Args:
        generator: the model and how it samples.
        first: the seed at share 0.
        last: the seed at share 1.
        shares: one a picture, in [0, 1].
        labels: one a picture; that of ``first`` by default.
    """
    a, b = (generator.noise([seed] * len(shares)) for seed in (first, last))
    noise = noise_between(a, b, torch.tensor(shares, dtype=torch.float64))
    denoise = generator.denoiser([first] * len(shares), labels)
    return generator.solve(denoise, noise() * generator.grid[0], generator.grid, noise)


def draws_noise(generator: DiffusionGenerator) -> bool:
    """Whether the sampler draws noise on its way, found by watching it at work on one pixel."""
    drawn = []

    def noise() -> Tensor:
        drawn.append(True)
        return torch.zeros(1, 1, 1, 1)

    for _ in generator.sampler(lambda x, sigma: x * 0, torch.ones(1, 1, 1, 1), generator.grid, noise):
        if drawn:
            return True
    return bool(drawn)


def _classes(generator: DiffusionGenerator, labels: Sequence[int] | None, count: int) -> Sequence[int] | None:
    return [generator.classes] * count if labels is None and generator.classes else labels
