"""Backbones, one a file; every module beside this one registers its own."""

import importlib
import pkgutil

from ddm.networks.base import Network, networks

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")

__all__ = ["Network", "networks"]
