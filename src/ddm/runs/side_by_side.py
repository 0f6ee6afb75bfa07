"""Pictures of several sources in one picture: the same seeds, a block a source, its name above."""

import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ddm.images import grid, to_pil
from ddm.metrics.features import as_rgb

SHOWN = 36
"""Pictures of a block at most."""

WIDTH = 400
"""Pixels of a block, about: small pictures are enlarged by whole numbers, of large ones fewer are shown."""

ACROSS = 4
"""Blocks in a row at most."""

MARGIN, GAP, TITLE, LINE = 28, 30, 19, 15
INK, SOFT = "#1c1c1c", "#6b6b6b"


def draw_side_by_side(pictures: Mapping[str, Tensor], captions: Mapping[str, str], path: Path, *, title: str) -> None:
    """Write one PNG in which the same place of every block is the same seed.

    Args:
        pictures: uint8 ``[n, c, h, w]`` by the name of their source.
        captions: lines under each name.
        path: the PNG; its folder is made.
        title: a line at the foot of the whole.
    """
    blocks = {name: to_pil(_block(pixels)) for name, pixels in pictures.items()}
    across = _across(len(blocks))
    width, height = (max(size) for size in zip(*(block.size for block in blocks.values())))
    head = TITLE + 14 + (LINE + 5) * max(len(captions[name].splitlines()) for name in blocks)
    rows = -(-len(blocks) // across)
    size = (
        2 * MARGIN + across * width + (across - 1) * GAP,
        2 * MARGIN + rows * (head + height) + (rows - 1) * GAP + LINE + 16,
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, block) in enumerate(blocks.items()):
        left = MARGIN + number % across * (width + GAP)
        top = MARGIN + number // across * (head + height + GAP)
        draw.text((left, top), _fit(name, width, _font(TITLE, bold=True)), INK, _font(TITLE, bold=True))
        for line, words in enumerate(captions[name].splitlines()):
            place = left, top + TITLE + 8 + line * (LINE + 5)
            draw.text(place, _fit(words, width, _font(LINE)), SOFT, _font(LINE))
        sheet.paste(block, (left, top + head))
    foot = _fit(title, size[0] - 2 * MARGIN, _font(LINE))
    draw.text((MARGIN, size[1] - MARGIN - LINE), foot, SOFT, _font(LINE))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _block(pixels: Tensor) -> Tensor:
    """The first pictures as one, uint8 ``[3, H, W]``; fewer where they are large."""
    side = pixels.shape[-1]
    columns = max(1, min(math.ceil(math.sqrt(min(len(pixels), SHOWN))), 2 * WIDTH // side))
    scale = max(1, WIDTH // (columns * (side + 1)))
    sheet = grid(as_rgb(pixels[: min(columns**2, SHOWN)].cpu()), columns=columns, scale=scale)
    return sheet[:, scale:-scale, scale:-scale]  # names stand above the first picture, not above its margin


def _across(count: int) -> int:
    """Blocks in a row, such that the last row is as full as can be."""
    return min(range(min(count, ACROSS), 0, -1), key=lambda across: (-(-count // across), -count % across))


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path  # it brings a font with the letters of most languages

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size)


def _fit(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """The text, without its middle where it is too long: names of runs differ at either end."""
    cut = len(text)
    shown = text
    while font.getlength(shown) > width and cut > 2:
        cut -= 1
        shown = f"{text[: cut - cut // 2]}…{text[len(text) - cut // 2 :]}"
    return shown
