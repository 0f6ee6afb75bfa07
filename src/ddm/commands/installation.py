"""Is this installation sound: versions, device, folders, then one real training step, save, load and sample."""

import importlib.util
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path

from ddm.commands.console import Console
from ddm.runs.finding import Finding
from ddm.version import __version__


def examine(device: str, console: Console) -> int:
    """Look at everything; exit status 1 where something failed."""
    from ddm.training import pick_device

    kind = pick_device(device).type
    checks: list[Callable[[], Iterator[Finding]]] = [versions, torchvision, folders, extras]
    checks += [partial(hardware, kind), partial(real_work, kind)]
    findings = [finding for check in checks for finding in survive(check)]
    failed = sum(finding.status == "fail" for finding in findings)
    lines = [each.words for each in findings]
    console.result("\n".join(lines), findings=[asdict(each) for each in findings], failed=failed)
    console.say("all is well.  next: ddm train shapes" if not failed else f"{failed} failed, see the lines marked FAIL")
    return 1 if failed else 0


def survive(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that breaks off is a finding too, whatever broke it."""
    try:
        yield from check()
    except Exception as error:
        what = getattr(check, "func", check).__name__.replace("_", " ")
        yield Finding("fail", what, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def versions() -> Iterator[Finding]:
    """Interpreter and packages."""
    yield Finding("ok", "ddm", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    names = ("torch", "accelerate", "datasets", "numpy", "pillow", "safetensors", "pydantic")
    yield Finding("ok", "packages", ", ".join(f"{name} {metadata.version(name)}" for name in names))


def torchvision() -> Iterator[Finding]:
    """Not needed; but one that does not fit torch breaks other packages as soon as it is installed."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
        yield Finding("ok", "torchvision", f"{metadata.version('torchvision')} works (ddm does not need it)")
    except Exception as error:  # whatever its compiled part raises
        cure = "pip uninstall torchvision (ddm does not need it; diffusers and torchmetrics fail with a broken one)"
        yield Finding("warn", "torchvision", f"is installed and does not load: {str(error).splitlines()[0]}", cure)


def folders() -> Iterator[Finding]:
    """Room and permission to write."""
    from ddm.storage import cache_folder

    for what, folder in (("working folder", Path.cwd()), ("cache", cache_folder("data"))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            free = shutil.disk_usage(folder).free / 1e9
            cure = "a checkpoint of the larger networks takes 0.6 GB" if free < 2 else ""
            yield Finding("warn" if cure else "ok", what, f"{folder}, {free:.1f} GB free", cure)
        except OSError as error:
            yield Finding("fail", what, f"{folder}: {error.strerror}", "choose another (HF_HOME sets the cache)")


def extras() -> Iterator[Finding]:
    """What can be added."""
    for name in ("tensorboard", "wandb"):
        if importlib.util.find_spec(name):
            yield Finding("ok", name, metadata.version(name))
        else:
            yield Finding("ok", name, f'not installed; pip install "denoising-diffusion-model[{name}]" adds it')


def hardware(device: str) -> Iterator[Finding]:
    """The device, and whether a GPU lies idle."""
    import torch

    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Finding("ok", "device", f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
        return
    from ddm.runs.environment import processor

    yield Finding("ok", "device", f"{device}: {processor()}, {torch.get_num_threads()} threads")
    if device == "cpu" and shutil.which("nvidia-smi") and torch.version.cuda is None:
        yield Finding("warn", "GPU", "there is one, but this torch is a CPU build", "install torch from pytorch.org")


def real_work(device: str) -> Iterator[Finding]:
    """Two steps of the smallest run, saved, loaded and sampled from, in a folder that is then removed."""
    from ddm.commands.training import train
    from ddm.runs.config import override
    from ddm.runs.recipes import recipes
    from ddm.runs.sources import load

    changes = {
        "data": "shapes(count=64)",
        "image_size": 16,
        "network": "residual_unet(width=16, mults=(1, 2), blocks=1)",
        "train.steps": 2,
        "train.batch": 8,
        "sample.steps": 4,
        "sample.count": 4,
    }
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor"
        train(override(recipes["shapes"](), changes), path, device=device, fresh=False, console=Console(quiet=True))
        pictures = load(path, device=device).sample(4)
        assert pictures.shape == (4, 3, 16, 16), pictures.shape
    seconds = time.monotonic() - started
    yield Finding("ok", "one real run", f"data, 2 training steps, save, load and 4 pictures in {seconds:.1f} s")
