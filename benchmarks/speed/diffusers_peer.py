"""DDPM's network as diffusers has it. The package ships no trainer: its loop here does what its example script does.

That is examples/unconditional_image_generation/train_unconditional.py of its repository at its defaults and with
--use_ema: a data loader in the training process, AdamW, a cosine schedule, clipping, an average, the loss read at every
step.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from .paper_peer import autocast, versioned
from .rounds import Work
from .sizes import Sizes
from .transforms import CenterCrop, Compose, RandomHorizontalFlip, Resize, ToTensor


def name() -> str:
    """The package and its version, where it is installed."""
    return versioned("diffusers")


def remark() -> str:
    """About its loop."""
    return "a loop as in its example script; Pillow transforms equal to torchvision's"


def network(sizes: Sizes) -> nn.Module:
    """UNet2DModel as google/ddpm-cifar10-32 configures it."""
    from diffusers import UNet2DModel  # pyright: ignore[reportPrivateImportUsage]

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=sizes.side,
        block_out_channels=sizes.widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )


class Learner:
    """Network, noise, optimiser and average, and a step of them all."""

    def __init__(self, sizes: Sizes, device: torch.device, precision: str):
        from diffusers import DDPMScheduler  # pyright: ignore[reportPrivateImportUsage]
        from diffusers.training_utils import EMAModel

        self.device, self.precision = device, precision
        self.network: Any = network(sizes).to(device)
        self.noise: Any = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        self.parameters = list(self.network.parameters())
        options: dict[str, Any] = {"betas": (0.95, 0.999), "weight_decay": 1e-6, "eps": 1e-8}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, **options)
        self.average = EMAModel(self.parameters, decay=0.9999, use_ema_warmup=True, power=3 / 4)
        self.average.to(device)

    def step(self, pictures: Tensor) -> Tensor:
        """One optimiser step; the loss, still on the device."""
        noise = torch.randn_like(pictures)
        t = torch.randint(0, 1000, (len(pictures),), device=self.device)
        noisy = self.noise.add_noise(pictures, noise, t)
        with autocast(self.device, self.precision):
            output = self.network(noisy, t).sample
        loss = F.mse_loss(output.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.parameters)
        return loss


def training_step(sizes: Sizes, device: torch.device, precision: str) -> Work:
    """Forward, backward, clipping, AdamW and the average."""
    learner = Learner(sizes, device, precision)
    pictures = torch.rand(sizes.ddpm_batch, 3, sizes.side, sizes.side, device=device)
    return lambda: learner.step(pictures)


def forward_pass(sizes: Sizes, device: torch.device, precision: str) -> Work:
    """One evaluation of the network, as in sampling."""
    model: Any = network(sizes).to(device).eval()
    x = torch.randn(sizes.ddpm_batch, 3, sizes.side, sizes.side, device=device)
    t = torch.randint(0, 1000, (sizes.ddpm_batch,), device=device)

    @torch.no_grad()
    def work() -> None:
        with autocast(device, precision):
            model(x, t)

    return work


class Pictures(Dataset[Tensor]):
    """The files of a folder, opened anew for every epoch."""

    def __init__(self, folder: Path, side: int):
        self.files = sorted(folder.glob("*.png"))
        self.prepare = Compose([Resize((side, side)), CenterCrop((side, side)), RandomHorizontalFlip(), ToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as picture:
            return self.prepare(picture.convert("RGB")) * 2 - 1


def whole_loop(sizes: Sizes, device: torch.device, precision: str, folder: Path) -> Work:
    """The loop of the example script, ``loop_steps`` more steps at every call."""
    learner = Learner(sizes, device, precision)
    loader = DataLoader(Pictures(folder, sizes.side), batch_size=sizes.ddpm_batch, shuffle=True, drop_last=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(learner.optimizer, lambda n: math.cos(min(n / 10**6, 1) * math.pi / 2))

    def batches() -> Iterator[Tensor]:
        while True:
            yield from loader

    endless = batches()

    def advance() -> None:
        for _ in range(sizes.loop_steps):
            learner.step(next(endless).to(device)).item()
            schedule.step()

    return advance
