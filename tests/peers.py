"""Other people's implementations, as oracles."""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from ddm.runs.peer_names import renamed as from_peer  # noqa: F401 (what the tests of networks compare with)

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
