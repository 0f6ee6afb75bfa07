"""The Generate tab: pictures of seeds as they come out of the noise, the same again, and more near one of them."""

import hashlib
import html
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.events import api

from ddm.commands.studio import costing, generating
from ddm.commands.studio.endpoints import Endpoints
from ddm.commands.studio.generating import Moment, Picture, Request
from ddm.commands.studio.shared import MODEL, WORK, Studio, refuse
from ddm.commands.studio.shown import Shown, data_uri, gallery, png
from ddm.commands.studio.stages import STOPPED, hint, way
from ddm.diffusion import grids, samplers
from ddm.errors import RequestError
from ddm.runs.model import Model

CSS = ""

COUNT, SHARE = 8, 0.15
"""Pictures, and how near to a seed, to begin with."""

NONE = "No model has a checkpoint yet. The Watch tab shows how far the training is; load this page again later."

EMPTY = "Press Make pictures: they come out of the noise here, step by step."

UNGIVEN = ("levels", "searched")
"""Grids that are no choice of the page: one takes numbers, the other minutes."""

LARGEST_TEASER = 2_000_000
"""Bytes."""

NEW_SEED = "() => Math.floor(Math.random() * 1e6)"

MORE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-seed]");
  if (!button) return;
  const field = document.querySelector("#near-seed input");
  field.value = button.dataset.seed;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  setTimeout(() => document.querySelector("#near-go").click(), 50);
});
"""
"""A press on the button under a picture is one on the button below them, with that picture's seed."""


@dataclass(frozen=True)
class Made:
    """What the page shows.

    Args:
        request: that it was made by.
        share: of the way from its seed to others; None for pictures of seeds.
        digests: of the files, to tell whether others are the same.
    """

    request: Request
    share: float | None
    digests: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Pictures:
    """What can be done on the tab, for the page: pieces of it, and what it then shows.

    Args:
        studio: its models and limits.
    """

    studio: Studio

    def generate(self, *values: Any) -> Iterator[tuple[str, Any]]:
        """The values of the fields in the order of :class:`Request`."""
        request = Request(*values)
        if str(request.sampler).startswith("adaptive"):  # it finds its own steps, whatever the field says
            request = replace(request, evaluations=None)
        yield from self._watch(request)

    def again(self, before: Made | None) -> Iterator[tuple[str, Any]]:
        """The same as is shown, and whether it is the same."""
        if before is None:
            raise RequestError("there are no pictures yet; press Make pictures")
        yield from self._watch(before.request, before.share, before)

    def near(self, before: Made | None, seed: int, share: float, *values: Any) -> Iterator[tuple[str, Any]]:
        """Pictures near that of a seed, made as those that are shown, or else as the fields say."""
        said = before.request if before else Request(*values)
        yield from self._watch(replace(said, count=COUNT, seed=seed), share)

    def _watch(self, request: Request, share: float | None = None, before: Made | None = None) -> Any:
        """The work, the pictures, and the words under them."""
        started, studio = time.monotonic(), self.studio
        work = generating.generate(studio, request) if share is None else generating.near(studio, request, share=share)
        for moment in work:
            shown = _gallery(moment, share)
            if not moment.finished:
                yield way(moment.done, moment.steps) + shown, gr.skip()
                continue
            made = Made(request, share, tuple(hashlib.sha256(each.file).hexdigest() for each in moment.pictures))
            words = _told(moment, time.monotonic() - started)
            if before is not None:
                same = before.digests == made.digests
                words += " The same again, equal in every pixel." if same else " Not equal to those before."
            yield hint(words) + shown + _all_in_one(moment), made


def _told(moment: Moment, seconds: float) -> str:
    count = len(moment.pictures)
    return f"{count} picture{'s' if count > 1 else ''} in {seconds:.1f} s."


def _gallery(moment: Moment, share: float | None) -> str:
    note = generating.settings_in_words(moment.model)
    shown = [_shown(each, note, share) for each in moment.pictures]
    return gallery(shown, side=moment.model.generator.shape[-1])


def _shown(picture: Picture, note: str, share: float | None) -> Shown:
    caption = f"seed {picture.seed}"
    name = f"seed-{picture.seed}"
    if picture.towards is not None:
        caption += f", {share:.0%} of the way to seed {picture.towards}"
        name += f"-to-{picture.towards}"
    alt = f"{picture.label or 'picture'}, {caption}"
    caption += f", {picture.label}" if picture.label else ""
    file = picture.file or png(picture.pixels)
    seed = picture.seed if picture.towards is None else None
    return Shown(file, caption, note, alt, f"{name}.png" if picture.file else "", seed)


def _all_in_one(moment: Moment) -> str:
    """How to keep them, and how to make them elsewhere."""
    first = moment.pictures[0].seed
    keep = ""
    if moment.sheet:
        name = f"seeds-{first}-to-{moment.pictures[-1].seed}.png"
        keep = f'<a href="{data_uri(moment.sheet)}" download="{name}">Save all as one picture</a>. '
    words = "Each file says how it was made; make it once more, equal in every pixel, with"
    return f'<p class="hint">{keep}{words} <code>ddm sample --again FILE</code></p>'


def _opening(studio: Studio) -> str:
    """What is shown before anything was made."""
    for _, model in studio.models.ready():
        return hint(EMPTY) + _teaser(model)
    return hint(NONE)


