"""The mathematics: pure torch, no files, no printing, no configuration."""

from ddm.diffusion.editing import between, inpainting, invert, spherical
from ddm.diffusion.gaussian import GaussianDiffusion
from ddm.diffusion.grids import grids, make_grid
from ddm.diffusion.guidance import Denoise, autoguided, check_interval, clipped, clippings, labelled
from ddm.diffusion.objectives import objectives, weightings
from ddm.diffusion.samplers import Noise, Step, samplers
from ddm.diffusion.schedules import schedules
from ddm.diffusion.tasks import tasks, wide

__all__ = [
    "Denoise",
    "GaussianDiffusion",
    "Noise",
    "Step",
    "autoguided",
    "between",
    "check_interval",
    "clipped",
    "clippings",
    "grids",
    "inpainting",
    "invert",
    "labelled",
    "make_grid",
    "objectives",
    "samplers",
    "schedules",
    "spherical",
    "tasks",
    "weightings",
    "wide",
]
