"""The three lessons of the Learn tab as pieces of a page: pictures, drawings, and sentences made from the numbers."""

import html
import math

import torch
from torch import Tensor

from ddm.commands.studio import plots
from ddm.commands.studio.learning import TARGETS, TIMESTEPS, Moment, carried, levels, nearby, share, stops, visible
from ddm.commands.studio.plots import COLOURS, Axis, Chart, Line, told
from ddm.commands.studio.shown import data_uri, png
from ddm.runs.inline import sheet

CSS = (
    plots.CSS
    + """
.lesson { display: flex; flex-direction: column; gap: 1.1rem; }
.lesson p { margin: 0; max-width: 44rem; line-height: 1.55; }
.lesson img { image-rendering: pixelated; display: block; border-radius: 4px; }
.lesson figure { margin: 0; }
.equation { display: flex; align-items: flex-start; gap: .8rem; }
.equation > figure { flex: 0 1 128px; min-width: 0; }
.equation img { width: 100%; }
.equation figcaption, .targets figcaption { font-size: .85rem; margin-top: .35rem; line-height: 1.35; }
.equation .sign { font-size: 1.5rem; line-height: 128px; }
.targets { display: flex; flex-wrap: wrap; gap: 1rem 1.4rem; }
.targets > figure { width: 144px; }
.targets img { width: 128px; }
.targets b, .equation b { display: block; }
.strip { max-width: var(--whole); }
.strip img { width: 100%; }
.strip .scale { display: flex; justify-content: space-between; font-size: .8rem; }
.lesson .soft { color: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.lesson math { font-size: 1.1em; }
.formulas { display: flex; flex-wrap: wrap; gap: .5rem 2rem; }
.formulas > div { overflow-x: auto; }
.lesson table, .lesson tr { border: 0; border-collapse: collapse; font-size: .92rem; white-space: nowrap; }
.lesson .wide { overflow-x: auto; contain: inline-size; }
.lesson td, .lesson th { text-align: left; padding: .35rem 1.1rem .35rem 0; border: 0;
  border-bottom: 1px solid var(--border-color-primary); font-weight: 400; }
.lesson thead th { font-weight: 600; }
@media (max-width: 640px) { .equation { gap: .2rem; } .equation > figure { flex-basis: 96px; }
  .equation .sign { line-height: 96px; font-size: 1.1rem; } .lesson td, .lesson th { padding-right: .7rem; } }
"""
)

STRIP = 9
"""Pictures of the strip from the picture to noise."""

BAR = '<mover accent="true"><mi>α</mi><mo stretchy="false">¯</mo></mover>'
ROOT = f"<msqrt>{BAR}</msqrt>"
REST = f"<msqrt><mn>1</mn><mo>−</mo>{BAR}</msqrt>"
X0, XT, NOISE, SIGMA = (
    "<msub><mi>x</mi><mn>0</mn></msub>",
    "<msub><mi>x</mi><mi>t</mi></msub>",
    "<mi>ε</mi>",
    "<mi>σ</mi>",
)


def math_of(*parts: str) -> str:
    """A formula; parts that are signs alone become operators."""
    signs = "".join(f"<mo>{part}</mo>" if part in "=+−·/(),→" else part for part in parts)
    return f"<math>{signs}</math>"


def forward(moment: Moment) -> str:
    """The first lesson: what noise does to a picture, and how fast each schedule does it."""
    signal, noise = math.sqrt(moment.alpha_bar), math.sqrt(1 - moment.alpha_bar)
    parts = [
        _figure(moment.x0, f"{signal:.3f} ×", "the picture", f"the picture, which counts {signal:.3f} times"),
        '<span class="sign" aria-hidden="true">+</span>',
        _figure(moment.noise, f"{noise:.3f} ×", "the noise", f"noise, which counts {noise:.3f} times"),
        '<span class="sign" aria-hidden="true">=</span>',
        _figure(
            moment.noisy, f"x at {moment.timestep}", "what is left", f"the picture at timestep {moment.timestep:,}"
        ),
    ]
    return (
        f'<div class="lesson"><div class="equation">{"".join(parts)}</div><p>{_told(moment)}</p>{_formulas()}'
        f'{_strip(moment)}<div class="plots">{"".join(each.draw() for each in _schedules(moment))}</div></div>'
    )


