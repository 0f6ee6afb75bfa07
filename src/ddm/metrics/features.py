"""Feature spaces: pictures to vectors whose distances mean something; one network a file."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from ddm.registry import Registry

features = Registry("features")
"""Subclasses of :class:`Extractor`; making one loads its weights."""


class Extractor(nn.Module, ABC):
    """A frozen network that places pictures in a feature space.

    Attributes:
        digest: SHA-256 of everything that decides the features: weights, resizing, and :attr:`version`.
        resize: in words, how pictures get the network's size.
        dimension: of a feature vector.
        version: to be raised when a change of the code changes the features.
    """

    version: ClassVar[int] = 1
    digest: str
    resize: str
    dimension: int

    @abstractmethod
    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features float32 ``[b, d]`` and, where the network classifies, logits float32 ``[b, k]``.

        Args:
            pixels: uint8 ``[b, 3, h, w]`` on the network's device.
        """

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """As :meth:`embed`, for uint8 pictures ``[b, c, h, w]`` of 1, 3 or 4 channels.

        Raises:
            TypeError: the pictures are not uint8: what nobody can save is not measured.
        """
        if pixels.dtype != torch.uint8:
            raise TypeError(f"pictures must be uint8, not {pixels.dtype}; ddm.images.to_uint8 rounds them")
        assert not self.training, "a feature network measures in eval mode"
        # TF32, which GPUs use for convolutions by default, would move features in the third digit.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.autocast(pixels.device.type, enabled=False), exact:
            return self.embed(as_rgb(pixels))


def as_rgb(pixels: Tensor) -> Tensor:
    """uint8 ``[b, 1 or 3 or 4, h, w]`` to ``[b, 3, h, w]``: gray is repeated, transparent pictures lie on white."""
    if pixels.shape[1] == 1:
        return pixels.expand(-1, 3, -1, -1)
    if pixels.shape[1] == 4:
        colour, alpha = pixels[:, :3].float(), pixels[:, 3:].float() / 255
        return (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    return pixels