def _teaser(model: Model) -> str:
    """What a model made last in its training, so that the page is not empty."""
    files = sorted((model.run / "samples").glob("*.png")) if model.run else []
    if not files or files[-1].stat().st_size > LARGEST_TEASER:
        return ""
    words = f"What {model.name} made at step {int(files[-1].stem):,} of its training"
    image = f'<img src="{data_uri(files[-1].read_bytes())}" alt="{html.escape(words)}">'
    return f'<figure class="teaser">{image}<figcaption>{html.escape(words)}</figcaption></figure>'


def add(studio: Studio) -> None:
    """The whole tab, inside of a gr.Tab."""
    actions = Pictures(studio)
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=2, min_width=300, elem_classes="controls"):
            fields = _fields(studio)
            with gr.Row():
                start = gr.Button("Make pictures", variant="primary", scale=3, elem_id="generate-go")
                stop = gr.Button("Stop", scale=1, min_width=90, elem_id="generate-stop")
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(_opening(studio), js_on_load=MORE, elem_id="generate-shown")
            made = gr.State(None)
            with gr.Row(elem_classes="afterwards"):
                again = gr.Button("Again", min_width=120, scale=1, elem_id="again-go")
                seed = gr.Number(
                    0, label="Near seed", precision=0, minimum=0, min_width=110, scale=1, elem_id="near-seed"
                )
                share = gr.Slider(0.02, 0.6, value=SHARE, step=0.01, label="How far from it", min_width=160, scale=2)
                near = gr.Button("More like this seed", min_width=170, scale=1, elem_id="near-go")
    page: dict[str, Any] = {"outputs": [shown, made], "api_visibility": "private", **WORK}
    work: Any = [
        start.click(refuse(actions.generate), fields, api_name="page_generate", **page),
        again.click(refuse(actions.again), made, api_name="page_again", **page),
        near.click(refuse(actions.near), [made, seed, share, *fields], api_name="page_near", **page),
    ]
    stop.click(None, js=STOPPED, cancels=work, api_visibility="private")
    model, label, _, first, _, _, evaluations, guidance = fields
    start.click(None, first, seed, js="(seed) => seed", api_visibility="private")
    facts: dict[str, Any] = {"outputs": [label, evaluations, guidance], "api_visibility": "private"}
    model.change(refuse(lambda name: _changes(studio.models.get(name))), model, **facts)
    if not any(studio.models.ready()):  # the next who loads the page may find one
        facts["outputs"].append(shown)
        page_itself: Any = Context.root_block
        page_itself.load(refuse(lambda name: _begun(studio, name)), model, **facts)
    _add_endpoints(studio)


def _fields(studio: Studio) -> list[Any]:
    """What can be chosen, in the order of :class:`Request`."""
    names = list(studio.models.names)
    facts = _facts(next((model for _, model in studio.models.ready()), None))
    model = gr.Dropdown(names, value=names[0], label="Model", visible=True, elem_id="generate-model")
    label = gr.Dropdown(label="Class", elem_id="generate-label", **facts["label"])
    count = gr.Slider(1, studio.limits.pictures, value=COUNT, step=1, label="Pictures", elem_id="generate-count")
    with gr.Row():
        seed = gr.Number(0, label="Seed", info="one seed, one picture", precision=0, minimum=0, scale=3, min_width=140)
        fresh = gr.Button("New seed", scale=1, min_width=110, elem_classes="beside")
    fresh.click(None, None, seed, js=NEW_SEED, api_visibility="private")
    with gr.Row():
        own = ("model's own", "")
        sampler = gr.Dropdown(
            [own, *samplers],
            value="",
            label="Sampler",
            info="the way from noise",
            allow_custom_value=True,
            min_width=140,
        )
        grid = gr.Dropdown(
            [own, *(each for each in grids if each not in UNGIVEN)],
            value="",
            label="Grid",
            info="where its steps lie",
            allow_custom_value=True,
            min_width=140,
        )
    with gr.Row():
        evaluations = gr.Number(
            label="Evaluations", info="0: the model's own", precision=0, minimum=0, min_width=140,
            **facts["evaluations"],
        )  # fmt: skip
        guidance = gr.Number(
            label="Guidance", info="to the class; 1: none, 0: its own", step=0.5, min_width=140, **facts["guidance"]
        )
    return [model, label, count, seed, sampler, grid, evaluations, guidance]


def _facts(model: Model | None) -> dict[str, dict[str, Any]]:
    """What the fields say for a model; None where none has a checkpoint yet."""
    if model is None:
        return {"label": {"visible": False}, "evaluations": {"value": None}, "guidance": {"value": 1, "visible": False}}
    generator: Any = model.generator
    choices = [("all in turn", ""), *((each, each) for each in model.classes)]
    guided = bool(model.classes) or generator.guide is not None
    return {
        "label": {"choices": choices, "value": "", "visible": bool(model.classes)},
        "evaluations": {"value": costing.evaluations(generator)},
        "guidance": {"value": generator.guidance, "visible": guided},
    }


def _changes(model: Model) -> tuple[Any, ...]:
    facts = _facts(model)
    return gr.Dropdown(**facts["label"]), gr.Number(**facts["evaluations"]), gr.Number(**facts["guidance"])


def _begun(studio: Studio, name: str) -> tuple[Any, ...]:
    """The fields and what is shown, for a page whose models had no checkpoint when the studio was started."""
    found = dict(studio.models.ready())
    shown = _opening(studio)
    return (*_changes(found[name]), shown) if name in found else (gr.skip(), gr.skip(), gr.skip(), shown)


def _add_endpoints(studio: Studio) -> None:
    """The actions for programs."""
    found = Endpoints(studio)
    api(refuse(found.models), api_name="models", concurrency_limit=4)
    api(refuse(found.generate), api_name="generate", **MODEL)
    api(refuse(found.near), api_name="near", **MODEL)
