"""Which sampler, on which grid, with how many evaluations of the network? Distance, error and seconds of them all.

For a model, every sampler makes the same seeds' pictures with about the same numbers of network evaluations:

1. error: how far the pictures of a deterministic sampler are from the exact ones of the same noise (root mean square in
   gray levels of 255, against Heun's method with 100 steps). It needs few pictures, so every grid is tried.
2. distance: the Frechet distance and KID of many pictures to the training set, each sampler on its best grid.
3. seconds: of making pictures, every case in turns over several rounds. Nothing else should run on the machine then.

Rows are written as they are measured, and a second call goes on where the first was stopped.

    DDM_DATA=... python benchmarks/samplers.py runs/edm --out results/samplers.json --plot docs/samplers.png
    DDM_DATA=... python benchmarks/samplers.py runs/edm --out results/samplers.json --parts seconds
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ddm.data import get_data
from ddm.errors import RequestError
from ddm.generators import DiffusionGenerator
from ddm.runs.config import Evaluation
from ddm.runs.cost import evaluations_of, parameters_of, with_evaluations
from ddm.runs.evaluation import Evaluator
from ddm.runs.progress import finish
from ddm.runs.recipes import recipes
from ddm.runs.sources import Model, load
from ddm.training import Team

DETERMINISTIC = (
    "ddim",
    "heun",
    "dpm_solver_2",
    "dpmpp_2m",
    "dpmpp_3m",
    "unipc(order=1)",
    "unipc(order=2)",
    "unipc(order=3)",
    "deis(order=2)",
    "deis(order=3)",
    "ipndm(order=2)",
    "ipndm(order=3)",
    "ipndm(order=4)",
)
STOCHASTIC = ("ddpm", "ddpm(variance='large')", "euler_ancestral", "dpmpp_sde", "heun(churn=10)")
ADAPTIVE = tuple(f"adaptive(tolerance={tolerance})" for tolerance in (0.1, 0.03, 0.01))
GRIDS = ("karras", "log_snr", "trailing", "searched")
ERROR_EVALUATIONS = (6, 8, 10, 14, 20)
SHOWN = 3
"""Distances above so many times the least are beyond the plot."""

EXACT: dict[str, Any] = {"sampler": "heun", "grid": "karras", "steps": 100}
PARTS = ("errors", "distances", "seconds")
CHOSEN_AT = 10
"""Evaluations at which the best sampler and grid are chosen."""
ENDS = ("karras(low=0.01)", "karras(low=0.02)", "karras(low=0.04)", "karras(low=0.08)")
"""Karras' levels, down to others than the 0.002 of the paper."""

Row = dict[str, Any]


class Rows:
    """What was measured, in a JSON file that is written after every row."""

    def __init__(self, path: Path, facts: Row):
        self.path, self.facts, self.all = path, facts, []
        if path.exists():
            before = json.loads(path.read_text())
            if before["model_digest"] != facts["model_digest"]:
                raise RequestError(f"out: {str(path)!r} is of another model; move it aside")
            self.all = before["rows"]

    def has(self, **key: Any) -> bool:
        """Is there a row with these values?"""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.all)

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.all.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**self.facts, "rows": self.all}, indent=1) + "\n")
        print(", ".join(f"{name} {value}" for name, value in row.items()), file=sys.stderr, flush=True)

    def of(self, kind: str) -> list[Row]:
        """All rows of a kind, ``error`` or ``distance``."""
        return [row for row in self.all if row["kind"] == kind]


def generator_for(model: Model, source: str, sampler: str, grid: str, evaluations: int) -> DiffusionGenerator | None:
    """The model with a sampler and so many evaluations (or the next fewer it can make); None where it cannot."""
    generator = model.generator
    assert isinstance(generator, DiffusionGenerator)
    plain = generator.with_settings(sampler=sampler, grid="karras" if grid == "searched" else grid)
    if sampler.startswith("adaptive"):
        return plain
    try:
        made = with_evaluations(plain, evaluations)
    except RequestError:
        return None
    assert isinstance(made, DiffusionGenerator)
    if grid != "searched":
        return made
    found = load(source, sampler=sampler, grid="searched", steps=len(made.grid) - 1, guidance=1.0).generator
    assert isinstance(found, DiffusionGenerator)
    return found


