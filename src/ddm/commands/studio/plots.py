"""Line charts as SVG within a page: made in a millisecond, in the page's colours, light or dark."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 8, 40
"""Of the whole drawing, and around the field in it; in units in which a letter is 13 high."""

TICKS = 5
"""About so many on an axis."""

CSS = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.25rem 1.75rem; }
.plot { margin: 0; max-width: 36rem; min-width: 0; --one: #1f5fa8; --two: #b3452c; --three: #2b7a4b; --four: #7a4fa3;
  --five: #8a6500; --quiet: color-mix(in srgb, var(--body-text-color) 72%, transparent); }
.dark .plot { --one: #84b8f0; --two: #f09a82; --three: #85d3a2; --four: #c7a8ee; --five: #e0bf66; }
.plot figcaption { font-weight: 600; margin-bottom: .3rem; }
.plot > svg { display: block; width: 100%; height: auto; overflow: visible; }
.plot text { font-size: 13px; fill: var(--quiet); }
.plot .key { display: flex; flex-wrap: wrap; gap: 0 1rem; font-weight: 400; font-size: .85rem; color: var(--quiet); }
.plot .key span::before { content: ""; display: inline-block; width: 1.1rem; border-top: 3px solid currentColor;
  vertical-align: middle; margin-right: .35rem; }
.plot .one { color: var(--one); } .plot .two { color: var(--two); } .plot .three { color: var(--three); }
.plot .four { color: var(--four); } .plot .five { color: var(--five); } .plot .ink { color: var(--body-text-color); }
.plot .key b { font-weight: 400; color: var(--quiet); } .plot .key .strong b { font-weight: 600;
  color: var(--body-text-color); }
.plot .key .pale { opacity: 1; } .plot .key .pale::before { opacity: .45; }
.plot .grid { stroke: var(--border-color-primary); stroke-width: 1; }
.plot .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.plot .pale { opacity: .45; stroke-width: 1.5; } .plot .strong { stroke-width: 3.5; }
.plot .band { fill: currentColor; opacity: .2; stroke: none; }
.plot .now { stroke: var(--body-text-color); stroke-width: 1.5; stroke-dasharray: 4 3; }
.plot .dot { fill: currentColor; stroke: var(--background-fill-primary); stroke-width: 1.5; }
"""

