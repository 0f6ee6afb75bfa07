"""Other people's implementations, as oracles."""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

PACKAGE = "denoising_diffusion_pytorch"
APART = Path(sys.prefix, "oracles")
"""Where the Makefile puts packages that would break others if they were found."""


@functools.cache
def denoising_diffusion() -> ModuleType:
    """The module of the public package ``denoising-diffusion-pytorch``; skips the test where it is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed")
    for name in ("accelerate", "ema_pytorch"):
        # They look for torchvision while they are imported, so they come first and see that there is none.
        importlib.import_module(name)
    with _pretended_torchvision():
        return importlib.import_module(f"{PACKAGE}.{PACKAGE}")


@contextmanager
def _pretended_torchvision() -> Iterator[None]:
    """The two empty modules that the package names at import and uses for folders of pictures only.

    Left in place they would break diffusers and torchmetrics, which ask whether torchvision can be found.
    """
    if "torchvision" in sys.modules:
        yield
        return
    torchvision = ModuleType("torchvision")
    parts = {name: ModuleType(f"torchvision.{name}") for name in ("transforms", "utils")}
    vars(torchvision).update(parts)
    pretended = {"torchvision": torchvision, **{part.__name__: part for part in parts.values()}}
    before = importlib.util.find_spec("torchvision")
    sys.modules.update(pretended)
    try:
        yield
    finally:
        for name in pretended:
            del sys.modules[name]
    assert importlib.util.find_spec("torchvision") == before


@functools.cache
def torch_fidelity_inception() -> type[nn.Module]:
    """``FeatureExtractorInceptionV3`` of torch-fidelity; skips the test where the folder of oracles has none.

    The package asks for torchvision while it is imported, its module with the network does not, so the package stands
    there empty meanwhile. Nothing of it stays to be found, since torchmetrics would use it.
    """
    package = "torch_fidelity"
    if not (APART / package).is_dir():
        pytest.skip(f"{package} is not in {APART}")
    empty = ModuleType(package)
    empty.__path__ = [str(APART / package)]
    sys.modules[package] = empty
    try:
        return importlib.import_module(f"{package}.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] == package]:
            del sys.modules[name]


@contextmanager
def float64() -> Iterator[None]:
    """Also a decorator: the default type decides in what the package computes its embedding of time and schedules."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """By the names of the parameters; only of those that have one."""
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def from_peer(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the package's ``Unet`` under the names and in the shapes of ours.

    Args:
        state: ``state_dict()`` of theirs.
        like: ``state_dict()`` of ours, for the shapes.

    Raises:
        AssertionError: a tensor of theirs or of ours is left over.
        RuntimeError: two that correspond differ in size.
    """
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("downs."))
    names = dict(_places(depth))
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        place = next(theirs for theirs in names if key.startswith(f"{theirs}."))
        name = names[place] + INSIDE.get(key[len(place) :], key[len(place) :])
        assert name not in renamed, f"{key} and another are both {name}"
        if key.endswith("mem_kv") and value.shape[2] > value.shape[3]:
            value = value.mT  # linear attention keeps it as [..., head width, memory], full attention turned around
        renamed[name] = value
    assert set(renamed) == set(like), set(renamed) ^ set(like)
    # Gains lose a leading 1; a 1x1 convolution of the pixels of 2x2 squares becomes a 2x2 convolution with stride 2.
    return {name: value.reshape(like[name].shape) for name, value in renamed.items()}


def _places(depth: int) -> Iterator[tuple[str, str]]:
    """Where their modules are in ours."""
    yield from {"init_conv": "stem", "time_mlp.1": "time.0", "time_mlp.3": "time.2"}.items()
    for level in range(depth):
        down, up, ours = f"downs.{level}", f"ups.{depth - 1 - level}", f"body{'.deeper.level' * level}"
        for number, part in enumerate(("1", "2", "_attention")):
            yield f"{down}.{number}", f"{ours}.down{part}"
            yield f"{up}.{number}", f"{ours}.up{part}"
        deepest = level == depth - 1
        yield (f"{down}.3", f"{ours}.deeper.widen") if deepest else (f"{down}.3.1", f"{ours}.deeper.shrink")
        # They enlarge at the end of a level, we after it.
        yield (f"{up}.3.1", f"{ours.removesuffix('.level')}.grow.1") if level else (f"{up}.3", "narrow")
    for theirs, part in {"mid_block1": "block1", "mid_attn": "attention", "mid_block2": "block2"}.items():
        yield theirs, f"body{'.deeper.level' * (depth - 1)}.deeper.{part}"
    yield from {"final_res_block": "last", "final_conv": "head"}.items()


INSIDE = {
    ".block1.norm.g": ".norm1.gain",
    ".block2.norm.g": ".norm2.gain",
    ".norm.g": ".norm.gain",
    ".to_out.1.g": ".out.1.gain",
    ".mem_kv": ".memory",
}
INSIDE |= {
    f".{theirs}.{kind}": f".{ours}.{kind}"
    for kind in ("weight", "bias")
    for theirs, ours in {
        "mlp.1": "modulation",
        "block1.proj": "conv1",
        "block2.proj": "conv2",
        "res_conv": "shortcut",
        "to_qkv": "query_key_value",
        "to_out": "out",
        "to_out.0": "out.0",
    }.items()
}
"""Their names of parameters inside a block or an attention, and ours."""
