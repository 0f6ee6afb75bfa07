"""The Learn tab: noise and schedules, what a network is asked for, and the ways of samplers, for whom this is new."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.context import Context

from ddm.commands.studio import lessons, paths, toy
from ddm.commands.studio.edits import Edits
from ddm.commands.studio.learning import TIMESTEPS, Moment, picture_of, shape
from ddm.commands.studio.shared import MODEL, Studio, refuse, whole, word
from ddm.commands.studio.shown import data_uri, png
from ddm.commands.studio.stages import hint
from ddm.data.shapes import SHAPES
from ddm.diffusion import grids, samplers, schedules
from ddm.registry import Registry

CSS = lessons.CSS + paths.CSS

FIRST = {"picture": "star", "schedule": "cosine", "timestep": 400}
"""What the tab begins with."""

BEGIN: dict[str, Any] = {"toy": "two moons", "sampler": "ddim", "grid": "karras", "steps": 8}
"""What the samplers begin with: few steps, so that something is to be seen."""

MOST_SEED = 2**63 - 1

INSTANT: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": 4}
"""Of events that take no model."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """What can be done on the Learn tab; every method is an endpoint, and raises DdmError for what cannot be done.

    Args:
        studio: its models and limits.
    """

    studio: Studio

    def learn_shape(self, name: str = "star") -> str:
        """A built-in picture, as a data: address of a PNG.

        Args:
            name: circle, cross, heart, moon, ring, square, star or triangle.
        """
        return data_uri(png(shape(name)))

    def learn_forward(self, picture: str, schedule: str = "cosine", timestep: int = 400, seed: int = 0) -> str:
        """What is left of a picture at a timestep, and how all schedules go: a piece of a page.

        Args:
            picture: the name of a built-in shape, or a PNG, JPEG or WebP file in base64.
            schedule: a choice such as linear or cosine(offset=0.01).
            timestep: 1 to 1000.
            seed: of the noise.
        """
        return lessons.forward(self._moment(picture, schedule, timestep, seed))

    def learn_targets(self, picture: str, schedule: str = "cosine", timestep: int = 400, seed: int = 0) -> str:
        """What eps, x0 and v are for a picture at a timestep, and where each is trivial: a piece of a page.

        Args:
            picture: the name of a built-in shape, or a PNG, JPEG or WebP file in base64.
            schedule: a choice such as linear or cosine(offset=0.01).
            timestep: 1 to 1000.
            seed: of the noise.
        """
        return lessons.targets(self._moment(picture, schedule, timestep, seed))

    def _moment(self, picture: str, schedule: str, timestep: int, seed: int) -> Moment:
        limits = self.studio.limits
        pixels = picture_of(picture, most_bytes=limits.upload_bytes, most_pixels=limits.upload_pixels)
        timestep, seed = whole("timestep", timestep, 1, TIMESTEPS), whole("seed", seed, 0, MOST_SEED)
        return Moment.of(pixels, word("schedule", schedule), timestep, seed)

    @staticmethod
    def learn_paths(
        toy_name: str = "two moons", sampler: str = "ddim", grid: str = "karras", steps: int = 8, seed: int = 0
    ) -> str:
        """A sampler's ways from noise to data whose exact denoiser is known, beside the exact ones: a piece of a page.

        Args:
            toy_name: two moons, five islands or two hills.
            sampler: a choice such as heun(churn=40).
            grid: a choice such as karras(rho=7).
            steps: of the sampler, 1 to 100.
            seed: of the noise.
        """
        data, sampler, grid = (
            word(name, value) for name, value in (("toy", toy_name), ("sampler", sampler), ("grid", grid))
        )
        steps, seed = whole("steps", steps, 1, toy.STEPS), whole("seed", seed, 0, MOST_SEED)
        return paths.paths(toy.compare(data, sampler, grid, steps, seed), sampler, data)


def add(studio: Studio) -> None:
    """The whole tab, inside of a gr.Tab."""
    actions = Lessons(studio)
    tab: Any = Context.block
    picture = gr.Textbox(FIRST["picture"], label="Picture to learn with", elem_classes="sent")
    gr.Markdown("### 1. Noise takes a picture away")
    gr.HTML(hint("A diffusion model learns to undo this, a little at a time. Move the timestep, change the schedule."))
    _add_picture(actions, picture)
    with gr.Row():
        timestep = _timestep("Timestep")
        schedule = gr.Dropdown(
            list(schedules), value=FIRST["schedule"], label="Schedule", info="how fast the noise grows", min_width=150
        )
        seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0, min_width=150)
    forward = gr.HTML()
    gr.Markdown("### 2. What a network is asked for")
    gr.HTML(hint("The noise, the picture, or something between: the same question in three ways, not equally hard."))
    again = _timestep("Timestep of the targets")
    targets = gr.HTML()
    given = [picture, schedule, timestep, seed]
    for action, shown in ((actions.learn_forward, forward), (actions.learn_targets, targets)):
        events = [each.change for each in given] + [tab.select]
        first, *others = events
        first(refuse(action), given, shown, api_name=action.__name__, **INSTANT)
        for event in others:
            event(refuse(action), given, shown, api_visibility="private", **INSTANT)
    for here, there in ((timestep, again), (again, timestep)):
        here.input(None, here, there, js="(value) => value", api_visibility="private")
    _add_paths(actions, tab)


def _timestep(label: str) -> gr.Slider:
    info = "1 is nearly the picture, 1,000 nearly noise"
    return gr.Slider(1, TIMESTEPS, value=FIRST["timestep"], step=1, label=label, info=info, scale=3)


def _add_picture(actions: Lessons, picture: gr.Textbox) -> None:
    """Where a picture is chosen, folded away."""
    studio = actions.studio
    names, edits = list(studio.models.names), Edits(studio)
    with gr.Accordion("Another picture", open=False):
        name = gr.Dropdown(list(SHAPES), value=FIRST["picture"], label="A built-in shape")
        with gr.Row():
            model = gr.Dropdown(names, value=names[0], label="Or from a model", min_width=160)
            number = gr.Number(0, label="Seed or number", precision=0, minimum=0, min_width=120)
            make = gr.Button("Make the picture of this seed", min_width=160)
            take = gr.Button("Take this training picture", min_width=160)
        said = gr.HTML()
    name.input(refuse(lambda word: (actions.learn_shape(word), "")), name, [picture, said], api_visibility="private")
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", **MODEL}

    def made(model: str, seed: int) -> Iterator[tuple[Any, str]]:
        for uri, shown in edits.picture_of_seed(model, seed):
            yield (uri, "") if uri else (gr.skip(), shown)

    make.click(refuse(made), [model, number], [picture, said], **private)
    taken = refuse(lambda model, number: (edits.training_picture(model, number)[0], ""))
    take.click(taken, [model, number], [picture, said], **private)
    gr.api(refuse(actions.learn_shape), api_name="learn_shape")  # pyright: ignore[reportPrivateImportUsage]


def _add_paths(actions: Lessons, tab: Any) -> None:
    """Samplers at work on data of two numbers."""
    gr.Markdown("### 3. How samplers find the way back")
    gr.HTML(
        hint(
            "Pictures have thousands of numbers; here they have two. For this data the best possible denoiser is a "
            "formula, so whatever goes wrong is the sampler's fault."
        )
    )
    with gr.Row():
        data = gr.Dropdown(list(toy.TOYS), value=BEGIN["toy"], label="Data", min_width=130)
        sampler = gr.Dropdown(
            list(samplers),
            value=BEGIN["sampler"],
            label="Sampler",
            allow_custom_value=True,
            min_width=130,
        )
        grid = gr.Dropdown(_plain(grids), value=BEGIN["grid"], label="Grid", info="where it stops", min_width=130)
        steps = gr.Slider(1, 50, value=BEGIN["steps"], step=1, label="Steps", scale=2, min_width=200)
        seed = gr.Number(0, label="Seed of the particles", precision=0, minimum=0, min_width=130)
    shown = gr.HTML()
    given = [data, sampler, grid, steps, seed]
    action = refuse(actions.learn_paths)
    first, *others = [each.change for each in given] + [tab.select]
    first(action, given, shown, api_name="learn_paths", **INSTANT)
    for event in others:
        event(action, given, shown, api_visibility="private", **INSTANT)


def _plain(registry: Registry) -> list[str]:
    """The choices that need no options and no model."""
    needy = {name for name in registry for option in registry.options(name).values() if option.default is option.empty}
    return [name for name in registry if name not in needy and name != "searched"]
