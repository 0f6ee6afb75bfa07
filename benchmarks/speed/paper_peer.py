"""The paper's network as its own package has it: denoising-diffusion-pytorch, nothing changed."""

import functools
import importlib
import os
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import nn

from .rounds import Work
from .sizes import Sizes
from .transforms import has_torchvision, instead_of_torchvision

PACKAGE = "denoising_diffusion_pytorch"


def name() -> str:
    """The package and its version, where it is installed."""
    return versioned("denoising-diffusion-pytorch")


def versioned(distribution: str) -> str:
    """The name of a package with its version, where it is installed."""
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


@functools.cache
def package() -> ModuleType:
    """Its module; where torchvision cannot be had, with our Pillow transforms instead of torchvision's."""
    module = f"{PACKAGE}.{PACKAGE}"
    if has_torchvision():
        return importlib.import_module(module)
    for each in (
        "accelerate",
        "ema_pytorch",
    ):  # imported, they look for torchvision: there must be none yet
        importlib.import_module(each)
    with instead_of_torchvision():
        return importlib.import_module(module)


def remark() -> str:
    """About its loop."""
    return "torchvision's transforms" if has_torchvision() else "Pillow transforms equal to torchvision's"


def diffusion(sizes: Sizes) -> nn.Module:
    """Its network and diffusion at their defaults."""
    torch.manual_seed(0)
    module = package()
    return module.GaussianDiffusion(module.Unet(sizes.dim, dim_mults=sizes.dim_mults), image_size=sizes.side)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """As Accelerate has it: nothing in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def training_step(sizes: Sizes, device: torch.device, precision: str) -> Work:
    """Forward, backward, clipping, Adam and the average, as its Trainer does them but for reading the loss."""
    model = diffusion(sizes).to(device)
    pictures = torch.rand(sizes.batch, 3, sizes.side, sizes.side, device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99))
    average = package().EMA(model, beta=0.995, update_every=10).to(device)

    def step() -> None:
        with autocast(device, precision):
            loss = model(pictures)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return step


def forward_pass(sizes: Sizes, device: torch.device, precision: str) -> Work:
    """One evaluation of the network, as in sampling."""
    network: Any = diffusion(sizes).to(device).eval().model
    x = torch.randn(sizes.batch, 3, sizes.side, sizes.side, device=device)
    t = torch.randint(0, 1000, (sizes.batch,), device=device)

    @torch.inference_mode()
    def work() -> None:
        with autocast(device, precision):
            network(x, t)

    return work


def whole_loop(sizes: Sizes, device: torch.device, precision: str, folder: Path) -> Work:
    """Its Trainer on a folder of pictures, ``loop_steps`` more steps at every call; it neither samples nor saves."""
    AcceleratorState._reset_state()  # Accelerate keeps one precision for a whole process and refuses another
    trainer = package().Trainer(
        diffusion(sizes).to(device),
        str(folder),
        train_batch_size=sizes.batch,
        train_num_steps=0,
        save_and_sample_every=10**9,
        results_folder=str(folder / "results"),
        calculate_fid=False,
        amp=precision != "fp32",
        mixed_precision_type=precision if precision != "fp32" else "fp16",
    )
    return advancing(trainer, sizes.loop_steps)


def advancing(trainer: Any, steps: int) -> Work:
    """Train so many steps more at every call; what it says of each step is written, but nowhere to be seen."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115  it is written to as long as the trainer lives

    def advance() -> None:
        trainer.train_num_steps += steps
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            trainer.train()

    return advance
