"""Checkpoints of the public package denoising-diffusion-pytorch (``model-10.pt``) made into run folders of ours.

Such a file is a zip of a pickle and of tensors. Only tensors and plain values are unpickled: no code of it ever runs.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddm.diffusion import schedules
from ddm.errors import RequestError
from ddm.networks import networks
from ddm.registry import Choice
from ddm.runs import build, checkpoints
from ddm.runs.atomic import replace_file
from ddm.runs.config import validate
from ddm.runs.folder import FORMAT, Run, dump_config
from ddm.runs.peer_names import renamed
from ddm.training import check_tensors

GROUPS = {"weights": ("model", "model."), "ema": ("ema", "ema_model.model.")}
"""Where the package keeps our groups of weights: the key of the file, and how the names begin."""

SCHEDULES = ("linear", "cosine", "sigmoid")
MARGIN = 1.1
"""A file may unpack to so many times its size: tensors are stored as they are."""


def convert(source: Path, folder: Path, *, image_size: int, data: str) -> Run:
    """A run folder with one checkpoint, raw and averaged weights, and the settings that the file's numbers tell.

    It can be sampled from, measured and begun with (``init``); it has no optimiser to go on training with.

    Args:
        source: ``model-N.pt`` as the package's ``Trainer.save`` wrote it.
        folder: must not be there yet.
        image_size: side of its pictures, which the file does not tell.
        data: the pictures it was trained on, as a choice of data; the file does not tell them either.

    Raises:
        RequestError: not such a file, a network, schedule or objective that we do not have, or the folder is there.
        DdmError: it could not be written, or holds numbers that are not finite.
    """
    if folder.exists():
        raise RequestError(f"out: {str(folder)!r} is there already; choose another")
    content = read(source)
    groups = {group: _part(source, content, *where) for group, where in GROUPS.items()}
    facts = {name: content["model"].get(name) for name in ("betas", "loss_weight")}
    choice, channels = network_of(groups["weights"], source)
    schedule, objective, timesteps = process_of(facts, source)
    model = {"network": str(choice), "schedule": schedule, "objective": objective, "timesteps": timesteps}
    config = validate({"data": data, "image_size": image_size, **model})
    with build.shapes_alone():
        like = networks.bind(str(choice))(channels=channels).state_dict()
    tensors = {group: renamed(state, like) for group, state in groups.items()}
    for group, state in tensors.items():
        check_tensors(like, state, f"{source}: {group}")
    step = _whole(content.get("step"))
    state = {
        "config": {"format": FORMAT, **config.model_dump(mode="json")},
        "pictures": {"channels": channels, "classes": [], "count": 0, "digest": ""},
        "trainer": {"step": step, "images": 0},
    }
    run = Run(folder, config)
    checkpoints.save(run.checkpoints, step, tensors, state)
    replace_file(folder / "config.yaml", dump_config(config).encode())
    return run


def read(path: Path) -> dict[str, Any]:
    """The content of a PyTorch file, on the CPU: tensors and plain values; anything else is refused before it is made.

    Raises:
        RequestError: it is no such file, would unpack to more than it is, or holds more than tensors.
    """
    wrong = f"source: {str(path)!r} is no checkpoint of denoising-diffusion-pytorch"
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
        if unpacked > MARGIN * path.stat().st_size:
            raise RequestError(f"{wrong}: it would unpack to {unpacked:,} bytes")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except RequestError:
        raise
    except FileNotFoundError:
        raise RequestError(f"source: {str(path)!r} is not there") from None
    except Exception as error:  # damaged and hostile files raise almost anything
        problem = "it holds more than tensors" if "nsupported" in str(error) else " ".join(str(error).split())[:200]
        raise RequestError(f"{wrong}: {problem}; nothing in it was run") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key, _ in GROUPS.values()):
        raise RequestError(f"{wrong}: it has no 'model' and 'ema'")
    return content


def network_of(state: Mapping[str, Tensor], source: Path) -> tuple[Choice, int]:
    """Our choice of network for the package's ``Unet``, and its channels, from the shapes of its weights.

    Raises:
        RequestError: it lacks weights that every such network has.
    """
    try:
        dim, channels = state["time_mlp.1.weight"].shape[1], state["final_conv.weight"].shape[0]
        depth = 1 + max(int(key.split(".")[1]) for key in state if re.match(r"downs\.\d{1,2}\.", key))
        last = {level: ".1" if level < depth - 1 else "" for level in range(depth)}
        widths = [state[f"downs.{level}.3{part}.weight"].shape[0] for level, part in last.items()]
    except (KeyError, ValueError, IndexError):
        raise RequestError(f"source: {str(source)!r} is no Unet of denoising-diffusion-pytorch") from None
    return Choice("unet", {"dim": dim, "dim_mults": tuple(width // dim for width in widths)}), channels


def process_of(facts: Mapping[str, Any], source: Path) -> tuple[str, str, int]:
    """Our schedule, objective and number of timesteps, from the package's betas and weights of the loss.

    Raises:
        RequestError: the schedule is none of ours.
    """
    betas, weight = facts["betas"], facts["loss_weight"]
    if not all(isinstance(each, Tensor) and each.ndim == 1 and 2 <= len(each) <= 10**5 for each in (betas, weight)):
        raise RequestError(f"source: {str(source)!r} has no noise schedule")
    snr = 1 / (torch.expm1(-torch.log1p(-betas.double()).cumsum(0)))
    for schedule in SCHEDULES:
        sigmas = schedules.bind(schedule)(len(betas))
        if torch.allclose(sigmas**-2, snr, rtol=1e-3):
            break
    else:
        raise RequestError(f"source: {str(source)!r}: its schedule is none of {', '.join(SCHEDULES)} at their defaults")
    plain = snr <= 1  # where no clipping of the weights reaches
    expected = {"eps": torch.ones_like(snr), "x0": snr, "v": snr / (snr + 1)}
    distances = {name: (each - weight).abs()[plain].sum() for name, each in expected.items()}
    return schedule, min(distances, key=lambda name: float(distances[name])), len(betas)


def _part(source: Path, content: Mapping[str, Any], key: str, start: str) -> dict[str, Tensor]:
    found = {name.removeprefix(start): each for name, each in content[key].items() if str(name).startswith(start)}
    if not found or not all(isinstance(each, Tensor) and each.layout == torch.strided for each in found.values()):
        raise RequestError(f"source: {str(source)!r} has no weights in {key!r}")
    return found


def _whole(step: Any) -> int:
    return step if isinstance(step, int) and 0 <= step < 10**12 else 0
