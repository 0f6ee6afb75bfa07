"""Pictures as tensors: [-1, 1] floats for networks, uint8 for everything that leaves the program."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional as F

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name for a picture of so many channels."""


def to_float(pixels: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1], any shape."""
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats [-1, 1] to uint8, rounded to the nearest level (not truncated) and clamped; any shape."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def grid(pixels: Tensor, *, columns: int | None = None, scale: int = 1, gap: int = 1) -> Tensor:
    """Lay pictures out row by row on white.

    Args:
        pixels: uint8 ``[n, c, h, w]``.
        columns: pictures in a row; the smallest square by default.
        scale: every pixel becomes a square of this side (nearest neighbour, nothing is blurred).
        gap: white pixels between pictures, before scaling.

    Returns:
        uint8 ``[c, H, W]``.
    """
    count, channels, height, width = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    canvas = pixels.new_full((rows * columns, channels, height + gap, width + gap), 255)
    canvas[:count, :, :height, :width] = pixels
    sheet = canvas.reshape(rows, columns, channels, height + gap, width + gap).permute(2, 0, 3, 1, 4)
    sheet = sheet.reshape(channels, rows * (height + gap), columns * (width + gap))
    sheet = F.pad(sheet, (gap, 0, gap, 0), value=255)
    return sheet.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def to_pil(pixels: Tensor) -> Image.Image:
    """uint8 ``[c, h, w]`` with 1, 3 or 4 channels to a Pillow picture of mode L, RGB or RGBA."""
    array = pixels.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array, MODES[array.shape[-1]])


def save_png(path: Path | str, pixels: Tensor, *, text: Mapping[str, str] | None = None) -> None:
    """Write uint8 ``[c, h, w]`` as PNG with the given text chunks, creating the folder where needed."""
    path, info = Path(path), PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(pixels).save(path, format="PNG", pnginfo=info)
