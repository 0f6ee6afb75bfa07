"""What a user may name as a source of pictures, and our own runs and checkpoints among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ddm.errors import RequestError, unknown
from ddm.generators import DiffusionGenerator
from ddm.runs import build, checkpoints
from ddm.runs.checkpointing import check_network, checkpoint_config
from ddm.runs.config import Config
from ddm.runs.folder import Run
from ddm.runs.foreign import check_size, load_fixed, load_foreign_pipeline
from ddm.runs.manifest import BadCheckpoint, read_manifest
from ddm.runs.model import Model
from ddm.runs.naming import Named, named
from ddm.training import check_tensors, pick_device

__all__ = ["Model", "find_checkpoint", "load"]

TAKES = {"diffusers": ("steps",), "folder": (), "npz": (), "data": ()}
"""The options of sampling that sources other than runs take."""


def load(
    source: str | Path,
    *,
    weights: str = "ema",
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
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        say: told about checkpoints that had to be passed over, and about pictures that are not taken as they are.
        image_size: side of the squares that stored pictures become; 32 by default. Models have their own.
        sampling: options of :class:`DiffusionGenerator` instead of the run's own, e.g. ``steps=50``; a pipeline
            takes ``steps``.

    Raises:
        RequestError: nothing usable is there, one line says what is; or an option that this source does not take.
    """
    place = pick_device(device)
    found = named(source)
    if found.kind == "run":
        path = Path(found.text).expanduser()
        return _load_run(path, weights, place=place, say=say, image_size=image_size, **sampling)
    _check_options(found, weights, sampling)
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


def _load_run(
    source: Path,
    weights: str,
    *,
    place: torch.device,
    say: Callable[[str], None],
    image_size: int | None,
    **sampling: Any,
) -> Model:
    path, run_config = find_checkpoint(source, say)
    try:
        group = _group_of(weights, path)
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
    check_size(image_size, shape, "a run")
    network = build.make_network(config, channels=pictures["channels"], classes=len(classes))
    tensors = loaded.tensors[group]
    check_tensors(network.state_dict(), tensors, weights)
    network.load_state_dict(dict(tensors))
    diffusion = build.make_diffusion(config, network).to(place).eval().requires_grad_(False)
    options = build.sampling_options(config.sample) | sampling
    generator = DiffusionGenerator(diffusion, shape=shape, **options)
    run = _run_of(path)
    name = path.resolve().name if run is None else run.name if source != path else f"{run.name}/{path.name}"
    return Model(name, "run", generator, digest, classes, config, run, path, loaded.step, weights)


def _group_of(weights: str, path: Path) -> str:
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


def _run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that a checkpoint lies in, if it does."""
    run = checkpoint.resolve().parent.parent
    return run if checkpoint.resolve().parent.name == "checkpoints" and (run / "config.yaml").exists() else None


def _nearby(path: Path) -> str:
    runs = sorted(str(each.parent) for each in Path("runs").glob("*/config.yaml"))
    return f"; there are {', '.join(runs[:8])}" if runs else "; there is no run in ./runs"
