"""A run that is given away: only what sampling needs, at half the size. Some come with the package."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ddm.errors import RequestError
from ddm.runs import checkpoints
from ddm.runs.anonymous import without_paths
from ddm.runs.atomic import replace_file
from ddm.runs.checkpointing import checkpoint_config
from ddm.runs.folder import FORMAT, Run, dump_config
from ddm.runs.manifest import read_manifest
from ddm.runs.searched import keep_grids, read_grids
from ddm.runs.sources import find_checkpoint, group_of, run_of


def export(source: Path, folder: Path, *, weights: str = "ema", say: Callable[[str], None] = lambda _: None) -> Run:
    """A new run folder with one checkpoint, one set of weights in float16 as its ``ema``, their searched grids, and the
    settings.

    Optimiser, records, samples and the places of files on this machine stay behind; it can be sampled from and
    measured, and not be trained on.

    Args:
        source: a run or checkpoint.
        folder: must not be there yet.
        weights: ``ema``, ``ema-1``, ... or ``raw``.
        say: told about checkpoints that had to be passed over.

    Raises:
        RequestError: no such source or weights, or the folder is there.
        DdmError: it could not be written, or the weights are too large for float16.
    """
    if folder.exists():
        raise RequestError(f"out: {str(folder)!r} is there already; choose another")
    path, _ = find_checkpoint(source, say)
    group = group_of(weights, path)
    loaded = checkpoints.load(path, groups=[group])
    config = checkpoint_config(loaded.state, path)
    config = config.model_copy(update={"data": without_paths(config.data), "init": None, "trackers": ()})
    images = loaded.state["trainer"]["images"]
    state = {
        "config": {"format": FORMAT, **config.model_dump(mode="json")},
        "pictures": loaded.state["pictures"],
        "trainer": {"step": loaded.step, "images": images},
    }
    run = Run(folder, config)
    made = checkpoints.save(run.checkpoints, loaded.step, {"ema": halved(loaded.tensors[group])}, state)
    replace_file(folder / "config.yaml", dump_config(config).encode())
    kept = [each for each in read_grids(run_of(path), say) if each.weights_sha256 == _digest(path, group)]
    if kept:  # rounding the weights moves no grid
        keep_grids(folder, [each.model_copy(update={"weights_sha256": _digest(made, "ema")}) for each in kept])
    return run


def _digest(checkpoint: Path, group: str) -> str:
    return read_manifest(checkpoint).files[f"{group}.safetensors"]["sha256"]


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as float16, others as they are."""
    return {name: each.half() if each.dtype == torch.float32 else each for name, each in tensors.items()}
