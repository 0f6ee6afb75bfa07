"""Samplers: noise to picture. A family a file; every module beside this one registers its own."""

import importlib
import pkgutil

from ddm.diffusion.samplers.base import Noise, Step, direction, samplers

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")

__all__ = ["Noise", "Step", "direction", "samplers"]
