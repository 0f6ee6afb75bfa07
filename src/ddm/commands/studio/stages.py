"""What is seen of a sampler at work: pictures side by side with a word under each, and how far it is."""

import html
import math
from collections.abc import Sequence

from torch import Tensor

from ddm.commands.studio.denoising import side_by_side
from ddm.commands.studio.shown import data_uri, png

WIDTH, SMALL, STRIP = 168, 104, 72
"""Pixels of the page that a picture takes, one of many, and one of several that are shown as one."""

CSS = """
.gradio-container { width: 100%; }
.gradio-container, .gradio-container > .main, .gradio-container > .main > .wrap, .gradio-container main.contain {
  min-width: 0; }
.stage { display: flex; flex-wrap: wrap; gap: 1rem 1.25rem; align-items: flex-start; }
.stage figure { margin: 0; max-width: 100%; }
.stage img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 4px;
  background: var(--background-fill-secondary); }
.stage figcaption { font-size: .85rem; color: var(--soft); margin-top: .35rem; max-width: 22rem; }
.stage a { color: var(--link-text-color); }
.way { margin-top: .75rem; font-size: .85rem; color: var(--soft); }
.way progress { width: min(100%, 24rem); height: 6px; accent-color: var(--color-accent); display: block; }
@media (max-width: 640px) { .stage { gap: .8rem; } .stage figure { max-width: calc(50% - .4rem); } }
.hint { color: var(--soft); margin: .25rem 0 .5rem; }
.html-container.pending.pending { opacity: 1; }
.html-container.pending::before { content: "Waiting for its turn"; display: block; color: var(--soft); overflow: hidden;
  height: 0; animation: waiting .2s .7s forwards; }
@keyframes waiting { to { height: 28px; } }
.wrap.minimal { display: none; }
"""


def figure(file: bytes, words: str, *, alt: str, width: int = WIDTH, kind: str = "image/png", save: str = "") -> str:
    """A picture of a page with words under it, enlarged without smoothing.

    Args:
        file: of the picture.
        words: under it.
        alt: what is to be seen.
        width: pixels of the page that it takes, where there are so many.
        kind: of the file.
        save: the name under which it can be saved; empty for no link.
    """
    link = f' <a download="{html.escape(save)}" href="{data_uri(file, kind)}">Save</a>' if save else ""
    image = f'<img src="{data_uri(file, kind)}" alt="{html.escape(alt)}" width="{width}">'
    return f"<figure>{image}<figcaption>{html.escape(words)}{link}</figcaption></figure>"


def stage(figures: Sequence[str]) -> str:
    """Figures side by side, as many as fit into a row."""
    return f'<div class="stage">{"".join(figures)}</div>'


def looked_at(words: str, pixels: Tensor, columns: int | None = None) -> str:
    """Pictures of the moment, uint8 ``[n, c, h, w]``, as one figure."""
    across = columns or math.ceil(math.sqrt(len(pixels)))
    width = WIDTH if len(pixels) == 1 else max(WIDTH, STRIP * across)
    return figure(png(side_by_side(pixels, columns)), words, alt=words, width=width)


def way(done: int, steps: int) -> str:
    """How far it is."""
    words = f"Step {done} of {steps}"
    return f'<div class="way"><progress max="{steps}" value="{done}" aria-label="{words}"></progress>{words}</div>'


STOPPED = """() => {
  const mark = () => {
    for (const way of document.querySelectorAll(".way:not(.stopped)")) {
      if (!way.offsetParent || /^Step (\\d+) of \\1$/.test(way.textContent)) continue;
      way.classList.add("stopped");
      way.textContent = "Stopped at " + way.textContent.replace("Step", "step");
    }
  };
  mark();
  setTimeout(mark, 300);
}"""
"""What the stop buttons do in the page itself: the work is gone, and nobody else tells. Twice, for a step that was on
its way to the page when the button was pressed."""


def hint(words: str) -> str:
    """A line that says what to do."""
    return f'<p class="hint">{html.escape(words)}</p>'
