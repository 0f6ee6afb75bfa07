"""The model that comes with the package is small, says what it is, and knows CIFAR-10."""

import json
import os

import pytest
import torch

from ddm.data import get_data
from ddm.diffusion import GaussianDiffusion
from ddm.generators import DiffusionGenerator
from ddm.runs import checkpoints, log
from ddm.runs.cost import parameters_of
from ddm.runs.naming import shipped
from ddm.runs.sources import load

FOLDER = shipped()["cifar10"]


@pytest.fixture(scope="module")
def model():
    return load("cifar10", device="cpu")


def test_it_is_small_and_has_labels(model):
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 16e6
    assert parameters_of(model.generator) <= 8e6
    assert model.classes[:3] == ("airplane", "automobile", "bird")


def test_its_card_is_of_these_weights():
    (step,) = checkpoints.steps(FOLDER / "checkpoints")
    manifest = checkpoints.place_of(FOLDER / "checkpoints", step) / "manifest.json"
    weights = json.loads(manifest.read_text())["files"]["ema.safetensors"]["sha256"]
    card = (FOLDER / "README.md").read_text()
    assert weights[:16] in card
    (distance,) = (each for each in log.read(FOLDER / "evaluations.jsonl") if each["metric"] == "fid")
    assert f"{distance['value']:.1f}" in card, "the number of the card is the one on record"
    assert distance["model_digest"] == load("cifar10", device="cpu").digest


def test_nothing_in_it_names_a_place():
    for path in FOLDER.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            text = path.read_text()
            assert not any(word in text for word in ("/home", "/root", "/tmp", "file:")), path


@pytest.mark.skipif("DDM_DATA" not in os.environ, reason="needs CIFAR-10 in DDM_DATA")
def test_it_takes_noise_off_pictures_that_it_has_not_seen(model):
    """Against the best that knows no more than mean and variance of each pixel; and labels must help."""
    assert isinstance(model.generator, DiffusionGenerator)
    diffusion = model.generator.diffusion
    assert isinstance(diffusion, GaussianDiffusion)
    test = get_data('cifar10(split="test")', batch_size=200).batch(0, 200, seed=0, flip=False)
    noise = torch.randn(test.x0.shape, generator=torch.Generator().manual_seed(0))
    for sigma, share in ((0.2, 0.25), (0.5, 0.25), (1.0, 0.3), (3.0, 0.5)):
        x = test.x0 + sigma * noise
        level = torch.full((len(x),), sigma)
        error = (diffusion.denoise(x, level, test.label) - test.x0).square().mean()
        wiener = 1 / (1 / test.x0.var() + 1 / sigma**2)
        assert error < share * wiener, f"at sigma {sigma}: {error:.4f} of {wiener:.4f}"
    others = diffusion.denoise(x, level, (test.label + 5) % 10)
    assert (others - test.x0).square().mean() > error
