"""What a user may name as a model: a run folder or one of its checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddm.errors import RequestError, unknown
from ddm.generators import DiffusionGenerator
from ddm.runs import build, checkpoints
from ddm.runs.checkpointing import check_network, checkpoint_config
from ddm.runs.config import Config
from ddm.runs.folder import Run
from ddm.runs.manifest import BadCheckpoint, read_manifest
from ddm.training import check_tensors, pick_device


@dataclass(frozen=True)
class Model:
    """A trained model, ready to sample.

    Args:
        config: what it was trained with.
        generator: makes its pictures.
        classes: names of its labels; empty for a model without.
        path: of the checkpoint.
        step: of the checkpoint.
        weights: ``ema``, ``ema-1``, ... or ``raw``.
        digest: SHA-256 of the file of those weights.
    """

    config: Config
    generator: DiffusionGenerator
    classes: tuple[str, ...]
    path: Path
    step: int
    weights: str
    digest: str

    def sample(self, count: int = 16, *, seed: int = 0, label: str | None = None) -> Tensor:
        """Pictures of the seeds ``seed, seed + 1, ...``: uint8 ``[count, c, h, w]``.

        Args:
            count: how many.
            seed: of the first.
            label: a class; by default all classes in turn.

        Raises:
            RequestError: a label that is not one of :attr:`classes`.
        """
        return self.generator.generate(range(seed, seed + count), self.labels(label, count))

    def labels(self, label: str | None, count: int) -> Sequence[int] | None:
        """The class of each picture as numbers, or None to leave them to the generator."""
        if label is None:
            return None
        if label not in self.classes:
            raise unknown("label", label, self.classes or ("none: this model has no labels",))
        return [self.classes.index(label)] * count


def load(
    source: str | Path,
    *,
    weights: str = "ema",
    device: str = "auto",
    say: Callable[[str], None] = lambda _: None,
    **sampling: Any,
) -> Model:
    """The model in a run folder (its newest sound checkpoint) or in a checkpoint folder.

    Args:
        source: the folder.
        weights: ``ema`` (the first average), ``ema-1``, ... or ``raw``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        say: told about checkpoints that had to be passed over.
        sampling: options of :class:`DiffusionGenerator` instead of the run's own, e.g. ``steps=50``.

    Raises:
        RequestError: nothing usable is there; one line says what is.
    """
    place = pick_device(device)
    path, run_config = find_checkpoint(Path(source).expanduser(), say)
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
    network = build.make_network(config, channels=pictures["channels"], classes=len(classes))
    tensors = loaded.tensors[group]
    check_tensors(network.state_dict(), tensors, weights)
    network.load_state_dict(dict(tensors))
    diffusion = build.make_diffusion(config, network).to(place).eval().requires_grad_(False)
    options = build.sampling_options(config.sample) | sampling
    shape = (pictures["channels"], config.image_size, config.image_size)
    generator = DiffusionGenerator(diffusion, shape=shape, **options)
    return Model(config, generator, classes, path, loaded.step, weights, digest)


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


def _nearby(path: Path) -> str:
    runs = sorted(str(each.parent) for each in Path("runs").glob("*/config.yaml"))
    return f"; there are {', '.join(runs[:8])}" if runs else "; there is no run in ./runs"
