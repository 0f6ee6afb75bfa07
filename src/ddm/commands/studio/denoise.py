"""The Denoise tab: noise on a picture and off again, a hole filled, the way from one seed to another."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.context import Context

from ddm.commands.studio import painting, stages
from ddm.commands.studio.denoising import levels
from ddm.commands.studio.edits import BETWEEN, VARIATIONS, Edits
from ddm.commands.studio.shared import MODEL, WORK, Studio, refuse
from ddm.commands.studio.stages import STOPPED, hint
from ddm.diffusion import samplers

CSS = (
    painting.CSS
    + stages.CSS
    + """
.noise-slider .tab-like-container, .noise-slider .min_value, .noise-slider .max_value { display: none; }
.sent { display: none !important; }
"""
)

TO_SIGMA = "(logarithm) => Number((10 ** logarithm).toPrecision(3))"
FROM_SIGMA = "(sigma) => (sigma > 0 ? Math.log10(sigma) : -2)"
"""The slider moves in the logarithm of the noise level; the field beside it shows the level itself."""

FINE = 0.01
"""A step of the slider."""

NONE, LABELS = ("none", ""), 3
"""What the lists of classes call no class, and how many such lists there are."""

FILLING = "heun(churn=50)"
"""For holes: what is new agrees better with the rest where the sampler draws noise on its way."""


LEVELS = (-1.5, 1.8)
"""Of the slider until the model is known."""

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of events that are the page's own."""


@dataclass(frozen=True, eq=False)
class Tab:
    """What the parts of the tab share.

    Args:
        edits: what they do.
        model: whose name they take.
        picture: the chosen one, in a field that is not seen.
        labels: the lists of classes, filled in when the model is known.
        sliders: of the noise level, likewise.
    """

    edits: Edits
    model: gr.Dropdown
    picture: gr.Textbox
    labels: list[gr.Dropdown] = field(default_factory=list)
    sliders: list[gr.Slider] = field(default_factory=list)


def add(studio: Studio) -> None:
    """The whole tab, inside of a gr.Tab."""
    here, names = Context.block, list(studio.models.names)
    assert isinstance(here, gr.Tab), "it is added to a tab"
    gr.HTML(hint("Drown a picture in noise and let the model find its way back, or let it fill a hole."))
    model = gr.Dropdown(names, value=names[0], label="Model", elem_id="denoise-model")
    picture = gr.Textbox(label="Picture in base64", elem_classes="sent", elem_id="denoise-picture")
    tab = Tab(Edits(studio), model, picture)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            gr.Markdown("### A picture")
            begin = _add_picture(tab)
        with gr.Column(scale=5, min_width=320):
            gr.Markdown("### What becomes of it")
            with gr.Tabs():
                with gr.Tab("Noise on and off", id="noise"):
                    _add_noise(tab)
                with gr.Tab("Fill a hole", id="hole"):
                    _add_hole(tab)
    gr.Markdown("### From one seed to another")
    _add_between(tab)
    fields = [*tab.sliders, *tab.labels]
    here.select(refuse(_fitted(tab.edits)), model, fields, **HIDDEN).then(**begin)
    anew = model.change(refuse(_fitted(tab.edits, anew=True)), model, [*fields, picture], **HIDDEN)
    anew.then(**begin)


def _fitted(edits: Edits, *, anew: bool = False) -> Callable[[str], tuple[Any, ...]]:
    """What fits the fields to a model: the ends of the slider and the classes.

    With ``anew`` it is another model: no class is chosen, and no picture, since its pictures may be larger.
    """

    def fit(name: str) -> tuple[Any, ...]:
        model = edits.studio.models.get(name)
        low, high = (math.log10(each) / FINE for each in levels(model))
        choices: list[str | int | float | tuple[str, str | int | float]] = [
            NONE,
            *((each, each) for each in model.classes),
        ]
        labels = [gr.Dropdown(choices, value="") if anew else gr.Dropdown(choices) for _ in range(LABELS)]
        slider = gr.Slider(minimum=math.ceil(low) * FINE, maximum=math.floor(high) * FINE)
        return (slider, *labels, "") if anew else (slider, *labels)

    return fit


def _add_picture(tab: Tab) -> dict[str, Any]:
    """Where a picture is chosen; returns the event that makes one where there is none."""
    edits = tab.edits
    with gr.Tabs():
        with gr.Tab("Seed", id="seed"):
            seed = gr.Number(0, label="Seed of the picture", precision=0, minimum=0)
            make = gr.Button("Make it", variant="primary")
        with gr.Tab("Upload", id="upload"):
            upload = gr.HTML(
                value="",
                html_template=painting.UPLOADER,
                js_on_load=painting.UPLOADER_JS,
                apply_default_css=False,
                longest=painting.LONGEST,
                most_bytes=edits.studio.limits.upload_bytes,
                elem_id="denoise-upload",
            )
        with gr.Tab("Training picture", id="training"):
            number = gr.Number(0, label="Number of the training picture", precision=0, minimum=0)
            take = gr.Button("Take it", variant="primary")
    shown = gr.HTML(hint("Make one, upload one, or take one that the model learned from."))
    outputs = [tab.picture, shown]
    for event, action, given in (
        (make.click, edits.picture_of_seed, seed),
        (upload.upload, edits.upload_picture, upload),
        (take.click, edits.training_picture, number),
    ):
        event(refuse(action), [tab.model, given], outputs, api_name=action.__name__, show_progress="hidden", **MODEL)

    def begin(model: str, seed: int, picture: str) -> Iterator[tuple[Any, Any]]:
        if picture:
            yield gr.skip(), gr.skip()
        else:
            yield from edits.picture_of_seed(model, seed)

    return {"fn": refuse(begin), "inputs": [tab.model, seed, tab.picture], "outputs": outputs, **HIDDEN, **MODEL}


