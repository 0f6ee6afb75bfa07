"""What must hold: the numbers that were promised, and what is said where one is missed."""

from collections.abc import Callable, Iterator

from .rows import Row, Rows

FLOOR, TARGET = 9_070, 14_500
"""Images a second that the paper's network trains at on an H100: 25 % and 40 % of the roofline of its data sheet."""

OURS, PEER = "ours", "denoising-diffusion-pytorch"


def missed(rows: Rows, plan: str, parts: tuple[str, ...]) -> list[str]:
    """A line for everything that does not hold, of the parts that were measured.

    Args:
        rows: what was measured.
        plan: ``cpu`` or ``cuda``.
        parts: of the benchmark that were run.
    """
    found: list[str] = []
    for part, judge in (CPU if plan == "cpu" else CUDA).items():
        if part in parts:
            found += judge(rows)
    return list(dict.fromkeys(found))


def checks(rows: Rows) -> Iterator[str]:
    """Outputs and gradients are those of float32."""
    found = rows.find(kind="check")
    for row in found:
        if not row.get("within"):
            yield f"{row['network']}: the fast path is not float32's within the bounds: {row}"
    if not found:
        yield "the fast path was not compared with float32"


def ratio(rows: Rows, what: str, least: float) -> Iterator[str]:
    """Ours is so many times as fast as the peer at its defaults, with the paper's network."""
    row = first(rows, what, PEER)
    measured = (row or {}).get("ratio")
    if measured is None:
        yield f"{what}, paper: the ratio was not measured; needed: {least}"
    elif measured[0] < least:
        yield f"{what}, paper: ours is {measured[0]:.2f} times as fast as the peer; needed: {least}"


def first(rows: Rows, what: str, code: str) -> Row | None:
    """The first row of the paper's network in somebody's code."""
    same = rows.find(kind="speed", what=what, network="paper")
    return next((row for row in same if row["code"].startswith(code)), None)


def memory(rows: Rows, what: str) -> Iterator[str]:
    """Ours takes no more than the peer's at its defaults."""
    ours, theirs = ((first(rows, what, code) or {}).get("peak_bytes") for code in (OURS, PEER))
    if ours is None or theirs is None:
        yield f"{what}, paper: peak memory was not measured; needed: no more than the peer's"
    elif ours > theirs:
        yield f"{what}, paper: peak memory {ours / 1e6:,.0f} MB; needed: the peer's {theirs / 1e6:,.0f} MB or less"


def sampling(rows: Rows, most: float) -> Iterator[str]:
    """All pictures are made in time."""
    row = next(iter(rows.find(kind="sampling")), {})
    seconds = row.get("seconds")
    if seconds is None:
        yield f"sampling was not measured; needed: under {most:g} s"
    elif seconds[0] >= most:
        yield f"sampling {row['pictures']:,} pictures took {seconds[0]:.2f} s; needed: under {most:g} s"


def throughput(rows: Rows) -> Iterator[str]:
    """The paper's network trains at the speed that is accepted at least."""
    best = best_training(rows)
    if best < FLOOR:
        yield f"training step, paper: {best:,.0f} images/s at best; needed: {TARGET:,}, accepted: {FLOOR:,}"


def best_training(rows: Rows) -> float:
    """Images a second of the paper's network in training, at its best batch size; 0 where that was not measured."""
    found = rows.find(kind="speed", what="training step", network="paper", code=OURS)
    return max((row["images_per_second"][0] for row in found if "images_per_second" in row), default=0.0)


def remarks(rows: Rows, plan: str) -> list[str]:
    """What is accepted, though it was meant to be more."""
    best = best_training(rows)
    if plan == "cuda" and FLOOR <= best < TARGET:
        return [f"UNDER THE TARGET: training step, paper: {best:,.0f} images/s at best; the target is {TARGET:,}"]
    return []


def share(rows: Rows, least: float) -> Iterator[str]:
    """The whole run is hardly slower than its bare step."""
    row = next(iter(rows.find(kind="share of the bare step")), {})
    if row.get("value", 0.0) < least:
        yield f"`ddm train` is at {row.get('value', 'an unmeasured share')} of the bare step; needed: {least}"


def waiting(rows: Rows) -> Iterator[str]:
    """No step waits for the device."""
    found = rows.find(kind="no waiting")
    for row in found:
        if row.get("waited") is not False:
            yield f"{row['network']}: a training step waits for the device: {row.get('note')}"
    if not found:
        yield "whether training steps wait for the device was not measured"


Judge = Callable[[Rows], list[str]]

CPU: dict[str, Judge] = {
    "check": lambda rows: [*checks(rows)],
    "steps": lambda rows: [
        *ratio(rows, "training step", 1.8),
        *ratio(rows, "forward pass", 2.2),
        *memory(rows, "training step"),
    ],
    "loops": lambda rows: [*ratio(rows, "whole loop", 2.0), *memory(rows, "whole loop")],
    "sampling": lambda rows: [*sampling(rows, 1.0)],
}
CUDA: dict[str, Judge] = {
    "check": lambda rows: [*checks(rows)],
    "steps": lambda rows: [*throughput(rows), *waiting(rows)],
    "loops": lambda rows: [*ratio(rows, "whole loop", 4.0), *share(rows, 0.95)],
    "sampling": lambda rows: [*sampling(rows, 60.0)],
    "matrix": lambda rows: [*throughput(rows)],
}
