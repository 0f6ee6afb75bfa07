"""A run in training as pieces of a page: how far it is, its curves, a picture of its film, what was measured."""

import html
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ddm.commands.studio.following import Curve
from ddm.commands.studio.plots import Axis, Chart, Line, around
from ddm.commands.studio.shown import data_uri
from ddm.commands.studio.stages import hint
from ddm.commands.studio.watching import Watched, newest
from ddm.runs.curves import smooth
from ddm.runs.report import duration

WIDE, NARROW = 540, 300
"""Pixels of a page, large and small, that a sheet of the film takes at most."""

MIDDLE = 0.99
"""Share of the points of a curve that has to fit, so that one outlier does not flatten the rest."""

CSS = """
.run { display: flex; flex-direction: column; gap: .9rem; }
.run p { margin: 0; max-width: 46rem; }
.run .state { font-weight: 600; text-transform: capitalize; margin-right: .5rem; padding: .1rem .6rem;
  border-radius: 1rem; background: color-mix(in srgb, var(--state) 18%, transparent); color: var(--body-text-color);
  border: 1px solid var(--state); }
.run .training { --state: #1f8a50; } .run .finished { --state: #1f5fa8; } .run .waiting { --state: #808080; }
.run .stopped { --state: #a67c00; } .run .diverged { --state: #c0392b; }
.run progress { appearance: none; display: block; width: 100%; height: 6px; border: 0; border-radius: 3px;
  overflow: hidden; background: var(--border-color-primary); }
.run progress::-webkit-progress-bar { background: var(--border-color-primary); }
.run progress::-webkit-progress-value { background: var(--color-accent); }
.run progress::-moz-progress-bar { background: var(--color-accent); }
.run .facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .8rem 1.5rem;
  margin: 0; }
.run .facts div { display: flex; flex-direction: column-reverse; }
.run .facts dt { font-size: .85rem; color: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.run .facts dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.measured { overflow-x: auto; contain: inline-size; }
.measured table, .measured tr { border: 0; border-collapse: collapse; font-size: .9rem; white-space: nowrap; }
.measured caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
.measured td, .measured th { padding: .35rem 1.1rem .35rem 0; text-align: left; font-weight: 400; border: 0;
  border-bottom: 1px solid var(--border-color-primary); }
.measured thead th { font-weight: 600; }
.film { margin: 0; }
.film img { display: block; image-rendering: pixelated; width: var(--wide); max-width: 100%; height: auto;
  border-radius: 4px; }
.film figcaption { font-size: .85rem; margin-top: .4rem;
  color: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.film figcaption a { color: var(--link-text-color); }
@media (max-width: 900px) { .film img { width: var(--narrow); } }
"""


def head(watched: Watched) -> str:
    """How the run is and how far, and its loss."""
    state, total, loss = watched.state(), watched.total, _loss(watched)
    bar = ""
    if total:
        words = f"step {watched.step:,} of {total:,}"
        bar = f'<progress max="{total}" value="{min(watched.step, total)}" aria-label="{words}"></progress>'
    cells = "".join(f"<div><dt>{words}</dt><dd>{value}</dd></div>" for words, value in _facts(watched, state.word))
    return (
        f'<div class="run"><p><span class="state {state.word}">{state.word}</span>{html.escape(state.message)}</p>{bar}'
        f'<dl class="facts">{cells}</dl>{loss.draw() if loss else ""}</div>'
    )


def _facts(watched: Watched, word: str) -> Iterator[tuple[str, str]]:
    history = watched.history
    if not len(history):
        return
    yield f"of {watched.total:,} steps" if watched.total else "steps", f"{watched.step:,}"
    if word == "training" and watched.left is not None:
        yield "left at this pace", duration(watched.left)
    for name, words, form in (
        ("images_per_second", "images a second", "{:,.0f}"),
        ("loss", "loss", "{:.4g}"),
        ("gradient_norm", "gradient norm", "{:.3g}"),
        ("lr", "learning rate", "{:.3g}"),
        ("images", "images seen", "{:,.0f}"),
    ):
        value = history.last(name)
        yield words, "not finite" if value is None else form.format(value)


def charts(watched: Watched) -> str:
    """The curves besides the loss; a line where there are none yet."""
    drawn = [each.draw() for each in (*_distances(watched), *_others(watched))]
    if not drawn:
        return hint("The curves begin with the second record.")
    return f'<div class="plots">{"".join(drawn)}</div>'


def _steps(*curves: np.ndarray) -> Axis:
    top = max(float(each[-1]) for each in curves)
    return Axis(0, top or 1, "optimiser step")


