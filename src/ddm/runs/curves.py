"""The curves of a run as one picture: the loss, and beside it the distance where it was measured."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DRAWN = {"step", "value", "low", "high", "better", "metric", "label", "protocol", "protocol_digest"}
"""What a record must say to be drawn."""

BLUE, RED = "#1f5fa8", "#b3452c"


def draw(records: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draw the loss against the step as PNG and, beside it, each distance that was measured in training.

    Args:
        records: of metrics.jsonl; nothing is drawn without two of them.
        evaluations: of evaluations.jsonl.
        path: the picture; its folder is made.
        title: above it.
    """
    points = [each for each in records if isinstance(each.get("loss"), (int, float)) and "step" in each]
    if len(points) < 2:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = list(distances(evaluations))[:1]
    figure = Figure(figsize=(8 + 6 * len(measured), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss, *others = figure.subplots(1, 1 + len(measured), squeeze=False)[0]
    draw_loss(loss, points)
    for axes, (name, curve) in zip(others, measured):
        draw_distance(axes, name, curve)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    del figure, loss, others
    gc.collect(1)  # a figure refers to itself: else dozens of them, 50 MB, wait for the collection of everything


def draw_loss(axes: Any, points: Sequence[Mapping[str, Any]]) -> None:
    """The training loss into matplotlib axes."""
    steps, losses = [each["step"] for each in points], [each["loss"] for each in points]
    axes.plot(steps, losses, color=BLUE, linewidth=1, alpha=0.35, label="mean since the record before")
    axes.plot(steps, smooth(losses), color=BLUE, linewidth=2, label="running mean")
    axes.set(xlabel="optimiser step", ylabel="training loss", yscale="log")
    _tidy(axes)


def draw_distance(axes: Any, name: str, curve: Sequence[Mapping[str, Any]]) -> None:
    """One metric with its intervals against the step into matplotlib axes."""
    steps, values = [each["step"] for each in curve], [each["value"] for each in curve]
    axes.fill_between(steps, [each["low"] for each in curve], [each["high"] for each in curve], color=RED, alpha=0.2)
    axes.plot(steps, values, color=RED, linewidth=2, marker="o", markersize=4, label="value and 95 % interval")
    falling = curve[-1]["better"] == "lower" and min(values) > 0  # shares stand on a scale that has a top
    axes.set(xlabel="optimiser step", ylabel=name, yscale="log" if falling else "linear")
    protocol = curve[-1]["protocol"]
    fake, real = (
        f"{protocol[name]:,}" if isinstance(protocol.get(name), int) else "?" for name in ("n_fake", "n_real")
    )
    axes.set_title(f"{fake} pictures against {real} of {protocol.get('reference')}", fontsize="small")
    _tidy(axes)


def distances(evaluations: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Name and curve of each metric that was measured in training, one protocol each, the newest; by step."""
    trained = [each for each in evaluations if each.get("by") == "train" and each.keys() >= DRAWN]
    for metric in dict.fromkeys(each["metric"] for each in trained):
        found = [each for each in trained if each["metric"] == metric]
        alike = [each for each in found if each["protocol_digest"] == found[-1]["protocol_digest"]]
        latest = {each["step"]: each for each in alike}
        yield found[-1]["label"], [latest[step] for step in sorted(latest)]


def smooth(values: Sequence[float], *, window: float = 0.03) -> list[float]:
    """The mean over ``window`` of the curve around each point, less at its ends, so that it does not lag behind."""
    reach = int(window * len(values) / 2)
    around = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(each) / len(each) for each in around]


def _tidy(axes: Any) -> None:
    if axes.get_yscale() == "log":
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
