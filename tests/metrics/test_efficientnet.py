"""EfficientNet-Lite0 as we run it, against the package's own network, Pillow, and what it was trained on."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddm import get_data
from ddm.errors import RequestError
from ddm.metrics import efficientnet, features
from ddm.metrics.efficientnet import INSTALL, PACKAGES, SHA256, Efficientnet, installed, pretrained

ROOT = Path(__file__).parents[2]
MILITARY_UNIFORM = 652

needed = pytest.mark.skipif(not installed(), reason="the packages of the extra offline-metrics are not installed")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Grace Hopper in uniform, which matplotlib ships."""
    with Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")) as picture:
        return picture.convert("RGB").crop((0, 0, 512, 512))


@pytest.fixture(scope="module")
def pixels(photo: Image.Image) -> Tensor:
    """uint8 ``[17, 3, 32, 32]``, parts of the photograph."""
    places = [((n * 83) % 384, (n * 131) % 384) for n in range(17)]
    return torch.stack([tensor(photo.crop((x, y, x + 128, y + 128)).resize((32, 32))) for x, y in places])


def tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def seen(extractor: Efficientnet, pixels: Tensor) -> Tensor:
    """What the first convolution gets."""
    inputs: list[Tensor] = []
    hook = extractor.network._conv_stem.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    extractor(pixels)
    hook.remove()
    return inputs[0].clone()


@needed
@pytest.mark.parametrize("size", [32, 50, 64, 97])
def test_it_is_the_network_of_the_package(pixels: Tensor, size: int):
    """In float64, with its batch norms, and padding that is odd in places where the size is."""
    extractor, package = Efficientnet(size=size), pretrained(size).double()
    found, logits = extractor(pixels)
    with torch.inference_mode():
        x = seen(extractor, pixels).double()
        expected, their_logits = package.extract_features(x).mean(dim=(2, 3)), package(x)
    expected = expected / expected.square().mean(dim=1, keepdim=True).sqrt()
    assert found.shape == (17, 1280) and logits.shape == (17, 1000) and found.dtype == logits.dtype == torch.float32
    assert relative(found, expected) < 1e-5 and relative(logits, their_logits) < 1e-5
    # At 32x32 the last map is a single place, and most of its features are 0 for these pictures.
    assert (found.std(dim=0) > 1e-3 * found.max()).sum() > (128 if size == 32 else 640)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in extractor.modules())


@needed
def test_the_package_pads_as_tensorflow_does():
    """SAME for an odd side is not SAME for 224; the package computes the former when it is told no size."""
    from efficientnet_lite_pytorch import EfficientNet

    x = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(0))
    package = pretrained(97)
    unsized = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    unsized.load_state_dict(package.state_dict())
    with torch.inference_mode():
        assert relative(package(x), unsized(x)) < 1e-5
        assert relative(pretrained(224)(x), unsized(x)) > 1e-2


@needed
@pytest.mark.parametrize("shape", [(32, 32), (20, 33), (200, 128)])
def test_resizing(shape: tuple[int, int]):
    """Pillow's bilinear of floats, antialiased where it shrinks; nothing is rounded."""
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs = [
        np.asarray(
            Image.fromarray(picture[..., channel].astype(np.float32)).resize((64, 64), Image.Resampling.BILINEAR)
        )
        for channel in range(3)
    ]
    ours = seen(Efficientnet(), torch.from_numpy(picture).permute(2, 0, 1)[None])[0] * 128 + 127
    assert np.abs(ours.numpy() - np.stack(theirs)).max() < 0.01


@needed
def test_a_picture_means_the_same_in_any_batch(pixels: Tensor):
    extractor = Efficientnet()
    for alone, together in zip(extractor(pixels[5:6]), extractor(pixels)):
        assert relative(alone, together[5:6]) < 1e-5


@needed
def test_it_knows_a_uniform(photo: Image.Image):
    _, logits = Efficientnet(size=224)(tensor(photo)[None])
    assert logits[0].argmax() == MILITARY_UNIFORM


@needed
def test_pictures_are_normalised_as_in_training():
    """The first batch norm kept mean and variance of its training; ours have to be near, the README's are not."""
    if not Path(os.environ.get("DDM_DATA", "/nowhere"), "cifar10").is_dir():
        pytest.skip("DDM_DATA names no folder with cifar10")
    package = pretrained(32)
    pixels = torch.as_tensor(get_data("cifar10(split='test')").pixels[:2000])
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    away, spread = strangeness(package, seen(Efficientnet(size=32), pixels))
    assert away < 0.1 and 0.8 < spread < 1.25
    away, spread = strangeness(package, (pixels / 255 - mean) / deviation)
    assert away > 0.2 and spread > 3


def strangeness(package: torch.nn.Module, x: Tensor) -> tuple[float, float]:
    """Medians over channels: distance of the mean in deviations, and the variance, against those kept."""
    norm = package._bn0
    with torch.inference_mode():
        y = package._conv_stem(x)
    away = (y.mean(dim=(0, 2, 3)) - norm.running_mean).abs() / norm.running_var.sqrt()
    return float(away.median()), float((y.var(dim=(0, 2, 3)) / norm.running_var).median())


@needed
def test_the_digest_is_of_weights_and_size():
    assert Efficientnet().digest == Efficientnet(size=64).digest != Efficientnet(size=32).digest
    assert "64x64" in Efficientnet().resize


@needed
def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(efficientnet, "SHA256", "57934424")
    with pytest.raises(RequestError) as caught:
        Efficientnet()
    said = str(caught.value)
    assert said.startswith("features: efficientnet: ") and said.endswith(f" has SHA-256 {SHA256}; allowed: 57934424")
    assert "efficientnet-lite0-57934424.pth" in said


def test_missing_packages_are_named_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(efficientnet, "PACKAGES", (*PACKAGES, "no_such_package"))
    with pytest.raises(RequestError) as caught:
        Efficientnet()
    assert str(caught.value) == (
        "features: efficientnet needs two packages that are not installed: "
        'pip install "denoising-diffusion-model[offline-metrics]"'
    )


def test_the_line_installs_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, _, extra = INSTALL.split('"')[1].rstrip("]").partition("[")
    required = [each.partition(">")[0].replace("-", "_") for each in project["optional-dependencies"][extra]]
    assert name == project["name"] and sorted(required) == sorted(PACKAGES)
    assert extra in project["optional-dependencies"]["all"][0]


def test_sizes_out_of_range_are_refused():
    with pytest.raises(RequestError, match=r"efficientnet\(size=16\): size must be greater than or equal to 32"):
        features.bind("efficientnet(size=16)")
    with pytest.raises(RequestError, match=r"efficientnet\(size=225\): size must be less than or equal to 224"):
        features.bind("efficientnet(size=225)")


def test_nobody_else_s_package_is_imported_before_it_is_needed():
    others = {*PACKAGES, "torchmetrics", "torch_fidelity", "sklearn", "prdc"}
    code = f"import sys, ddm.metrics; sys.exit(str({others} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "" and "inception" in features and "efficientnet" in features
