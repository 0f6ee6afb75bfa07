"""The loss curve of a run as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_loss(records: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draw ``loss`` and ``gradient_norm`` of metrics.jsonl against the step as PNG; nothing without two records."""
    points = [each for each in records if isinstance(each.get("loss"), (int, float))]
    if len(points) < 2:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, losses = [each["step"] for each in points], [each["loss"] for each in points]
    axes.plot(steps, losses, color="#1f5fa8", linewidth=1, alpha=0.35, label="mean since the record before")
    axes.plot(steps, smooth(losses), color="#1f5fa8", linewidth=2, label="running mean")
    axes.set(xlabel="optimiser step", ylabel="training loss", title=title, yscale="log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def smooth(values: Sequence[float], *, window: float = 0.03) -> list[float]:
    """The mean over ``window`` of the curve around each point, less at its ends, so that it does not lag behind."""
    reach = int(window * len(values) / 2)
    around = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(each) / len(each) for each in around]
