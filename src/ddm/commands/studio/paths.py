"""The third lesson: the ways of particles from noise to data, drawn over the density of the data."""

import functools
import html

import torch
from torch import Tensor

from ddm.commands.studio.shown import data_uri, png
from ddm.commands.studio.toy import PARTICLES, TOYS, Comparison, Mixture, Walk
from ddm.diffusion import samplers
from ddm.registry import Choice

REACH = 2.6
"""The drawing goes from minus this to this, in both directions."""

SIZE = 360
"""Of a drawing, in its own units."""

FOLLOWED = 28
"""Particles whose way is drawn."""

POINTS = 60
"""Of a way at most."""

CSS = """
.ways { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1.25rem 1.75rem; }
.ways figure { margin: 0; max-width: 30rem; --way: #b3452c; --exact: #1f5fa8; }
.dark .ways figure { --way: #f09a82; --exact: #84b8f0; }
.ways figcaption { font-weight: 600; margin-bottom: .4rem; }
.ways svg { display: block; width: 100%; height: auto; border-radius: 6px;
  border: 1px solid var(--border-color-primary); }
.ways .way { fill: none; stroke-width: 1.1; opacity: .65; }
.ways .dots { fill: none; stroke: currentColor; stroke-linecap: round; }
.ways .stop { opacity: .75; }
.ways .few * { color: var(--way); } .ways .many * { color: var(--exact); }
.ways .way { stroke: currentColor; }
.ways .ghost { fill: none; stroke: var(--exact); stroke-width: 1.6; }
.ways .miss { stroke: var(--exact); stroke-width: 1.4; fill: none; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem 2.25rem; margin: 0; }
.facts div { display: flex; flex-direction: column-reverse; }
.facts dt { font-size: .85rem; color: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.facts dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
"""


def paths(found: Comparison, sampler: str, toy: str) -> str:
    """The lesson as a piece of a page."""
    name = Choice.parse(sampler).name
    walk, exact = found.walk, found.exact
    ours = _drawing(toy, f"{sampler}, {len(walk.places) - 1} steps", "few", walk, found, _alt(found, sampler, toy))
    alt = f"The exact ways of {FOLLOWED} of the same particles: smooth curves that never cross and end in the {toy}."
    theirs = _drawing(toy, "The exact solution, from the same noise", "many", exact, None, alt)
    return (
        f'<div class="lesson"><p>{html.escape(samplers.summary(name))}</p><div class="ways">{ours}{theirs}</div>'
        f"{_facts(found)}<p>{_verdict(found)}</p></div>"
    )


def _alt(found: Comparison, sampler: str, toy: str) -> str:
    return (
        f"The ways of {FOLLOWED} particles from noise to the {toy} by {sampler}, over the density of the data. "
        f"{PARTICLES} ends are {found.error:.3g} from the exact ones (root mean square)."
    )


def _facts(found: Comparison) -> str:
    far = int((found.errors > 0.5).sum())
    facts = [
        ("evaluations of the denoiser", f"{found.walk.evaluations:,}"),
        ("error of the ends, root mean square", f"{found.error:.3g}"),
        (f"of {PARTICLES} ended elsewhere", f"{far}"),
        ("distance of the cloud from the data", f"{found.distance:.3f}"),
    ]
    cells = "".join(f"<div><dt>{html.escape(words)}</dt><dd>{value}</dd></div>" for words, value in facts)
    return f'<dl class="facts">{cells}</dl>'


def _verdict(found: Comparison) -> str:
    """What the numbers mean."""
    cloud = (
        f"{PARTICLES} draws from the data themselves are {found.floor:.3f} from it on average, and the exact ends of "
        f"these particles {found.toy.distance(found.exact.ends):.3f}: the last number counts only above that."
    )
    if found.walk.drawn:
        return (
            "This sampler puts fresh noise on the particles as they go, so that they end elsewhere than the exact "
            f"solution on purpose: what has to fit is the cloud as a whole. {cloud}"
        )
    share = found.error / float(found.exact.ends.std())
    grade = (
        "Its ends cannot be told from the exact ones" if share < 0.01
        else "Its ends are close to the exact ones" if share < 0.06
        else "Its ends miss the exact ones by what can be seen: more steps, or another sampler, help"
    )  # fmt: skip
    return f"{grade}; they are {share:.1%} of the data's spread away. {cloud}"


def _drawing(toy: str, title: str, kind: str, walk: Walk, found: Comparison | None, alt: str) -> str:
    """One picture of ways; with the misses where ``found`` says what they should have been."""
    scaled = _places(walk.scaled[_kept(len(walk.places))])
    lines = "".join(f'<path class="way" d="{_line(scaled[:, each])}"/>' for each in range(FOLLOWED))
    stops = _dots(scaled[1:-1, :FOLLOWED].flatten(0, 1), "stop", 1.7) if found and len(scaled) <= 31 else ""
    starts = _dots(scaled[0, :FOLLOWED], "stop", 2.2)
    missed = "" if found is None or walk.drawn else _missed(found)
    ends = _dots(_places(walk.ends), "end", 2.6)
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg class="{kind}" viewBox="0 0 {SIZE} {SIZE}" '
        f'role="img" aria-label="{html.escape(alt)}">{_ground(toy)}{lines}{stops}{starts}{ends}{missed}</svg></figure>'
    )


def _missed(found: Comparison) -> str:
    """From the ends that are drawn to where they should be."""
    ours, theirs = _places(found.walk.ends[:FOLLOWED]), _places(found.exact.ends[:FOLLOWED])
    pairs = zip(ours.tolist(), theirs.tolist())
    lines = "".join(f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" for (a, b), (c, d) in pairs)
    return f'<path class="miss" d="{lines}"/>{_rings(theirs)}'


def _kept(count: int) -> list[int]:
    """Which points of a long way are drawn: all of a short one, the first and the last in any case."""
    if count <= POINTS:
        return list(range(count))
    return sorted({round(number * (count - 1) / (POINTS - 1)) for number in range(POINTS)})


def _places(points: Tensor) -> Tensor:
    """``[..., 2]`` in the units of the drawing, y upwards."""
    scale = torch.tensor([SIZE, -SIZE], dtype=torch.float64) / (2 * REACH)
    return (points * scale + SIZE / 2).clamp(-SIZE, 2 * SIZE)


def _line(points: Tensor) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist())


def _dots(points: Tensor, kind: str, radius: float) -> str:
    """Discs, as the round ends of strokes without length: a fifth of what as many circles weigh."""
    places = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points.tolist())
    return f'<path class="dots {kind}" stroke-width="{2 * radius:g}" d="{places}"/>'


def _rings(points: Tensor) -> str:
    return "".join(f'<circle class="ghost" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points.tolist())


@functools.lru_cache(maxsize=len(TOYS))
def _ground(toy: str) -> str:
    """The density of the data, as a picture behind the ways."""
    return f'<image href="{data_uri(png(_clouds(TOYS[toy])))}" width="{SIZE}" height="{SIZE}" opacity=".55"/>'


def _clouds(mixture: Mixture, side: int = 120) -> Tensor:
    """Uint8 ``[4, side, side]``: a grey that suits light and dark, the denser the less it can be seen through."""
    ends = torch.linspace(-REACH, REACH, side, dtype=torch.float64)
    y, x = torch.meshgrid(ends.flip(0), ends, indexing="ij")
    density = mixture.density(torch.stack((x, y), -1).reshape(-1, 2)).reshape(side, side)
    alpha = (density / density.max()).sqrt() * 255
    return torch.cat((torch.full((3, side, side), 128.0), alpha[None])).round().to(torch.uint8)
