"""A recipe trained for so many minutes, from nothing to numbers: curve of the distance, measures, pictures, weights.

The time is that of the training, compiling included, and not of what is measured afterwards. Distances of snapshots are
measured with few pictures and drawn against seconds; the end with all metrics, once for each number of evaluations. The
run is written as a run folder that `ddm sample`, `ddm evaluate` and `ddm export` take, and packed in parts.

    DDM_DATA=... python benchmarks/flagship.py fast10 --minutes 10 --out results/fast10
    DDM_DATA=... python benchmarks/flagship.py paper --out results/paper         # the recipe's own number of steps
    python benchmarks/flagship.py shapes --device cpu --tiny --out /tmp/flagship # a rehearsal of every line
    cat results/fast10/run.tar.* | tar x                                         # the run, back from its parts
"""

import argparse
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

from budget.judge import Judge, numbers
from budget.results import Results
from budget.timed import Snapshot, Timed, train_for

from ddm.data import ImageSet
from ddm.errors import RequestError
from ddm.images import grid, save_png
from ddm.runs import build, checkpoints, log
from ddm.runs.checkpointing import state_of
from ddm.runs.config import Config, override
from ddm.runs.cost import evaluations_of
from ddm.runs.folder import Run, dump_config
from ddm.runs.manifest import read_manifest
from ddm.runs.recipes import recipes
from ddm.version import __version__

METRICS = ("fid", "kid", "precision", "recall", "memorisation")
PART = 15 * 2**20
"""Bytes of a part of the packed run."""

TINY = {
    "data": "shapes(count=64)",
    "image_size": 16,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 8,
    "train.steps": 40,
    "train.compile": False,
    "sample.steps": 2,
}


def settings(arguments: argparse.Namespace) -> Config:
    """The recipe with the changes that were given."""
    changes = {}
    for each in arguments.set:
        name, equals, value = each.partition("=")
        if not equals:
            raise RequestError(f"set: {each!r} is not allowed; allowed: FIELD=VALUE, e.g. train.lr=1e-3")
        changes[name] = value
    config = override(recipes[arguments.recipe](), changes)
    return override(config, TINY) if arguments.tiny else config


def train(config: Config, data: ImageSet, arguments: argparse.Namespace) -> Timed:
    """For the minutes, or for the recipe's own steps."""
    seconds = 60 * arguments.minutes if arguments.minutes else None
    return train_for(config, data, seconds=seconds, device=arguments.device, snapshots=arguments.snapshots)


def write_run(config: Config, timed: Timed, data: ImageSet, folder: Path) -> Run:
    """A run folder with the averages in half precision, so that it travels."""
    run = Run(folder, config)
    averages = timed.snapshots[-1].averages
    halves = {name: {key: each.half() for key, each in named.items()} for name, named in averages.items()}
    checkpoints.save(run.checkpoints, timed.trainer.step, halves, state_of(config, timed.trainer, data))
    (folder / "config.yaml").write_text(dump_config(config))
    return run


def pack(run: Run, out: Path) -> None:
    """The run folder as a tar file in parts."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(run.path, arcname=run.path.name)
    whole = packed.getvalue()
    for number, start in enumerate(range(0, len(whole), PART)):
        (out / f"run.tar.{number:02d}").write_bytes(whole[start : start + PART])


def curve(config: Config, snapshots: list[Snapshot], judge: Judge, results: Results) -> str:
    """Rows ``snapshot``: distances over the training; which average is best at the end."""
    final: dict[str, float] = {}
    for each in snapshots:
        for name, weights in each.averages.items():
            found = judge.measure(judge.generator(config, weights))
            results.add({"kind": "snapshot", "seconds": each.seconds, "images": each.images, "average": name, **found})
            final[name] = found["fid"][0]
    return min(final, key=final.__getitem__)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--minutes", type=float, help="of training; by default the recipe's steps")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="changes to the recipe")
    parser.add_argument("--snapshots", type=int, default=10)
    parser.add_argument("--images", type=int, default=50_000, help="generated for the final numbers")
    parser.add_argument("--curve-images", type=int, default=10_000, help="generated for each point of the curve")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[10, 18], help="steps of the final numbers")
    parser.add_argument("--features", default="efficientnet")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: numbers without meaning")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.images, arguments.curve_images, arguments.snapshots = 32, 16, 2
    config = settings(arguments)
    data = build.make_data(config)
    timed = train(config, data, arguments)
    config = override(config, {"train.steps": timed.trainer.step})
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = write_run(config, timed, data, arguments.out / arguments.recipe)
    pack(run, arguments.out)  # first of all: it cannot be repeated
    results = Results(arguments.out / "results.json", arguments.device, recipe=arguments.recipe, tiny=arguments.tiny)
    results.add(summary(config, timed))
    del timed.trainer.optimizer  # its memory is wanted now
    finish(run, timed.snapshots, data, results, arguments)
    pack(run, arguments.out)
    return 0


def summary(config: Config, timed: Timed) -> dict[str, Any]:
    """The row ``training``."""
    parameters = sum(each.numel() for each in timed.trainer.network.parameters())
    row = {"kind": "training", "seconds": round(timed.seconds, 1), "compiling": round(timed.warm_seconds, 1)}
    row |= {"steps": timed.trainer.step, "images": timed.images, "parameters": parameters}
    row |= {"images_per_second": round(timed.images / timed.seconds), "precision": timed.trainer.precision}
    return row | {"config": config.model_dump(mode="json"), "losses": timed.losses}


def finish(
    run: Run, snapshots: list[Snapshot], data: ImageSet, results: Results, arguments: argparse.Namespace
) -> None:
    """Measure, keep the numbers with the run, and show the seeds from 0."""
    options: dict[str, Any] = {"device": arguments.device, "features": arguments.features}
    quick = Judge(data, images=arguments.curve_images, **options)
    best, weights = curve(run.config, snapshots, quick, results), snapshots[-1].averages
    pictures = quick.generator(run.config, weights[best]).generate(range(64))
    save_png(arguments.out / "grid.png", grid(pictures, columns=8, scale=3))
    judge = Judge(data, images=arguments.images, metrics=METRICS, **options)
    for steps in arguments.evaluations:
        generator = judge.generator(run.config, weights[best], steps=2 if arguments.tiny else steps)
        found = judge.evaluate(generator)
        results.add({"kind": "final", "average": best, "evaluations": evaluations_of(generator)} | numbers(found))
        for record in found.records(**facts_of(run, best), generation=generator.settings()):
            log.append(run.evaluations, record)


def facts_of(run: Run, weights: str) -> dict[str, Any]:
    """What was measured, as `ddm evaluate` writes it."""
    place = checkpoints.latest(run.checkpoints, print)
    assert place is not None
    manifest = read_manifest(place)
    facts = {"model": run.name, "kind": "run", "model_digest": manifest.files[f"{weights}.safetensors"]["sha256"]}
    return facts | {"step": manifest.step, "weights": weights, "ddm": __version__}


if __name__ == "__main__":
    sys.exit(main())
