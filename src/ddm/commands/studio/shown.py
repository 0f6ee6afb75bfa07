"""Pictures as a page shows them: the exact bytes of a PNG with its metadata, enlarged without smoothing."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ddm.images import to_pil

WIDTHS = ((3, 256), (8, 192), (16, 128), (64, 96))
"""So many pictures are shown this wide, about: in whole pixels of theirs."""


@dataclass(frozen=True)
class Shown:
    """A picture in a gallery.

    Args:
        file: the bytes of its PNG.
        caption: the words under it.
        note: smaller words under those.
        alt: what is to be seen, for those who do not see it.
        save: the name under which it is saved; empty as long as it is not finished.
        seed: of which more may be asked for; none by default.
    """

    file: bytes
    caption: str
    note: str = ""
    alt: str = ""
    save: str = ""
    seed: int | None = None


def png(pixels: Tensor, text: Mapping[str, str] | None = None) -> bytes:
    """A picture, uint8 ``[c, h, w]``, as the bytes of a PNG with these text chunks."""
    info, file = PngInfo(), io.BytesIO()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    to_pil(pixels).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def data_uri(file: bytes, kind: str = "image/png") -> str:
    """The file itself as an address, so that a browser shows and saves these very bytes."""
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def gallery(pictures: Sequence[Shown], *, side: int) -> str:
    """Pictures as HTML, each with its words and a link that saves the exact file.

    Args:
        pictures: in their order.
        side: pixels that one of them is wide.
    """
    about = next((width for count, width in WIDTHS if len(pictures) <= count), WIDTHS[-1][1])
    width = side * max(1, about // side)
    return f'<div class="gallery" style="--width: {width}px">{"".join(map(_figure, pictures))}</div>'


def _figure(shown: Shown) -> str:
    address, alt = data_uri(shown.file), html.escape(shown.alt or shown.caption)
    links = ""
    if shown.save:
        name = html.escape(shown.save)
        links += f'<a href="{address}" download="{name}" aria-label="Save {name}">Save</a>'
    if shown.save and shown.seed is not None:
        links += f'<button type="button" data-seed="{shown.seed}" aria-label="More like {alt}">More like this</button>'
    note = f"<small>{html.escape(shown.note)}</small>" if shown.note else ""
    words = f"<strong>{html.escape(shown.caption)}</strong>{note}<span>{links}</span>"
    return f'<figure><img src="{address}" alt="{alt}" decoding="sync"><figcaption>{words}</figcaption></figure>'
