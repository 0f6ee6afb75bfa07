"""The paper's own library trained with the paper's settings, judged as ours is: `flagship.py paper` is the other half.

denoising-diffusion-pytorch, nothing changed: its network, diffusion, Trainer (batch 32 accumulated twice, learning rate
8e-5, 20,000 steps, EMA 0.995 every 10 steps, fp16) and its own DDIM with 50 steps, on CIFAR-10 as the PNG files that it
takes. Training is counted as its Trainer does it, data loader and all; what is measured afterwards is not.

    DDM_DATA=... python benchmarks/paper.py --out results/paper-library
    python benchmarks/paper.py --device cpu --tiny --out /tmp/paper              # a rehearsal of every line
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from budget.judge import Judge, numbers
from budget.results import Results
from budget.timed import now
from speed import paper_peer
from speed.pictures import folder
from torch import Tensor

from ddm.data import get_data
from ddm.generators import Generator
from ddm.images import grid, save_png, to_uint8
from ddm.runs import log
from ddm.runs.folder import dump_config
from ddm.runs.recipes import recipes
from ddm.version import __version__

METRICS = ("fid", "kid", "precision", "recall", "memorisation")


class Theirs(Generator):
    """Pictures by the library's own sampler, in [0, 1] as it gives them; a batch has the seed of its first picture."""

    def __init__(self, diffusion: Any, side: int):
        self.diffusion, self.shape, self.classes, self.limit = diffusion.eval(), (3, side, side), 0, None

    @torch.inference_mode()
    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        torch.manual_seed(seeds[0])
        return to_uint8(self.diffusion.sample(batch_size=len(seeds)) * 2 - 1).cpu()

    def labels_of(self, seeds: Sequence[int]) -> None:
        return None

    def settings(self) -> dict[str, Any]:
        return {"sampler": "its ddim", "steps": self.diffusion.sampling_timesteps}


def make_trainer(arguments: argparse.Namespace, pictures: Path) -> Any:
    """Its Trainer with the paper's settings."""
    module = paper_peer.package()
    tiny = arguments.tiny
    torch.manual_seed(0)
    network = module.Unet(8 if tiny else 64, dim_mults=(1, 2) if tiny else (1, 2, 4, 8))
    steps = {"sampling_timesteps": 2 if tiny else 50}
    diffusion = module.GaussianDiffusion(network, image_size=arguments.side, timesteps=1000, **steps)
    return module.Trainer(
        diffusion,
        str(pictures),
        train_batch_size=8 if tiny else 32,
        gradient_accumulate_every=2,
        train_lr=8e-5,
        train_num_steps=arguments.steps,
        ema_decay=0.995,
        amp=arguments.device == "cuda",
        save_and_sample_every=10**9,
        results_folder=str(arguments.out / "results"),
        calculate_fid=False,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--features", default="efficientnet")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: numbers without meaning")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.side = 16 if arguments.tiny else 32
    if arguments.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if arguments.tiny:
        arguments.steps, arguments.images = 3, 16
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = get_data("shapes(count=128)" if arguments.tiny else "cifar10", image_size=arguments.side)
    with folder(data.count, arguments.side) as pictures:
        trainer = make_trainer(arguments, pictures)
        started = now(arguments.device)
        trainer.train()
        seconds = now(arguments.device) - started
    images = arguments.steps * trainer.batch_size * trainer.gradient_accumulate_every
    results = Results(arguments.out / "results.json", arguments.device, recipe=paper_peer.name(), tiny=arguments.tiny)
    row = {"kind": "training", "seconds": round(seconds, 1), "steps": arguments.steps, "images": images}
    results.add(row | {"images_per_second": round(images / seconds), "precision": trainer.accelerator.mixed_precision})
    generator = Theirs(trainer.ema.ema_model, arguments.side)
    save_png(arguments.out / "grid.png", grid(generator.generate(range(64)), columns=8, scale=3))
    measure(generator, data, results, arguments)
    return 0


def measure(generator: Theirs, data: Any, results: Results, arguments: argparse.Namespace) -> None:
    """The row ``final``."""
    options = {"features": arguments.features, "images": arguments.images, "metrics": METRICS}
    found = Judge(data, device=arguments.device, **options).evaluate(generator)
    results.add({"kind": "final", "evaluations": generator.diffusion.sampling_timesteps} | numbers(found))
    facts = {"model": paper_peer.name(), "kind": "library", "model_digest": None, "step": arguments.steps}
    for record in found.records(**facts, weights="ema", generation=generator.settings(), ddm=__version__):
        log.append(arguments.out / "evaluations.jsonl", record)
    (arguments.out / "config.yaml").write_text(dump_config(recipes["paper"]()))  # so that ddm compare takes the folder


if __name__ == "__main__":
    sys.exit(main())
