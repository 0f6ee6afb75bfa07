"""Pictures, films and curves as text that stands within a page: nothing is fetched when the page is opened."""

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ddm.images import grid, to_pil
from ddm.metrics.features import as_rgb

LOSSLESS = 700
"""Pixels of the longer side up to which pictures are kept exactly; larger ones would weigh megabytes."""

INK = "#0b0c0d"
"""Drawn where the page's own ink is meant."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters stay letters: they are crisp, can be searched, and have the font of the page
    "text.parse_math": False,
    "font.size": 9,
    "path.simplify_threshold": 0.3,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Args:
        uri: the picture itself, ``data:image/webp;base64,...``.
        width: in its own pixels.
        height: in its own pixels.
        alt: what is to be seen, in words.
    """

    uri: str
    width: int
    height: int
    alt: str


def sheet(pixels: Tensor, *, columns: int | None = None) -> Tensor:
    """Pictures in rows as :func:`ddm.images.grid` lays them out, what is between them being transparent.

    Args:
        pixels: uint8 ``[n, 1 or 3 or 4, h, w]``.
        columns: pictures in a row; the smallest square by default.

    Returns:
        uint8 ``[4, H, W]``.
    """
    colour = grid(as_rgb(pixels), columns=columns)
    gaps = grid(torch.zeros_like(pixels[:, :1]), columns=columns)
    return torch.cat((colour, 255 - gaps))[:, 1:-1, 1:-1]


def picture(pixels: Tensor, alt: str) -> Picture:
    """A picture of uint8 ``[c, h, w]``."""
    return _webp([to_pil(pixels)], alt)


def film(frames: Sequence[Tensor], alt: str) -> Picture:
    """A moving picture of uint8 ``[c, h, w]`` each, over and over, about three seconds long, its end held for two."""
    duration = [max(40, 3000 // len(frames))] * (len(frames) - 1) + [2000]
    return _webp([to_pil(each) for each in frames], alt, duration=duration, loop=0)


def _webp(frames: Sequence[Image.Image], alt: str, **timing: Any) -> Picture:
    first, *others = frames
    file = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "append_images": others, **timing} if others else {}
    first.save(file, format="WEBP", lossless=max(first.size) <= LOSSLESS, quality=90, **options)
    return Picture(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", *first.size, alt)


def drawing(draw: Callable[[Any], None], *, name: str, size: tuple[float, float] = (4.8, 3.0)) -> str:
    """An SVG element of what ``draw`` puts into matplotlib axes.

    Black becomes the ink of the page, and every other colour the page's variable ``--RRGGBB`` where it has one, so
    that a drawing suits a dark page too.

    Args:
        draw: called with the axes.
        name: no other drawing of the page has it.
        size: width and height in inches, at 9 points of letters.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        figure.savefig(file, format="svg", transparent=True)
    return _for_pages(file.getvalue())


def _for_pages(svg: str) -> str:
    """An SVG file as an element of HTML: without header, its own style, names that nothing refers to, and fonts."""
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href").replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>| xmlns(:xlink)?=\"[^\"]*\"", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"| version="1.1"', "", svg, count=3)
    svg = re.sub(r' id="(?![pm][0-9a-f]{10}")[^"]*"', "", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"(?<=: )#([0-9a-f]{6})", r"var(--\1, #\1)", svg)
    return re.sub(r"\s+", " ", svg)
