"""What a user may name as a source of pictures, and our own runs and checkpoints among them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddm.diffusion import GaussianDiffusion
from ddm.errors import RequestError, unknown
from ddm.generators import DiffusionGenerator
from ddm.runs import build, checkpoints
from ddm.runs.checkpointing import check_network, checkpoint_config
from ddm.runs.config import Config
from ddm.runs.folder import Run
from ddm.runs.foreign import check_size, load_fixed, load_foreign_pipeline
from ddm.runs.manifest import BadCheckpoint, read_manifest
from ddm.runs.model import Model
from ddm.runs.naming import Named, named, shipped
from ddm.runs.searched import Weights, choose_grid
from ddm.training import check_tensors, pick_device

__all__ = ["Model", "find_checkpoint", "load"]

TAKES = {"diffusers": ("steps",), "folder": (), "npz": (), "data": ()}
"""The options of sampling that sources other than runs take."""

WEIGHTS = re.compile(r"raw|ema(-\d+)?")
"""What weights are called."""


def load(
    source: str | Path,
    *,
    weights: str = "ema",
    guide: str | int | Path | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda _: None,
    image_size: int | None = None,
    **sampling: Any,
) -> Model:
    """The model in a run folder (its newest sound checkpoint) or in a checkpoint folder, or pictures from elsewhere.

    Args:
        source: the folder; or ``folder:PATH`` and ``npz:PATH`` for pictures that are there already,
            ``data:DATASET`` for a data set such as ``data:cifar10(split="test")``, or ``diffusers:ID_OR_PATH`` for
            a pipeline.
        weights: of a run: ``ema`` (the first average), ``ema-1``, ... or ``raw``.
        guide: a worse version of a run for autoguidance: one of its steps, ``"1000"``; other weights of the same step,
            ``"raw"``; both, ``"1000/raw"``; or another run or checkpoint of the same pictures, whose network may be
            smaller, ``"runs/small"``, ``"runs/small/ema-1"``. Its weights are called as the model's, if not said.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        say: told about checkpoints that had to be passed over, and about pictures that are not taken as they are.
        image_size: side of the squares that stored pictures become; 32 by default. Models have their own.
        sampling: options of :class:`DiffusionGenerator` instead of the run's own, e.g. ``steps=50``; a pipeline
            takes ``steps``. ``grid="searched"`` is the grid that is kept for these weights and this number of steps;
            it is searched where there is none. Without ``grid`` it is used too, but only where it is kept and the
            sampler gains by it.

    Raises:
        RequestError: nothing usable is there, one line says what is; or an option that this source does not take.
    """
    place = pick_device(device)
    found = named(source)
    if found.kind == "run":
        path = Path(found.text).expanduser()
        return _load_run(path, weights, guide, place=place, say=say, image_size=image_size, **sampling)
    _check_options(found, weights, sampling if guide is None else {"guide": guide, **sampling})
    if found.kind == "diffusers":
        return load_foreign_pipeline(found, place=place, image_size=image_size, **sampling)
    return load_fixed(found, say=say, image_size=image_size)


def _check_options(found: Named, weights: str, sampling: dict[str, Any]) -> None:
    takes = TAKES[found.kind]
    given = sampling if weights == "ema" else {"weights": weights, **sampling}
    for name, value in given.items():
        if name not in takes:
            allowed = ", ".join(takes) or "none, its pictures are there already"
            raise RequestError(f"{name}: {value!r} is not allowed for {found.kind}: sources; allowed: {allowed}")


@dataclass(frozen=True)
class _Trained:
    """One network of a checkpoint, ready to sample, and what it makes."""

    diffusion: GaussianDiffusion
    digest: str
    step: int
    config: Config
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


def _load_run(
    source: Path,
    weights: str,
    guide: str | int | Path | None,
    *,
    place: torch.device,
    say: Callable[[str], None],
    image_size: int | None,
    **sampling: Any,
) -> Model:
    path, run_config = find_checkpoint(source, say)
    mine = _read(path, run_config, weights, place)
    check_size(image_size, mine.shape, "a run")
    run = run_of(path)
    options = build.sampling_options(mine.config.sample) | sampling
    if guide is not None:
        theirs, name = _read_guide(str(guide), path, weights, place, say)
        _check_guide(theirs, mine, name, options["guidance"], say)
        options |= {"guide": theirs.diffusion, "guide_name": name}
    any_grid: dict[str, Any] = {**options, "grid": "karras"}
    DiffusionGenerator(mine.diffusion, shape=mine.shape, **any_grid)  # what is wrong besides is told before a search
    options["grid"], grids = choose_grid(
        Weights(mine.digest, mine.diffusion, mine.shape, run),
        sampler=options["sampler"],
        grid=options["grid"],
        steps=options["steps"],
        asked="grid" in sampling,
        say=say,
    )
    generator = DiffusionGenerator(mine.diffusion, shape=mine.shape, **options)
    if options["sampler"].startswith("consistency") and not mine.config.task.startswith("consistency"):
        say("sampler consistency is for models that were trained to it with --task consistency; this one was not")
    name = path.resolve().name if run is None else run.name if source != path else f"{run.name}/{path.name}"
    return Model(name, "run", generator, mine.digest, mine.classes, mine.config, run, path, mine.step, weights, grids)


def _read(path: Path, run_config: Config | None, weights: str, place: torch.device) -> _Trained:
    try:
        group = group_of(weights, path)
        loaded = checkpoints.load(path, groups=[group])
        digest = read_manifest(path).files[f"{group}.safetensors"]["sha256"]
    except BadCheckpoint as error:
        raise RequestError(f"source: {error}") from None
    config = checkpoint_config(loaded.state, path)
    if run_config is not None:
        check_network(config, run_config, path)
    pictures = loaded.state["pictures"]
    classes = tuple(pictures["classes"]) if config.conditional else ()
    shape = (pictures["channels"], config.image_size, config.image_size)
    tensors = loaded.tensors[group]
    with build.shapes_alone():  # no memory for a network that is not in the file
        like = build.make_network(config, channels=pictures["channels"], classes=len(classes))
    check_tensors(like.state_dict(), tensors, weights)
    network = build.make_network(config, channels=pictures["channels"], classes=len(classes))
    network.load_state_dict(dict(tensors))
    diffusion = build.make_diffusion(config, network).to(place).eval().requires_grad_(False)
    return _Trained(diffusion, digest, loaded.step, config, shape, classes)


def _read_guide(
    text: str, path: Path, weights: str, place: torch.device, say: Callable[[str], None]
) -> tuple[_Trained, str]:
    """The guide of the model at ``path``, and what tells it from others: nothing that only this machine knows."""
    where, _, last = text.rpartition("/")
    if not WEIGHTS.fullmatch(last):
        where, last = text, weights
    try:
        guide = _read(*_checkpoint_of_guide(where, path, say), last, place)
    except RequestError as error:
        raise RequestError(f"guide: {str(error).removeprefix('source: ')}") from None
    return guide, f"step {guide.step} {last} {guide.digest[:16]}"


def _checkpoint_of_guide(where: str, path: Path, say: Callable[[str], None]) -> tuple[Path, Config | None]:
    if not where:
        return path, None
    if where.isdecimal():
        run = run_of(path)
        there = checkpoints.steps(path.resolve().parent) if run else []
        if int(where) not in there:
            allowed = ", ".join(str(step) for step in there) or "none, this checkpoint is in no run"
            raise RequestError(f"there is no checkpoint of step {where}; allowed: {allowed}")
        return checkpoints.place_of(path.resolve().parent, int(where)), None
    if named(where).kind != "run":
        raise RequestError(f"{where!r} is not allowed; allowed: a step, weights such as raw, a run or a checkpoint")
    return find_checkpoint(Path(named(where).text).expanduser(), say)


def _check_guide(guide: _Trained, model: _Trained, name: str, guidance: float, say: Callable[[str], None]) -> None:
    """Raise :class:`RequestError` for a guide of other pictures; say where it is of no use."""
    for what, theirs, ours in (("size", guide.shape, model.shape), ("labels", guide.classes, model.classes)):
        if theirs != ours:
            raise RequestError(f"guide: its {what} {theirs} are not allowed for a model of {ours}; allowed: the same")
    if guidance == 1:
        say(f"guide   {name}: of no use, guidance is 1; try --guidance 2")
    elif guide.digest == model.digest:
        say(f"guide   {name}: of no use, it is the model itself")


def group_of(weights: str, path: Path) -> str:
    """The group of tensors in a checkpoint that these weights are; raises :class:`RequestError` where there is none."""
    there = sorted(each.stem for each in path.glob("*.safetensors") if each.stem != "state")
    names = {"raw" if name == "weights" else name: name for name in there}
    if weights not in names:
        raise unknown("weights", weights, names)
    return names[weights]


def find_checkpoint(path: Path, say: Callable[[str], None]) -> tuple[Path, Config | None]:
    """The checkpoint folder that a source means, and the Config of its run where it is part of one."""
    if (path / "manifest.json").exists():
        return path, None
    if not (path / "config.yaml").exists():
        raise RequestError(f"source: {str(path)!r} is neither a run folder nor a checkpoint{_nearby(path)}")
    run = Run.open(path)
    found = checkpoints.latest(run.checkpoints, say)
    if found is None:
        raise RequestError(f"source: {str(path)!r} has no checkpoint yet; train it with ddm train")
    return found, run.config


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that a checkpoint lies in, if it does."""
    run = checkpoint.resolve().parent.parent
    return run if checkpoint.resolve().parent.name == "checkpoints" and (run / "config.yaml").exists() else None


def _nearby(path: Path) -> str:
    runs = [*sorted(str(each.parent) for each in Path("runs").glob("*/config.yaml")), *shipped()]
    return f"; known: {', '.join(runs[:8])}"
