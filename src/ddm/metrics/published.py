"""What papers say about CIFAR-10: for orientation only, since nobody measured these numbers as we measure ours."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """A number somebody printed.

    Args:
        model: what was measured.
        metric: FID, in the Inception network's features, wherever nothing else is said.
        value: the number.
        evaluations: of the network for one picture, where the source says so.
        protocol: how it was measured, as far as the source says.
        source: where it is printed.
    """

    model: str
    metric: Literal["FID"]
    value: float
    evaluations: int | None
    protocol: str
    source: str


TRAIN = "50,000 pictures against the training set"
LOWEST = "50,000 pictures against the training set, the lowest of three sets"
TEST = "50,000 pictures against the test set"
REPORTED = "50,000 pictures, as the authors do it"

PUBLISHED = (
    Published("the replicated paper's model", "FID", 77.1, None, "not said", "Denoising Diffusion Model, its table"),
    Published(
        "pretrained DDPM, weights not averaged",
        "FID",
        14.30,
        1000,
        TEST,
        "pesser/pytorch_diffusion; printed by the paper",
    ),
    Published("pretrained DDPM, averaged weights", "FID", 5.27, 1000, TEST, "pesser/pytorch_diffusion"),
    Published("pretrained DDPM, averaged weights", "FID", 3.21, 1000, TRAIN, "pesser/pytorch_diffusion"),
    Published("BigGAN, by class", "FID", 14.73, 1, "not said", "Brock et al. 2018, arXiv 1809.11096"),
    Published("DDPM", "FID", 3.17, 1000, TRAIN, "Ho et al. 2020, arXiv 2006.11239"),
    Published("DDIM", "FID", 13.36, 10, REPORTED, "Song et al. 2020, arXiv 2010.02502"),
    Published("DDIM", "FID", 4.67, 50, REPORTED, "Song et al. 2020, arXiv 2010.02502"),
    Published("DDIM", "FID", 4.16, 100, REPORTED, "Song et al. 2020, arXiv 2010.02502"),
    Published("Score SDE, NCSN++ deep", "FID", 2.20, 2000, REPORTED, "Song et al. 2020, arXiv 2011.13456"),
    Published("improved DDPM, hybrid loss", "FID", 3.19, 4000, REPORTED, "Nichol & Dhariwal 2021, arXiv 2102.09672"),
    Published("EDM", "FID", 1.97, 35, LOWEST, "Karras et al. 2022, arXiv 2206.00364"),
    Published("EDM, by class", "FID", 1.79, 35, LOWEST, "Karras et al. 2022, arXiv 2206.00364"),
    Published("DPM-Solver on Score SDE", "FID", 4.70, 10, REPORTED, "Lu et al. 2022, arXiv 2206.00927"),
    Published("consistency distillation", "FID", 3.55, 1, REPORTED, "Song et al. 2023, arXiv 2303.01469"),
    Published("consistency distillation", "FID", 2.93, 2, REPORTED, "Song et al. 2023, arXiv 2303.01469"),
    Published("CTM, by class", "FID", 1.73, 1, REPORTED, "Kim et al. 2023, arXiv 2310.02279"),
    Published("iCT deep", "FID", 2.51, 1, REPORTED, "Song & Dhariwal 2023, arXiv 2310.14189"),
    Published("ECT, one hour of one GPU", "FID", 2.73, 2, REPORTED, "Geng et al. 2024, arXiv 2406.14548"),
)
"""All of CIFAR-10 at 32x32, by year."""
