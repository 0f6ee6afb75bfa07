"""Do the fast settings learn what float32 learns? Losses of the first steps, seed by seed, and a picture of them.

Every seed is trained twice or more from the same weights on the same pictures, timesteps and noise: in float32, eager,
in the ordinary memory layout; with what `ddm train` takes on this device; and in bfloat16, which a CPU without it
emulates.
Compared is the mean loss of the last fifty steps. Exits 1 where the mean difference from float32 is larger than the
seeds' own standard deviation.

    DDM_DATA=... python benchmarks/same_loss.py --device cpu --out results/same-loss-cpu.json --plot docs/same-loss.png
    DDM_DATA=... python benchmarks/same_loss.py --device cuda --out results/same-loss-cuda.json
"""

import argparse
import json
import statistics
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ddm.data import ImageSet
from ddm.runs import build
from ddm.runs.config import Config, override
from ddm.runs.recipes import recipes

LAST = 50
"""Steps whose mean loss is compared."""

PLANS: dict[str, dict[str, Any]] = {
    "cpu": {"network": "unet(dim=16, dim_mults=(1, 2, 4, 8))", "train.batch": 32, "train.lr": 1e-3},
    "cuda": {"train.batch": 256, "train.lr": 3e-4},
}
"""Changes to the recipe `paper`: two cores train a network a sixteenth as large."""

REFERENCE = "float32"


def variants(device: str) -> dict[str, dict[str, Any]]:
    """Names and settings of what is compared; the first is the reference."""
    plain = {"train.precision": "fp32", "train.compile": False}
    found = {REFERENCE: plain, "as ddm train": {"train.precision": "auto", "train.compile": device == "cuda"}}
    return found | ({"bfloat16": {"train.precision": "bf16"}} if device == "cpu" else {})


def losses(config: Config, data: ImageSet, *, device: str, plain: bool) -> list[float]:
    """The loss of every step of a training."""
    trainer = build.make_trainer(config, data, device=device)
    if plain:
        trainer.network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        trainer.network.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    return torch.stack([step.loss.float() for step in trainer.steps()]).tolist()


def compare(rows: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Lines of a table, and whether every variant is within the noise."""
    ends = {(row["variant"], row["seed"]): statistics.mean(row["losses"][-LAST:]) for row in rows}
    names, seeds = list(dict.fromkeys(name for name, _ in ends)), sorted({seed for _, seed in ends})
    noise = statistics.stdev(ends[REFERENCE, seed] for seed in seeds)
    lines = [f"| | loss of the last {LAST} steps, mean of seeds | difference from {REFERENCE} | within the noise |"]
    lines += ["|---" * 4 + "|", f"| {REFERENCE} | {mean(ends, REFERENCE, seeds):.5f} ± {noise:.5f} (seeds) | | |"]
    good = True
    for name in names[1:]:
        differences = [ends[name, seed] - ends[REFERENCE, seed] for seed in seeds]
        within = abs(statistics.mean(differences)) <= noise
        spread = statistics.stdev(differences)
        lines.append(
            f"| {name} | {mean(ends, name, seeds):.5f} | {statistics.mean(differences):+.6f} ± {spread:.6f} | "
            f"{'yes' if within else 'NO'} |"
        )
        good &= within
    return lines, good


def mean(ends: dict[tuple[str, int], float], name: str, seeds: list[int]) -> float:
    """Of the last losses of all seeds."""
    return statistics.mean(ends[name, seed] for seed in seeds)


def draw(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Losses, smoothed over 20 steps, one panel a seed; below them the difference from float32."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seeds = sorted({row["seed"] for row in rows})
    figure = Figure(figsize=(4 * len(seeds), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(seeds), sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1))
    styles = [{"color": "#999999", "linewidth": 4}, {"color": "#d1495b"}, {"color": "#00798c", "linestyle": "--"}]
    for column, seed in enumerate(seeds):
        above, below = panels[0][column], panels[1][column]
        found = {row["variant"]: smooth(row["losses"]) for row in rows if row["seed"] == seed}
        for (name, values), style in zip(found.items(), styles):
            above.plot(values, label=name, **style)
            below.plot([a - b for a, b in zip(values, found[REFERENCE])], **style)
        above.set(title=f"seed {seed}", yscale="log")
        below.set(xlabel="step")
    panels[0][0].set_ylabel("loss")
    panels[1][0].set_ylabel(f"less {REFERENCE}'s")
    panels[0][0].legend(frameon=False)
    for axes in panels.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def smooth(values: list[float], over: int = 20) -> list[float]:
    """Means over the last so many steps."""
    return [statistics.mean(values[max(0, i - over + 1) : i + 1]) for i in range(len(values))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--network", help="another network than the device's own")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    changes = {**PLANS[arguments.device], "train.accumulate": 1, "train.steps": arguments.steps}
    changes |= {"network": arguments.network} if arguments.network else {}
    base = override(recipes["paper"](), changes)
    data, rows = build.make_data(base), []
    for seed in range(arguments.seeds):
        for name, settings in variants(arguments.device).items():
            started = time.monotonic()
            config = override(base, {**settings, "train.seed": seed})
            found = losses(config, data, device=arguments.device, plain=name == REFERENCE)
            rows.append({"variant": name, "seed": seed, "losses": [round(each, 6) for each in found]})
            print(f"seed {seed}, {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    lines, good = compare(rows)
    print("\n".join(lines))
    if arguments.out:
        facts = {"command": "python benchmarks/same_loss.py " + " ".join(sys.argv[1:]), "torch": torch.__version__}
        facts |= {"date": date.today().isoformat(), "config": base.model_dump(), "table": lines, "rows": rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(facts) + "\n")
    if arguments.plot:
        draw(rows, arguments.plot, f"{base.network}, batch {base.train.batch}, lr {base.train.lr:g}, CIFAR-10")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
