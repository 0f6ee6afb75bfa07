"""The Compare tab: models at the same seeds, their numbers, and the training pictures nearest to a sample."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.context import Context

from ddm.commands.studio import contrasts
from ddm.commands.studio.contrasts import MOST, Contrasts
from ddm.commands.studio.denoise import HIDDEN, add_buttons, add_how
from ddm.commands.studio.shared import WORK, Studio, refuse
from ddm.commands.studio.stages import STOPPED, hint

CSS = contrasts.CSS

IN_TURN, LABELS = ("in turn", ""), 2
"""What the lists of classes call all of them, and how many such lists there are."""


def add(studio: Studio) -> None:
    """The whole tab, inside of a gr.Tab."""
    actions, names, here = Contrasts(studio), list(studio.models.names), Context.block
    assert isinstance(here, gr.Tab), "it is added to a tab"
    gr.HTML(hint("The same seed is the same noise for every model: what differs is what each has learned."))
    models = gr.CheckboxGroup(names, value=names[:4], label="Models")
    without = gr.HTML("")
    labels = [_add_pictures(actions, models)]
    gr.Markdown("### Numbers")
    _add_numbers(actions, models)
    gr.Markdown("### Nearest training pictures")
    labels.append(_add_nearest(actions, names))
    here.select(refuse(partial(_fitted, studio)), models, [models, without, *labels], **HIDDEN)


def _add_pictures(actions: Contrasts, models: gr.CheckboxGroup) -> gr.Dropdown:
    """Side by side; returns the list of classes."""
    with gr.Row():
        seed = gr.Number(0, label="First seed", precision=0, minimum=0, min_width=120)
        count = gr.Slider(1, MOST, value=8, step=1, label="Pictures of each")
        label = gr.Dropdown([IN_TURN], value="", label="Class", allow_custom_value=True, min_width=140)
    how = add_how("")
    start, stop = add_buttons("Make them side by side")
    shown = gr.HTML("")
    given = [models, seed, count, label, *how]
    work = start.click(refuse(actions.compare), given, shown, api_name="compare", **WORK)
    stop.click(None, js=STOPPED, cancels=[work], api_visibility="private")
    return label


def _add_numbers(actions: Contrasts, models: gr.CheckboxGroup) -> None:
    """The table."""
    gr.HTML(hint("From the run folders: nothing is measured here. Numbers of papers are of other protocols."))
    published = gr.Checkbox(True, label="With published numbers of CIFAR-10")
    show = gr.Button("Show the numbers", variant="primary")
    table = gr.HTML("")
    action = refuse(actions.numbers)
    show.click(action, [models, published], table, api_name="numbers", **WORK)


def _add_nearest(actions: Contrasts, names: list[str]) -> gr.Dropdown:
    """What a sample is close to; returns the list of classes."""
    gr.HTML(hint("Has the model learned, or learned by heart? Needs the pictures of the training at hand."))
    with gr.Row():
        model = gr.Dropdown(names, value=names[0], label="Model of the sample")
        seed = gr.Number(0, label="Seed of the sample", precision=0, minimum=0)
        label = gr.Dropdown([IN_TURN], value="", label="Class of the sample", allow_custom_value=True)
    start, stop = add_buttons("Find the nearest")
    shown = gr.HTML("")
    action = refuse(actions.nearest)
    work = start.click(action, [model, seed, label], shown, api_name="nearest", **WORK)
    stop.click(None, js=STOPPED, cancels=[work], api_visibility="private")
    return label


def _fitted(studio: Studio, chosen: Sequence[str]) -> tuple[Any, ...]:
    """The models that can be compared now, a line about the others, and the classes of any of them.

    Asked for once the tab is looked at: until then no model has to be loaded.
    """
    ready = {name: model.classes for name, model in studio.models.ready()}
    others = [name for name in studio.models.names if name not in ready]
    words = f"Without a sound checkpoint: {', '.join(others)}. The Watch tab shows how far the training is."
    classes = dict.fromkeys(each for names in ready.values() for each in names)
    labels = (gr.Dropdown([IN_TURN, *((each, each) for each in classes)]) for _ in range(LABELS))
    return [name for name in chosen if name in ready], hint(words) if others else "", *labels
