"""The page: its tabs, its look, and nothing that is fetched from anywhere."""

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.exceptions import ComponentProcessingError
from gradio.themes import Base

from ddm.commands.studio import compare, denoise, generate, learn, watch
from ddm.commands.studio.shared import Studio

TITLE, WORDS = "ddm studio", "Diffusion models at work: watch them, use them, compare them, understand them."

TABS = {"generate": generate, "denoise": denoise, "watch": watch, "compare": compare, "learn": learn}
"""In their order; each has ``add(studio)`` and ``CSS``."""

SYSTEM = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
"""Fonts of the reader's own machine."""


INK = {
    "body_background_fill": "*neutral_50",
    "body_background_fill_dark": "#131417",
    "body_text_size": "15px",
    "block_background_fill": "transparent",
    "block_background_fill_dark": "transparent",
    "block_border_width": "0px",
    "block_border_width_dark": "0px",
    "block_shadow": "none",
    "block_shadow_dark": "none",
    "block_padding": "4px 2px",
    "block_label_text_color": "*body_text_color",
    "block_title_text_color": "*body_text_color",
    "block_title_text_weight": "600",
    "block_title_text_size": "14px",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_400",
    "block_info_text_size": "12.5px",
    "form_gap_width": "0px",
    "border_color_primary": "*neutral_300",
    "border_color_primary_dark": "#3a3d44",
    "input_background_fill": "white",
    "input_background_fill_dark": "#1d1f24",
    "input_border_color": "*neutral_300",
    "input_border_color_dark": "#43474f",
    "input_border_width": "1px",
    "input_border_width_dark": "1px",
    "button_large_text_size": "15px",
    "button_large_text_weight": "550",
    "button_large_padding": "9px 16px",
    "button_large_radius": "8px",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_dark": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_500",
    "button_secondary_background_fill": "white",
    "button_secondary_background_fill_dark": "#1d1f24",
    "button_secondary_background_fill_hover": "*neutral_100",
    "button_secondary_background_fill_hover_dark": "#2a2d33",
    "button_border_width": "1px",
    "button_border_width_dark": "1px",
    "button_secondary_border_color": "*neutral_300",
    "button_secondary_border_color_dark": "#43474f",
}
"""Of the theme: calm and flat, so that the pictures are what one sees."""


UNFIT = "these are not the values that this action takes, or not as many"
"""What is told where no field can be named."""


class Page(gr.Blocks):
    """Blocks that take no files, since everything here is sent as text, and tell in a word what they do not take.

    Where it is mounted, gradio (6.31) copies any file of this machine that a caller names by its path, and fetches any
    address; and each request of the wrong form would print a stack trace in the terminal.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *given: Any, **named: Any) -> list[Any]:
        """What an action is given; raises :class:`gradio.Error` where that is nothing it takes, or names a file."""
        if names_a_file(inputs):
            raise gr.Error("files are not taken by their names", title="Not possible", print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *given, **named)
        except (ValueError, TypeError, AttributeError, ComponentProcessingError):
            words = out_of_bounds(block_fn.inputs, inputs) or UNFIT
            raise gr.Error(words, title="Not possible", print_exception=False) from None


def out_of_bounds(fields: Sequence[Any], values: Sequence[Any]) -> str:
    """What is wrong with the first number that its field does not take; empty where there is none."""
    for field, value in zip(fields, values):
        low, high = (getattr(field, name, None) for name in ("minimum", "maximum"))
        if low is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not low <= value <= (math.inf if high is None else high):
            allowed = f"{low:,g} or more" if high is None else f"{low:,g} to {high:,g}"
            return f"{field.label}: {value:g} is not allowed; allowed: {allowed}"
    return ""


def names_a_file(value: Any) -> bool:
    """Whether a value is, or holds, what gradio may take for a file."""
    if isinstance(value, dict):
        return "path" in value or any(names_a_file(each) for each in value.values())
    return isinstance(value, list) and any(names_a_file(each) for each in value)


def make_page(studio: Studio) -> gr.Blocks:
    """The whole page; :func:`appearance` is given where it is launched."""
    with Page(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(f'<header class="masthead"><h1>{TITLE}</h1><p>{WORDS}</p></header>')
        with gr.Tabs():
            for name, tab in TABS.items():
                with gr.Tab(name.capitalize(), id=name):
                    tab.add(studio)
    return page


def appearance() -> dict[str, Any]:
    """The theme and the style sheet, as :func:`gradio.mount_gradio_app` takes them."""
    css = files("ddm.commands.studio").joinpath("studio.css").read_text()
    theme = Base(primary_hue="indigo", neutral_hue="gray", font=SYSTEM, font_mono=MONOSPACE).set(**INK)
    return {"theme": theme, "css": "\n".join([*(tab.CSS for tab in TABS.values()), css])}
