"""How good pictures are: feature spaces, metrics in them, and the protocol that makes two numbers comparable.

Every file of this folder that registers a metric or a feature space is found by itself."""

import importlib
import pkgutil

from ddm.metrics.features import Extractor, features
from ddm.metrics.measurement import Embedded, Measurement, metrics

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")

__all__ = ["Embedded", "Extractor", "Measurement", "features", "metrics"]
