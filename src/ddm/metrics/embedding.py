"""Pictures to features, once: the features of every :data:`CHUNK` pictures are one file, found again by its content."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ddm.metrics.features import Extractor
from ddm.storage import Damaged, digest_of, digest_of_tensors, read_tensors, write_tensors

CHUNK = 500
"""Pictures whose features are kept in one file."""

Vectors = dict[str, Tensor]
"""``features`` ``[n, d]`` and, where the network classifies, ``logits`` ``[n, k]``; float32, on the CPU."""


def embed(extractor: Extractor, pixels: Tensor, *, batch: int) -> Vectors:
    """The features of pictures, uint8 ``[n, c, h, w]``, ``batch`` at a time."""
    device = next(extractor.parameters()).device
    pieces = [extractor(part.to(device)) for part in pixels.split(batch)]
    found = {"features": torch.cat([features for features, _ in pieces]).cpu()}
    if pieces[0][1] is not None:
        found["logits"] = torch.cat([logits for _, logits in pieces if logits is not None]).cpu()
    return found


class FeatureCache:
    """Features on disk, keyed by the digest of the feature space and the content of the pictures.

    Args:
        folder: where to keep them.
        extractor: whose they are.
        say: told about files that are damaged.
    """

    def __init__(self, folder: Path, extractor: Extractor, say: Callable[[str], None] = lambda _: None):
        self._folder, self._extractor, self._say = folder, extractor, say

    def path(self, pixels: Tensor) -> Path:
        """The file for these pictures, uint8 ``[n, c, h, w]``; every pixel, the order and the shape decide it."""
        key = digest_of(self._extractor.digest, digest_of_tensors({"pixels": pixels}))
        return self._folder / self._extractor.digest[:16] / f"{key}.safetensors"

    def read(self, pixels: Tensor) -> Vectors | None:
        """The features of these pictures if they were kept."""
        try:
            found = read_tensors(self.path(pixels))
        except Damaged as damage:
            self._say(f"a kept file is damaged and is made again: {damage}")
            return None
        return found

    def write(self, pixels: Tensor, vectors: Vectors) -> None:
        """Keep them; raises :class:`~ddm.errors.DdmError` where the folder cannot be written."""
        write_tensors(self.path(pixels), vectors)