def _figure(x: Tensor, bold: str, words: str, alt: str) -> str:
    image = f'<img src="{data_uri(png(visible(x)))}" alt="{html.escape(alt)}">'
    return f"<figure>{image}<figcaption><b>{html.escape(bold)}</b>{html.escape(words)}</figcaption></figure>"


def _told(moment: Moment) -> str:
    sigma, name = float(moment.sigma), html.escape(moment.schedule)
    left = (
        "the eye still sees nearly everything" if sigma < 0.15
        else "fine details are gone" if sigma < 0.6
        else "only large shapes and colours are left" if sigma < 2.5
        else "to the eye it is nothing but noise, and a model can at best guess the colours" if sigma < 15
        else "nothing of the picture can be told any more, not even by a model"
    )  # fmt: skip
    return (
        f"At timestep {moment.timestep:,} of {TIMESTEPS:,} the {name} schedule has put noise of level σ = "
        f"{sigma:.3g} on a picture whose pixels go from −1 to 1: {left}. "
        f"Of the variance of x<sub>t</sub> {moment.alpha_bar:.1%} is still picture, a signal-to-noise ratio of "
        f"1/σ² = {told(1 / sigma**2)}."
    )


def _formulas() -> str:
    ours = math_of("<mi>x</mi>", "=", X0, "+", SIGMA, NOISE)
    paper = math_of(XT, "=", ROOT, X0, "+", REST, NOISE)
    scaled = math_of(
        XT, "=", f"<mfrac><mi>x</mi><msqrt><mn>1</mn><mo>+</mo><msup>{SIGMA}<mn>2</mn></msup></msqrt></mfrac>"
    )
    link = math_of(
        BAR, "=", f"<mfrac><mn>1</mn><mrow><mn>1</mn><mo>+</mo><msup>{SIGMA}<mn>2</mn></msup></mrow></mfrac>"
    )
    cells = (("in this program", ours), ("in the paper", paper), ("the same, made smaller", scaled), ("with", link))
    return (
        '<div class="formulas">'
        + "".join(f'<div><span class="soft">{words}</span><br>{formula}</div>' for words, formula in cells)
        + "</div>"
    )


def _strip(moment: Moment) -> str:
    places = stops(STRIP)
    pixels = sheet(torch.stack([visible(moment.at(each)) for each in places]), columns=STRIP)
    alt = f"the same picture at timesteps {', '.join(f'{each:,}' for each in places)} of the {moment.schedule} schedule"
    ends = f'<div class="scale soft"><span>{places[0]}</span><span>timestep</span><span>{places[-1]:,}</span></div>'
    whole = max(1, 600 // pixels.shape[2]) * pixels.shape[2]
    image = f'<img src="{data_uri(png(pixels))}" alt="{html.escape(alt)}">'
    return f'<div class="strip" style="--whole: {whole}px">{image}{ends}</div>'


def _schedules(moment: Moment) -> list[Chart]:
    """The noise level and the signal-to-noise ratio of every schedule."""
    found, timesteps = nearby(moment.schedule), torch.arange(1, TIMESTEPS + 1)
    thin = torch.cat((torch.arange(0, TIMESTEPS, 8), torch.tensor([TIMESTEPS - 1])))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(found)}
    across = Axis(1, TIMESTEPS, "timestep")

    def chart(title: str, y: Axis, values: dict[str, Tensor]) -> Chart:
        lines = [
            Line(timesteps[thin], each[thin], colours[name], name, "strong" if name == moment.schedule else "pale")
            for name, each in values.items()
        ]
        here = {name: float(each[moment.timestep - 1]) for name, each in values.items()}
        alt = f"{title} against the timestep. At {moment.timestep:,}: " + ", ".join(
            f"{name} {value:.3g}" for name, value in here.items()
        )
        dots = [(here[moment.schedule], colours[moment.schedule])]
        return Chart(title, alt, across, y, lines, moment.timestep, dots)

    return [
        chart("Noise level σ", Axis(1e-3, 1e3, log=True), found),
        chart("Signal-to-noise ratio 1/σ²", Axis(1e-6, 1e6, log=True), {name: 1 / s**2 for name, s in found.items()}),
    ]


NAMES = {"eps": "eps, the noise", "x0": "x0, the picture", "v": "v, noise less picture"}


