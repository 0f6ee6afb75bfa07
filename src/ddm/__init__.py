"""ddm: train, understand, measure and show denoising diffusion models of images.

    from ddm import Unet, GaussianDiffusion, Trainer, get_data

The names are imported when first used, so that ``import ddm`` (and ``ddm --help``) costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddm.version import __version__

if TYPE_CHECKING:
    from ddm.data import get_data
    from ddm.diffusion import GaussianDiffusion
    from ddm.generators import DiffusionGenerator, editing
    from ddm.networks.residual_unet import ResidualUnet
    from ddm.networks.unet import Unet
    from ddm.runs.sources import load
    from ddm.training import Trainer

_HOMES = {
    "DiffusionGenerator": "ddm.generators",
    "GaussianDiffusion": "ddm.diffusion",
    "ResidualUnet": "ddm.networks.residual_unet",
    "Trainer": "ddm.training",
    "Unet": "ddm.networks.unet",
    "editing": "ddm.generators",
    "get_data": "ddm.data",
    "load": "ddm.runs.sources",
}

__all__ = [
    "DiffusionGenerator",
    "GaussianDiffusion",
    "ResidualUnet",
    "Trainer",
    "Unet",
    "__version__",
    "editing",
    "get_data",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ddm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