def _seen(name: str, found: Curve, form: str = "{:.4g}") -> str:
    """A curve in words."""
    first, last, least = (form.format(each) for each in (found.value[0], found.value[-1], found.value.min()))
    steps = f"step {found.step[0]:,.0f} to {found.step[-1]:,.0f}"
    return f"{name} from {steps}: {first} at first, {last} now, {least} at least"


def _loss(watched: Watched) -> Chart | None:
    found = watched.curve("loss")
    spread = around(np.concatenate((found.low, found.high)), log=True, part=MIDDLE)
    if len(found.step) < 2 or spread is None:
        return None
    mean = np.array(smooth(found.value.tolist(), window=0.06))
    lines = [
        Line(found.step, found.value, "one", "records", "pale", found.low, found.high),
        Line(found.step, mean, "one", "running mean", "strong"),
    ]
    alt = f"{_seen('Training loss', found)}; {len(watched.history):,} records"
    return Chart("Training loss", alt, _steps(found.step), spread, lines)


def _distances(watched: Watched) -> Iterator[Chart]:
    for label, points in watched.distances():
        columns: dict[str, Any] = {
            name: np.array([each[name] for each in points]) for name in ("step", "value", "low", "high")
        }
        step, value, low, high = columns.values()
        falling = points[-1]["better"] == "lower" and value.min() > 0
        ends = around(np.concatenate((np.maximum(low, value / 2) if falling else low, high)), log=falling)
        if ends is None:
            continue
        what = points[-1]["protocol"]
        title = f"{label}, {what['n_fake']:,} pictures"
        line = Line(step, value, "two", "", "", low, high, dots=True)
        alt = f"{_seen(label, Curve(step, value, low, high))}; {points[-1]['better']} is better"
        yield Chart(title, alt, _steps(step), ends, [line])


def _others(watched: Watched) -> Iterator[Chart]:
    for name, title, log in (
        ("gradient_norm", "Gradient norm", True),
        ("lr", "Learning rate", False),
        ("images_per_second", "Images a second", False),
    ):
        found = watched.curve(name)
        ends = around(np.concatenate((found.low, found.high)), log=log, part=1.0 if name == "lr" else MIDDLE)
        if len(found.step) < 2 or ends is None:
            continue
        bottom = ends if log else Axis(0.0, ends.high)
        line = Line(found.step, found.value, "three", "", "", found.low, found.high)
        yield Chart(title, _seen(title, found), _steps(found.step), bottom, [line])


def frame(watched: Watched, number: int) -> str:
    """A picture of the film, exactly as it was written."""
    found = watched.frame(number)
    if found is None:
        return hint("No pictures yet: training makes a sheet of the same seeds every so often (every.sample).")
    step, data = found
    width = struct.unpack(">I", data[16:20])[0]
    wide, narrow = (_whole_pixels(width, watched, most) for most in (WIDE, NARROW))
    count = (
        f"the same {watched.config.sample.count} seeds every time" if watched.config else "the same seeds every time"
    )
    name = f"{step:06d}.png"
    return (
        f'<figure class="film" style="--wide: {wide}px; --narrow: {narrow}px"><img src="{data_uri(data)}" '
        f'alt="pictures of the model at step {step:,}"><figcaption>Step {step:,}, {count}. '
        f'<a href="{data_uri(data)}" download="{name}" aria-label="Save {name}">Save</a></figcaption></figure>'
    )


def _whole_pixels(width: int, watched: Watched, most: int) -> int:
    """The largest width at which each pixel of the model is as many pixels of the page as its neighbours."""
    side = watched.config.image_size if watched.config else 0
    scale = max(1, 64 // side) if side else 1  # training enlarges small pictures so
    return max(1, math.floor(most / (width / scale))) * max(1, round(width / scale))


def numbers(watched: Watched) -> str:
    """What was measured last."""
    rows: Sequence[Any] = newest(watched)
    if not rows:
        return hint("Nothing was measured yet: ddm evaluate measures a run, every.evaluate does it while training.")
    heads = ("metric", "value", "95 % interval", "step", "sampler", "steps", "date")
    body = "".join(
        f'<tr><th scope="row">{html.escape(each.label)}</th>'
        + "".join(
            f"<td>{html.escape(word)}</td>"
            for word in (each.value, each.interval, each.step, each.sampler, each.steps, each.date)
        )
        + "</tr>"
        for each in rows
    )
    top = "".join(f'<th scope="col">{each}</th>' for each in heads)
    return (
        '<div class="measured" tabindex="0" role="region" aria-label="Newest measurements"><table>'
        f"<caption>Newest measurements</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
