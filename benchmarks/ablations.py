"""What makes a short training good? One change at a time to one recipe, all for the same number of seconds.

The recipe is trained several times with other seeds first: differences below twice their standard deviation are no
results. Every row has what was predicted before it ran. Of each training every average of the weights is measured, and
the best counts. Seconds do not include compiling (the flagship's do). Rows are written as they come; what is in the
file already is not run again.

    DDM_DATA=... python benchmarks/ablations.py --seconds 45 --out results/ablations.json
    python benchmarks/ablations.py --table results/ablations.json
    python benchmarks/ablations.py --device cpu --tiny --out /tmp/ablations.json       # a rehearsal of every line
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budget.judge import Judge
from budget.results import Results, Row
from budget.timed import train_for

from ddm.errors import DdmError
from ddm.runs import build
from ddm.runs.config import Config, override
from ddm.runs.recipes import recipes

AVERAGES = ("power(width=0.05)", "power(width=0.1)", "power(width=0.15)")
REPEATS = 3


@dataclass(frozen=True)
class Change:
    """One row of the plan.

    Args:
        name: what is changed.
        predicted: of the distance, before it ran; from the literature or a guess.
        fields: of the Config, by dotted path.
    """

    name: str
    predicted: str
    fields: dict[str, Any] = field(default_factory=dict)


PLAN = (
    *(Change(f"as it is, seed {seed}", "the noise", {"train.seed": seed}) for seed in range(REPEATS)),
    Change("lr 5e-4", "+10 %", {"train.lr": 5e-4}),
    Change("lr 2e-3", "-5 % or unstable", {"train.lr": 2e-3}),
    Change("constant learning rate", "+10 to +20 %", {"train.decay": 0.0}),
    Change("decay over the last 60 %", "-3 %", {"train.decay": 0.6}),
    Change("muon", "-10 %: the same in 0.6 to 0.8 of the images", {"train.optimizer": "muon", "train.lr": 5e-3}),
    Change("muon, lr 1e-2", "-10 %", {"train.optimizer": "muon", "train.lr": 1e-2}),
    Change("width 96, mults 1 2 2", "+5 %", {"network": "residual_unet(width=96, mults=(1, 2, 2), blocks=2)"}),
    Change(
        "width 128, patch 2",
        "-20 to +20 %: twice the images",
        {"network": "residual_unet(width=128, mults=(1, 2), blocks=3, patch=2)"},
    ),
    Change(
        "width 128, mults 1 2 2",
        "+10 %: too few images",
        {"network": "residual_unet(width=128, mults=(1, 2, 2), blocks=2)"},
    ),
    Change("batch 128", "0 to +5 %", {"train.batch": 128, "train.lr": 7e-4}),
    Change("batch 512", "+5 %", {"train.batch": 512, "train.lr": 1.4e-3}),
    Change("eps, linear", "+15 %", {"objective": "eps", "schedule": "linear", "weighting": "one"}),
    Change("velocity, flow", "0 to +5 %", {"objective": "velocity", "schedule": "flow", "weighting": "one"}),
    Change("noise mean -0.8", "0 to -5 %", {"schedule": "lognormal(mean=-0.8, std=1.2)"}),
    Change("no labels", "+5 %", {"conditional": False}),
    Change("no mirrored pictures", "0 to -3 %", {"train.flip": False}),
    Change("dropout 0.1", "+5 %", {"network": "residual_unet(width=64, mults=(1, 2, 4), blocks=2, dropout=0.1)"}),
)

TINY = {
    "data": "shapes(count=64)",
    "image_size": 16,
    "train.batch": 8,
    "train.compile": False,
    "train.warmup": 2,
    "sample.sampler": "ddim",
    "sample.steps": 2,
}


def base(recipe: str, tiny: bool) -> Config:
    """What the changes are made to."""
    config = override(recipes[recipe](), {"train.ema": AVERAGES})
    return override(config, TINY) if tiny else config


def smaller(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a change for a rehearsal: a tiny network, a small batch."""
    found = {name: value for name, value in fields.items() if name not in ("network", "train.batch")}
    return found | {"network": "residual_unet(width=8, mults=(1, 2), blocks=1)"}


