"""Data sets of pictures as uint8 tensors, and batches of them as functions of a seed; every source in this folder
registers its own."""

import importlib
import pkgutil

from ddm.data.imageset import Batch, ImageSet
from ddm.data.inspection import Inspection, inspect
from ddm.data.loading import get_data
from ddm.data.source import BadPicture, sources

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")

__all__ = ["BadPicture", "Batch", "ImageSet", "Inspection", "get_data", "inspect", "sources"]