def measure_errors(model: Model, source: str, rows: Rows, *, pictures: int) -> None:
    """Rows ``error``: every deterministic sampler on every grid against the exact pictures."""
    seeds = range(10**6, 10**6 + pictures)  # none that a grid was searched on or that is measured elsewhere
    generator = model.generator
    assert isinstance(generator, DiffusionGenerator)
    exact: torch.Tensor | None = None
    for sampler in DETERMINISTIC:
        for grid in GRIDS:
            for evaluations in ERROR_EVALUATIONS:
                key = {"kind": "error", "sampler": sampler, "grid": grid, "asked": evaluations, "pictures": pictures}
                made = None if rows.has(**key) else generator_for(model, source, sampler, grid, evaluations)
                if made is None:
                    continue
                if exact is None:
                    exact = generator.with_settings(**EXACT).floats(seeds)
                error = float((made.floats(seeds) - exact).square().mean().sqrt() * 127.5)
                rows.add({**key, "evaluations": evaluations_of(made), "error": round(error, 4)})


def best_grid(rows: Rows, sampler: str, *, search: bool = True) -> str:
    """The grid on which a sampler's error is smallest; that of its deterministic relative for a stochastic one.

    Args:
        rows: with the errors.
        sampler: a choice.
        search: whether it may be a searched one.
    """
    relatives = {"ddpm": "ddim", "euler_ancestral": "ddim", "dpmpp_sde": "dpmpp_2m", "heun(churn=10)": "heun"}
    relative = relatives.get(sampler.split("(v")[0], sampler)
    at = [row for row in rows.of("error") if row["sampler"] == relative and row["asked"] == CHOSEN_AT]
    at = [row for row in at if search or row["grid"] != "searched"]
    return min(at, key=lambda row: row["error"])["grid"] if at else "karras"


def measure_distances(
    model: Model, source: str, rows: Rows, cases: Sequence[tuple[str, str, int]], evaluator: Evaluator
) -> None:
    """Rows ``distance``: Frechet distance and KID of each sampler, grid and number of evaluations."""
    for sampler, grid, evaluations in cases:
        key = {"kind": "distance", "sampler": sampler, "grid": grid, "asked": evaluations}
        key["images"] = evaluator.settings.images
        made = None if rows.has(**key) else generator_for(model, source, sampler, grid, evaluations)
        if made is None:
            continue
        found = finish(evaluator.evaluate(made, identity=None))
        assert found is not None
        row = {**key, "evaluations": mean_evaluations(made)}
        for name, measurement in found.measurements.items():
            row[name] = [round(each, 6) for each in (measurement.value, measurement.low, measurement.high)]
        rows.add(row)


def mean_evaluations(generator: DiffusionGenerator) -> float | int:
    """Of the network, a picture; a sampler with steps of its own takes more for one than for another."""
    few = 1 if not generator.settings()["sampler"].startswith("adaptive") else 16
    counts = [evaluations_of(generator, seed=seed) or 0 for seed in range(few)]
    return counts[0] if few == 1 else round(statistics.mean(counts), 1)


def measure_seconds(
    model: Model, source: str, rows: Rows, cases: Sequence[tuple[str, str, int]], *, pictures: int, rounds: int
) -> None:
    """Rows ``seconds``: of making so many pictures at once, the median over rounds of all cases in turns."""
    new = [
        each
        for each in cases
        if not rows.has(kind="seconds", sampler=each[0], grid=each[1], asked=each[2], pictures=pictures)
    ]
    seconds: dict[tuple[str, str, int], list[float]] = {case: [] for case in new}
    made = {case: generator_for(model, source, *case) for case in seconds}
    for number in range(rounds + 1):
        for case, generator in made.items():
            if generator is None:
                continue
            started = time.perf_counter()
            generator.generate(range(pictures))
            if number:  # the first round warms up
                seconds[case].append(time.perf_counter() - started)
    for (sampler, grid, evaluations), found in seconds.items():
        if found:
            key = {"kind": "seconds", "sampler": sampler, "grid": grid, "asked": evaluations, "pictures": pictures}
            spread = {"least": round(min(found), 3), "most": round(max(found), 3), "threads": torch.get_num_threads()}
            rows.add({**key, "seconds": round(statistics.median(found), 3), **spread})