def run(arguments: argparse.Namespace, results: Results) -> None:
    """Train and judge what is not in the results yet."""
    start, until = base(arguments.recipe, arguments.tiny), time.monotonic() + arguments.budget
    data = build.make_data(start)
    judge = Judge(data, device=arguments.device, features=arguments.features, images=arguments.images)
    for change in PLAN:
        if results.has(name=change.name) or (arguments.only and change.name not in arguments.only):
            continue
        if time.monotonic() + 1.5 * arguments.seconds > until:
            print(f"no time is left for {change.name!r} and what follows", file=sys.stderr)
            return
        fields = smaller(change.fields) if arguments.tiny else change.fields
        row: Row = {"name": change.name, "predicted": change.predicted, "changes": change.fields}
        try:
            row |= measure(override(start, fields), judge, arguments)
        except (DdmError, RuntimeError) as error:
            row |= {"problem": str(error).splitlines()[0][:200]}
        results.add(row)


def measure(config: Config, judge: Judge, arguments: argparse.Namespace) -> Row:
    """One training: how far it came, and the distance of its best average."""
    timed = train_for(
        config, judge.data, seconds=arguments.seconds, device=arguments.device, compiling_counts=False, snapshots=1
    )
    row: Row = {"seconds": round(timed.seconds, 1), "compiling": round(timed.warm_seconds, 1)}
    row |= {
        "steps": timed.trainer.step,
        "images": timed.images,
        "images_per_second": round(timed.images / timed.seconds),
    }
    row |= {"loss": timed.losses[-1][2] if timed.losses else None, "averages": {}}
    for rule, weights in zip(config.train.ema, timed.snapshots[-1].averages.values()):
        row["averages"][rule] = judge.measure(judge.generator(config, weights))
    best = min(row["averages"], key=lambda rule: row["averages"][rule]["fid"][0])
    return row | {"average": best, **row["averages"][best]}


def table(rows: list[Row]) -> str:
    """Markdown: every change against the recipe as it is."""
    repeats = [row["fid"][0] for row in rows if row["name"].startswith("as it is") and "fid" in row]
    if not repeats:
        return "the recipe as it is was not measured"
    usual, noise = statistics.mean(repeats), statistics.stdev(repeats) if len(repeats) > 1 else 0.0
    lines = [f"as it is: {usual:.2f}, standard deviation of {len(repeats)} seeds {noise:.2f}", ""]
    lines += ["| change | predicted | measured | distance | KID x 1000 | average | images | images/s | |"]
    lines += ["|---" * 9 + "|"]
    for row in rows:
        if "fid" not in row:
            lines.append(f"| {row['name']} | {row['predicted']} | {row.get('problem', 'not measured')} |" + " |" * 6)
            continue
        difference = row["fid"][0] - usual
        said = "better" if difference < -2 * noise else "worse" if difference > 2 * noise else "within the noise"
        said = "" if row["name"].startswith("as it is") else said
        kid = f"{1000 * row['kid'][0]:.2f}" if "kid" in row else ""
        lines.append(
            f"| {row['name']} | {row['predicted']} | {difference / usual:+.1%} | {row['fid'][0]:.2f} | {kid} | "
            f"`{row['average']}` | {row['images'] / 1e6:.2f} M | {row['images_per_second']:,} | {said} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fast10")
    parser.add_argument("--seconds", type=float, default=45.0, help="of each training")
    parser.add_argument("--budget", type=float, default=560.0, help="seconds after which none is begun")
    parser.add_argument("--images", type=int, default=10_000, help="generated for each distance")
    parser.add_argument("--features", default="efficientnet")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the changes")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: numbers without meaning")
    parser.add_argument("--out", type=Path, default=Path("results/ablations.json"))
    parser.add_argument("--table", type=Path, help="print the table of these results and do nothing else")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())["rows"]))
        return 0
    if arguments.tiny:
        arguments.seconds, arguments.images = 0.5, 16
    results = Results(arguments.out, arguments.device, recipe=arguments.recipe, tiny=arguments.tiny)
    run(arguments, results)
    print(table(results.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
