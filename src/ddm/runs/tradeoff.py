"""Quality against cost: a distance for each number of network evaluations, a line a source."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddm.runs.comparison import Compared

COLOURS = ("#1f5fa8", "#b3452c", "#3c8a4e", "#8a5aa8", "#c08a1e", "#3a9aa0", "#a33d6d", "#6b6b6b")
MARKERS = "osD^vPX*"


def draw_tradeoff(
    ladder: Mapping[str, Sequence[Compared]], flat: Sequence[Compared], label: str, path: Path, *, title: str
) -> None:
    """Draw one metric against the number of evaluations as PNG, its intervals shaded.

    Args:
        ladder: sources whose number of evaluations was chosen, by name.
        flat: sources without a network: a level line each.
        label: of the metric.
        path: the picture; its folder is made.
        title: above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, rungs) in enumerate(ladder.items()):
        _line(axes, name, rungs, label, number)
    for number, source in enumerate(flat, len(ladder)):
        found, colour = source.measurements[label], COLOURS[number % len(COLOURS)]
        axes.axhspan(found.low, found.high, color=colour, alpha=0.12, linewidth=0)
        axes.axhline(found.value, color=colour, linewidth=1.5, linestyle="--", label=source.name)
    _scales(axes, ladder, [*flat, *(each for rungs in ladder.values() for each in rungs)], label)
    axes.set_title(textwrap.fill(f"{title}; shaded: 95 % intervals", 120), fontsize="small", loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _line(axes: Any, name: str, rungs: Sequence[Compared], label: str, number: int) -> None:
    rungs = sorted(rungs, key=lambda each: each.evaluations or 0)
    counts, found = [each.evaluations for each in rungs], [each.measurements[label] for each in rungs]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.fill_between(counts, [m.low for m in found], [m.high for m in found], color=colour, alpha=0.2, linewidth=0)
    axes.plot(counts, [m.value for m in found], color=colour, linewidth=2, marker=marker, markersize=6, label=name)


def _scales(axes: Any, ladder: Mapping[str, Sequence[Compared]], every: Sequence[Compared], label: str) -> None:
    counts = sorted({each.evaluations for rungs in ladder.values() for each in rungs if each.evaluations})
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    found = [each.measurements[label] for each in every]
    if min(each.low for each in found) > 0:
        axes.set_yscale("log")
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis(lambda value, _: f"{value:g}")
    axes.set(xlabel="network evaluations a picture", ylabel=f"{label} ({found[0].better} is better)")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