COLOURS = ("one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Axis:
    """What runs along one side.

    Args:
        low: its beginning; above 0 where it is logarithmic.
        high: its end.
        words: under or above it.
        log: whether equal ratios are equally long.
    """

    low: float
    high: float
    words: str = ""
    log: bool = False

    def share(self, values: ArrayLike) -> np.ndarray:
        """How far along the axis values are, 0 at its beginning and 1 at its end; NaN for what has no place."""
        found = np.asarray(values, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.log([self.low, self.high]) if self.log else np.array([self.low, self.high])
            found = np.log(found) if self.log else found
        return np.where(np.isfinite(found), (found - ends[0]) / (ends[1] - ends[0]), np.nan)

    def ticks(self) -> list[float]:
        """Round numbers along it."""
        if self.log and self.high / self.low >= 2:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, round((last - first) / TICKS))
            factors = (1, 2, 3, 5, 7) if self.high / self.low < 10 else (1, 2, 5) if last - first < 2 else (1,)
            found = [factor * 10.0**power for power in range(first - 1, last + 1, every) for factor in factors]
        else:
            step = round_up((self.high - self.low) / TICKS)
            found = [
                step * number for number in range(math.ceil(self.low / step - 1e-9), int(self.high / step + 1e-9) + 1)
            ]
        return [each for each in found if self.low * (1 - 1e-9) <= each <= self.high * (1 + 1e-9)]


def round_up(value: float) -> float:
    """The next of ..., 0.1, 0.2, 0.5, 1, 2, 5, 10, ..."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


@dataclass(frozen=True, eq=False)
class Line:
    """Points that belong together.

    Args:
        x: along the lower side.
        y: as many.
        colour: one of :data:`COLOURS`, or ``ink``.
        words: in the key; empty for none.
        kind: ``pale``, ``strong`` or neither.
        low: the lower edge of a band around it, as many points.
        high: the upper edge.
        dots: mark each point.
    """

    x: ArrayLike
    y: ArrayLike
    colour: str = "one"
    words: str = ""
    kind: str = ""
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    dots: bool = False


@dataclass(frozen=True, eq=False)
class Chart:
    """A drawing of lines.

    Args:
        title: above it.
        alt: what is to be seen, with the numbers.
        x: the lower side.
        y: the left side.
        lines: the last is in front.
        now: a place on the lower side that is marked.
        dots: points that are marked there: value and colour.
    """

    title: str
    alt: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    now: float | None = None
    dots: Sequence[tuple[float, str]] = field(default=())

    def draw(self) -> str:
        """A figure element with its title, its key and an SVG."""
        shown = "".join(self._line(each) for each in self.lines) + self._mark()
        inner = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
        return (
            f'<figure class="plot"><figcaption>{html.escape(self.title)}{self._key()}</figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(self.alt)}">{self._axes()}'
            f'<svg {inner} overflow="hidden">{shown}</svg></svg></figure>'
        )

    def _key(self) -> str:
        named = [each for each in self.lines if each.words]
        words = "".join(
            f'<span class="{each.colour} {each.kind}"><b>{html.escape(each.words)}</b></span>' for each in named
        )
        return f'<div class="key">{words}</div>' if len(named) > 1 else ""

    def _axes(self) -> str:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        parts = []
        for value in self.y.ticks():
            y = f"{self._down(value) + TOP:.1f}"
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y}" dy=".35em" text-anchor="end">{told(value)}</text>')
        for value in self.x.ticks():
            x = f"{self._across(value) + LEFT:.1f}"
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{told(value)}</text>')
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (LEFT + right) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{html.escape(self.x.words)}</text>')
        return "".join(parts)

    def _across(self, values: ArrayLike) -> np.ndarray:
        return self.x.share(values) * (WIDTH - LEFT - RIGHT)

    def _down(self, values: ArrayLike) -> np.ndarray:
        return (1 - self.y.share(values)) * (HEIGHT - TOP - BOTTOM)

    def _line(self, line: Line) -> str:
        across, down = self._across(line.x), self._down(line.y)
        found = ""
        if line.low is not None and line.high is not None:
            edges = np.concatenate((self._down(line.low), self._down(line.high)[::-1]))
            area = path(np.concatenate((across, across[::-1])), np.clip(edges, -HEIGHT, 2 * HEIGHT))
            found += f'<path class="band {line.colour}" d="{area}Z"/>'
        found += f'<path class="line {line.colour} {line.kind}" d="{path(across, down)}"/>'
        if line.dots:
            places = [(x, y) for x, y in zip(across, down) if math.isfinite(x + y)]
            found += "".join(
                f'<circle class="dot {line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places
            )
        return found

    def _mark(self) -> str:
        if self.now is None:
            return ""
        x = f"{float(self._across(self.now)):.1f}"
        parts = [f'<line class="now" x1="{x}" x2="{x}" y1="0" y2="{HEIGHT}"/>']
        for value, colour in self.dots:
            y = float(self._down(value))
            if math.isfinite(y):
                parts.append(f'<circle class="dot {colour}" cx="{x}" cy="{y:.1f}" r="5"/>')
        return "".join(parts)


def path(across: np.ndarray, down: np.ndarray) -> str:
    """The commands of an SVG path through points, broken where one is not finite."""
    parts, pen = [], "M"
    for x, y in zip(across.tolist(), down.tolist()):
        if not math.isfinite(x + y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.1f} {min(max(y, -HEIGHT), 2 * HEIGHT):.1f}")
        pen = "L"
    return "".join(parts)


def told(value: float) -> str:
    """A number beside an axis: short, thousands as k."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1000:
        return f"{value / 1000:g}k"
    if 0 < size < 0.0001:
        power = math.floor(math.log10(size) + 1e-9)
        factor = f"{value / 10.0**power:.3g}"
        return f"{'' if factor == '1' else factor + '·'}10{str(power).translate(RAISED)}"
    return f"{value:.3g}"


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def around(values: ArrayLike, *, log: bool, words: str = "", part: float = 1.0) -> Axis | None:
    """An axis that holds values; None where none of them has a place on it.

    Args:
        values: of which those that are not finite are passed over.
        log: whether it is logarithmic, and then those that are not above 0, too.
        words: of the axis.
        part: the share of the values, from their middle, that has to fit.
    """
    found = np.asarray(values, dtype=float).ravel()
    found = found[np.isfinite(found) & (found > 0 if log else True)]
    if not len(found):
        return None
    low, high = (float(each) for each in np.quantile(found, ((1 - part) / 2, (1 + part) / 2)))
    if log:
        margin = max((high / low) ** 0.06, 1.05)
        return Axis(low / margin, high * margin, words, log=True)
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    return Axis(low - margin if low < 0 or low > 2 * margin else 0.0, high + margin, words)