def targets(moment: Moment) -> str:
    """The second lesson: three questions to a network that come to the same, and where each is too easy."""
    shown = _figure(moment.noisy, f"x at {moment.timestep:,}", "what it is given", f"x at timestep {moment.timestep:,}")
    for name in TARGETS:
        given = float(moment.given_away(name))
        parts = share(name, moment.sigma)
        mixed = f"{float(parts.noise):.2f} × noise − {-float(parts.picture):.2f} × picture; " if name == "v" else ""
        alt = f"the target {name} at timestep {moment.timestep:,}; x gives away {given:.0%} of it"
        shown += _figure(moment.target(name), NAMES[name], f"{mixed}x gives away {given:.0%} of it", alt)
    return (
        f'<div class="lesson"><div class="targets">{shown}</div><p>{_easy(moment)}</p>'
        f'<div class="plots">{_given(moment).draw()}{_carried(moment).draw()}</div>{_conversions()}</div>'
    )


EASY = (
    (
        0.3,
        "With so little noise the picture is nearly the input itself: x0 is trivial, and all that can be learned is in "
        "the noise, which eps and v ask for.",
    ),
    (3.0, "Between the ends none of the three is trivial: here a network learns most."),
    (
        math.inf,
        "With so much noise the input is nearly the noise itself: eps is trivial, and all that can be learned is in "
        "the picture, which x0 and v ask for.",
    ),
)
"""What can be said up to a noise level."""


def _easy(moment: Moment) -> str:
    where = next(words for most, words in EASY if moment.sigma < most)
    eps, v = (0.01 * float(carried(name, moment.sigma)) for name in ("eps", "v"))
    return (
        f"{where} Whatever the network is asked, its answer is turned into x0: an error of 0.01 in eps becomes one of "
        f"{eps:.2g} in x0, in v one of {v:.2g}. In all four pictures mid-grey is 0, black −1 and white 1."
    )


def _along(moment: Moment) -> Tensor:
    """Noise levels over the whole schedule, evenly in their logarithm."""
    ends = levels(moment.schedule)
    low, high = max(float(ends[0]), 1e-3), min(float(ends[-1]), 1e3)
    return torch.linspace(math.log(low), math.log(high), 80, dtype=torch.float64).exp()


def _against_sigma(moment: Moment, title: str, y: Axis, values: dict[str, tuple[Tensor, float]]) -> Chart:
    """A chart of the targets over the noise levels: the curve of each, and its value at the timestep."""
    sigmas = _along(moment)
    lines = [Line(sigmas, curve, colour, name) for (name, (curve, _)), colour in zip(values.items(), COLOURS)]
    alt = f"{title}. At σ = {float(moment.sigma):.3g}: " + ", ".join(
        f"{name} {here:.3g}" for name, (_, here) in values.items()
    )
    dots = [(here, colour) for (_, here), colour in zip(values.values(), COLOURS)]
    across = Axis(float(sigmas[0]), float(sigmas[-1]), "noise level σ", log=True)
    return Chart(title, alt, across, y, lines, float(moment.sigma), dots)


def _given(moment: Moment) -> Chart:
    sigmas = _along(moment)
    values = {name: (moment.given_away(name, sigmas), float(moment.given_away(name))) for name in TARGETS}
    return _against_sigma(moment, "Share of the target that x gives away", Axis(0, 1.02), values)


def _carried(moment: Moment) -> Chart:
    sigmas = _along(moment)
    values = {name: (carried(name, sigmas), float(carried(name, moment.sigma))) for name in TARGETS}
    title = "Error of x0 for an error of 1 in the answer"
    return _against_sigma(moment, title, Axis(1e-2, 1e2, log=True), values)


def _conversions() -> str:
    """From each answer to the others."""
    v = "<mi>v</mi>"
    rows = (
        ("eps", math_of(X0, "=", "<mi>x</mi>", "−", SIGMA, NOISE), math_of(NOISE, "=", NOISE)),
        ("x0", math_of(X0, "=", X0), math_of(NOISE, "=", "(", "<mi>x</mi>", "−", X0, ")", "/", SIGMA)),
        ("v", math_of(X0, "=", ROOT, XT, "−", REST, v), math_of(NOISE, "=", REST, XT, "+", ROOT, v)),
    )
    body = "".join(f'<tr><th scope="row">{name}</th><td>{x0}</td><td>{noise}</td></tr>' for name, x0, noise in rows)
    made = math_of(v, "=", ROOT, NOISE, "−", REST, X0)
    return (
        '<div class="wide"><table><thead><tr><th scope="col">answer</th><th scope="col">so the picture is</th>'
        f'<th scope="col">and the noise</th></tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="soft">v is made of both: {made}. Where x is known, each of the three tells the other two.</p>'
    )