def cases(rows: Rows, evaluations: Sequence[int]) -> Iterator[tuple[str, str, int]]:
    """What distances are measured of, with few evaluations: every sampler on its best grid, and the chosen one."""
    best = [(sampler, best_grid(rows, sampler)) for sampler in (*DETERMINISTIC, *STOCHASTIC)]
    for sampler, grid in dict.fromkeys([*best, chosen(rows)]):
        for count in evaluations:
            yield sampler, grid, count
    for sampler in (*DETERMINISTIC, *STOCHASTIC):
        yield sampler, best_grid(rows, sampler, search=False), CHOSEN_AT
    for sampler in ADAPTIVE:
        yield sampler, "karras", 0


def long_cases(rows: Rows, many: int) -> Iterator[tuple[str, str, int]]:
    """With many evaluations: the classical samplers, and the chosen one."""
    for sampler, grid in dict.fromkeys([chosen(rows), ("ddpm", "trailing"), ("heun", "karras")]):
        yield sampler, grid, many


def end_cases(rows: Rows, many: int) -> Iterator[tuple[str, str, int]]:
    """The chosen sampler down to other noise levels, and with many evaluations to the one that recipes end at."""
    sampler, _ = chosen(rows)
    for grid in ENDS:
        yield sampler, grid, CHOSEN_AT
    yield sampler, recipes["edm"]().sample.grid, many


def chosen(rows: Rows) -> tuple[str, str]:
    """What should be the default: the smallest error at :data:`CHOSEN_AT` evaluations on a grid that needs no search.

    Not the smallest distance: a model's own distance is that of its exact pictures, and a solver that is off
    them may have a smaller one where the model is not good yet, by luck.
    """
    found = [r for r in rows.of("error") if r["asked"] == CHOSEN_AT and r["grid"] != "searched"]
    least = min(found, key=lambda row: row["error"], default={"sampler": "heun", "grid": "karras"})
    return least["sampler"], least["grid"]


def error_of(rows: Rows, distance: Row, kind: str = "error") -> float | None:
    """The error (or seconds) of the sampler, grid and evaluations of a row of distances, where there is one."""
    same = ("sampler", "grid", "asked")
    return next((r[kind] for r in rows.of(kind) if all(r[name] == distance[name] for name in same)), None)


def table(rows: Rows) -> str:
    """Markdown: a row a measurement of distances, the best first for each number of evaluations."""
    lines = ["| evaluations | sampler | grid | FD | KID x 1000 | error (levels) | seconds |", "|---" * 7 + "|"]
    for row in sorted(rows.of("distance"), key=lambda r: (r["asked"] or r["evaluations"], r["fid"][0])):
        error, seconds = error_of(rows, row), error_of(rows, row, "seconds")
        lines.append(
            f"| {row['evaluations']} | `{row['sampler']}` | {row['grid']} | {plus_minus(row['fid'])} | "
            f"{plus_minus([1000 * each for each in row['kid']])} | {'' if error is None else f'{error:.2f}'} | "
            f"{'' if seconds is None else f'{seconds:.2f}'} |"
        )
    return "\n".join(lines)


def plus_minus(found: Sequence[float]) -> str:
    """A value and half of its interval."""
    value, low, high = found
    return f"{value:.4g} ± {(high - low) / 2:.2g}"