def _add_noise(tab: Tab) -> None:
    """Noise on the picture, and off again."""
    with gr.Row():
        slider = gr.Slider(
            *LEVELS, value=0.0, step=FINE, label="Noise", elem_classes="noise-slider", scale=3,
            info="from a touch to nothing but noise",
        )  # fmt: skip
        sigma = gr.Number(1.0, label="Noise level sigma", minimum=0, scale=1, min_width=140)
    tab.sliders.append(slider)
    with gr.Row():
        label = _add_label(tab, "Class", "what the model is told to make of it")
        count = gr.Slider(1, VARIATIONS, value=1, step=1, label="Pictures", info="each with other noise")
        seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0)
    how = add_how("")
    before = gr.HTML(hint("The picture with its noise appears here as soon as there is a picture."))
    start, stop = add_buttons("Take the noise away")
    shown = gr.HTML("")
    given = [tab.model, tab.picture, sigma, label, count, seed, *how]
    work = start.click(refuse(tab.edits.denoise), given, shown, api_name="denoise", **WORK)
    stop.click(None, js=STOPPED, cancels=[work], api_visibility="private")
    slider.input(None, slider, sigma, js=TO_SIGMA, api_visibility="private")
    sigma.input(None, sigma, slider, js=FROM_SIGMA, api_visibility="private")
    look: dict[str, Any] = {"inputs": [tab.model, tab.picture, sigma, seed], "outputs": before, "concurrency_limit": 4}
    look |= {"trigger_mode": "always_last", "show_progress": "hidden"}
    sigma.change(refuse(tab.edits.noisy), api_name="noisy", **look)

    def noisy(model: str, picture: str, noise: float, seed: int) -> Any:
        return tab.edits.noisy(model, picture, noise, seed) if picture else gr.skip()

    for event in (seed.input, tab.picture.change):
        event(refuse(noisy), api_visibility="private", **look)


def _add_hole(tab: Tab) -> None:
    """A part of the picture made anew."""
    gr.HTML(hint("Paint over what should go; the rest is kept in every pixel."))
    mask = gr.HTML(
        value="",
        html_template=painting.PAINTER,
        js_on_load=painting.PAINTER_JS,
        apply_default_css=False,
        picture="",
        elem_id="denoise-mask",
    )
    with gr.Row():
        label = _add_label(tab, "Class of the whole", "none leaves it to the picture")
        count = gr.Slider(1, VARIATIONS, value=1, step=1, label="Fillings", info="each with other noise")
        seed = gr.Number(0, label="Seed of the filling", precision=0, minimum=0)
        noise = gr.Number(0, label="Noise to begin at", minimum=0, info="0 forgets what was in the hole")
    how = add_how(FILLING, evaluations=79)
    start, stop = add_buttons("Fill the hole")
    shown = gr.HTML("")
    given = [tab.model, tab.picture, mask, noise, label, count, seed, *how]
    work = start.click(refuse(tab.edits.inpaint), given, shown, api_name="inpaint", **WORK)
    stop.click(None, js=STOPPED, cancels=[work], api_visibility="private")
    tab.picture.change(lambda uri: gr.HTML(picture=uri), tab.picture, mask, **HIDDEN)


def _add_between(tab: Tab) -> None:
    """The way between two seeds."""
    with gr.Row():
        first = gr.Number(0, label="From seed", precision=0, minimum=0, min_width=120)
        last = gr.Number(1, label="To seed", precision=0, minimum=0, min_width=120)
        count = gr.Slider(2, BETWEEN, value=8, step=1, label="Pictures on the way")
        label = _add_label(tab, "Class of all", None)
    how = add_how("")
    start, stop = add_buttons("Go from seed to seed")
    shown = gr.HTML("")
    given = [tab.model, first, last, count, label, *how]
    action = refuse(tab.edits.interpolate)
    work = start.click(action, given, shown, api_name="interpolate", **WORK)
    stop.click(None, js=STOPPED, cancels=[work], api_visibility="private")


def _add_label(tab: Tab, name: str, info: str | None) -> gr.Dropdown:
    """A list of classes; its entries depend on the model, so whatever is asked for is checked by the action."""
    found = gr.Dropdown([NONE], value="", label=name, info=info, allow_custom_value=True, min_width=140)
    tab.labels.append(found)
    return found


def add_how(sampler: str, evaluations: int | None = None) -> list[Any]:
    """How pictures are made, folded away: sampler, evaluations, guidance."""
    with gr.Accordion("How", open=False), gr.Row():
        choices = [("the model's own", ""), *([(sampler, sampler)] if sampler else []), *((n, n) for n in samplers)]
        info = "of the network; 0: the model's own"
        return [
            gr.Dropdown(choices, value=sampler, label="Sampler", allow_custom_value=True),
            gr.Number(evaluations, label="Evaluations", precision=0, minimum=0, info=info),
            gr.Number(None, label="Guidance", minimum=0, info="towards the class; 0: the model's own"),
        ]


def add_buttons(words: str) -> tuple[gr.Button, gr.Button]:
    """What starts work, and what stops it."""
    with gr.Row():
        return gr.Button(words, variant="primary", scale=1), gr.Button("Stop", scale=0, min_width=110)