def draw(rows: Rows, path: Path, *, title: str) -> None:
    """Distance and error against evaluations, a line a sampler on its best grid, and those that were measured often."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    timed = bool(rows.of("seconds"))
    figure = Figure(figsize=(13 + 4 * timed, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right, last = [*figure.subplots(1, 2 + timed), None][:3]
    pairs = [(name, best_grid(rows, name)) for name in (*DETERMINISTIC, *STOCHASTIC)]
    counts = Counter((row["sampler"], row["grid"]) for row in rows.of("distance"))
    least = min(row["fid"][0] for row in rows.of("distance"))
    for number, (name, grid) in enumerate(dict.fromkeys([*pairs, *(pair for pair in counts if counts[pair] > 1)])):
        style = {"color": f"C{number % 10}", "marker": "osD^vPX*"[number % 8], "linewidth": 1.6, "markersize": 5}
        style["linestyle"] = "-" if name in DETERMINISTIC else "--"
        mine = {"sampler": name, "grid": grid}
        distances, errors = ([r for r in rows.of(kind) if mine.items() <= r.items()] for kind in ("distance", "error"))
        found = sorted((row["evaluations"], row["fid"][0]) for row in distances)
        if not found or found[-1][1] > SHOWN * least:
            continue
        left.plot(*zip(*found), label=f"{name}, {grid}", **style)
        found = sorted((row["evaluations"], row["error"]) for row in errors)
        right.plot(*zip(*found), **style) if found else None
        found = sorted((each, row["fid"][0]) for row in distances if (each := error_of(rows, row, "seconds")))
        last.plot(*zip(*found), **style) if last and found else None
    span = {"xscale": "log", "yscale": "log", "ylim": (0.95 * least, SHOWN * least)}
    left.set(ylabel="Frechet distance (lower is better)", **span)
    right.set(xscale="log", yscale="log", ylabel="error against the exact pictures (gray levels)")
    for axes, kind in ((left, "distance"), (right, "error")):
        counts = sorted({r["asked"] for r in rows.of(kind) if r["asked"]})
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("network evaluations a picture")
        axes.grid(alpha=0.25, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (left, last):
        if axes:
            axes.yaxis.set_minor_formatter(ScalarFormatter())
    if last:
        last.set(xlabel="seconds for 16 pictures", ylabel="Frechet distance (lower is better)", **span)
        last.set_xticks([], minor=True)
        last.set_xticks(ticks := [0.2, 0.5, 1, 2, 5], [f"{each:g}" for each in ticks])
        last.grid(alpha=0.25, which="both")
        last.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def facts(model: Model, arguments: argparse.Namespace) -> Row:
    """All that the numbers depend on."""
    return {
        "command": "python benchmarks/samplers.py " + " ".join(sys.argv[1:]),
        "model": model.name,
        "model_digest": model.digest,
        "step": model.step,
        "network": model.config.network if model.config else None,
        "parameters": parameters_of(model.generator),
        "features": arguments.features,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a run or checkpoint of ours")
    parser.add_argument("--images", type=int, default=2000, help="generated pictures of each distance")
    parser.add_argument("--pictures", type=int, default=16, help="pictures of each error")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[6, 10, 18])
    parser.add_argument("--many", type=int, default=100, help="evaluations of the long runs")
    parser.add_argument("--reference", default="cifar10")
    parser.add_argument("--features", default="efficientnet")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results/samplers.json"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument(
        "--parts", nargs="*", choices=PARTS, default=list(PARTS[:2]), help="seconds on an idle machine only"
    )
    arguments = parser.parse_args()
    model = load(arguments.source, device=arguments.device, guidance=1.0)
    rows = Rows(arguments.out, facts(model, arguments))
    if "errors" in arguments.parts:
        measure_errors(model, arguments.source, rows, pictures=arguments.pictures)
    if "distances" in arguments.parts:
        settings = Evaluation(metrics=("fid", "kid"), features=arguments.features, images=arguments.images)
        evaluator = Evaluator(settings, get_data(arguments.reference), team=Team(arguments.device))
        measure_distances(model, arguments.source, rows, list(cases(rows, arguments.evaluations)), evaluator)
        for more in (end_cases, long_cases):
            measure_distances(model, arguments.source, rows, list(more(rows, arguments.many)), evaluator)
    if "seconds" in arguments.parts:
        every = [*cases(rows, arguments.evaluations), *long_cases(rows, arguments.many)]
        measure_seconds(model, arguments.source, rows, every, pictures=arguments.pictures, rounds=3)
    print(table(rows))
    sampler, grid = chosen(rows)
    print(f"\nthe least error with {CHOSEN_AT} evaluations: {sampler} on the {grid} grid")
    if arguments.plot:
        title = f"{rows.facts['network']}, step {rows.facts['step']}: {arguments.images:,} pictures"
        draw(rows, arguments.plot, title=title)
    return max(verdict(rows, sampler, each, arguments.many) for each in (grid, recipes["edm"]().sample.grid))


def verdict(rows: Rows, sampler: str, grid: str, many: int) -> int:
    """1 where ten evaluations of the chosen sampler are more than 15 % worse, or better, than many of it."""
    same = [row for row in rows.of("distance") if (row["sampler"], row["grid"]) == (sampler, grid)]
    found = {row["asked"]: row["fid"][0] for row in same}
    if CHOSEN_AT not in found or many not in found:
        return 0
    worse = found[CHOSEN_AT] / found[many] - 1
    print(f"{sampler} on {grid}, {CHOSEN_AT} evaluations against {many}: {worse:+.1%} (allowed: 15 % either way)")
    return int(abs(worse) > 0.15)


if __name__ == "__main__":
    sys.exit(main())
