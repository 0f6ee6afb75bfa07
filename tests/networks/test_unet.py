"""The U-Net is the public package's, weight for weight."""

import importlib.util

import pytest
import torch
from torch import Tensor, nn

import peers
from ddm.errors import RequestError
from ddm.networks import networks
from ddm.networks.unet import RMSNorm, Unet

SMALL = {"dim": 8, "dim_mults": (1, 2)}


def disturb(network: nn.Module) -> nn.Module:
    """Random gains, biases and memories too: at their first values (ones, small) mistakes would not show."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 0.3 * torch.randn_like(parameter)).add_(0.03 * torch.randn_like(parameter))
    return network


def pair(dim: int, **options) -> tuple[Unet, nn.Module]:
    """Ours and theirs with the same disturbed weights."""
    torch.manual_seed(dim)
    theirs = disturb(peers.denoising_diffusion().Unet(dim, **options))
    ours = Unet(dim, **options)
    ours.load_state_dict(peers.from_peer(theirs.state_dict(), ours.state_dict()))
    return ours, theirs


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_importing_the_peer_leaves_no_pretended_torchvision():
    before = importlib.util.find_spec("torchvision")
    peers.denoising_diffusion()
    assert importlib.util.find_spec("torchvision") == before


@pytest.mark.parametrize("dim", [16, 64])
def test_outputs_are_the_peers(dim: int):
    ours, theirs = pair(dim)
    x, t = torch.randn(5, 3, 32, 32), torch.tensor([0.0, 1.0, 123.5, 500.0, 999.0])
    with torch.no_grad():
        expected, actual = theirs(x, t), ours(x, t)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 1e-5
    assert difference(actual, expected) < 1e-5


@pytest.mark.parametrize(
    ("channels", "dim_mults", "size"),
    [(1, (1, 2), (16, 16)), (4, (2, 1, 3), (24, 40)), (3, (1,), (7, 9)), (3, (1, 2, 2, 1, 1), (16, 32))],
)
def test_outputs_are_the_peers_in_other_shapes(channels: int, dim_mults: tuple[int, ...], size: tuple[int, int]):
    ours, theirs = pair(16, channels=channels, dim_mults=dim_mults)
    x, t = torch.randn(2, channels, *size), torch.tensor([3, 800])
    with torch.no_grad():
        assert difference(ours(x, t), theirs(x, t)) < 1e-5


@pytest.mark.parametrize(("dim", "side"), [(16, 32), (64, 16)])
@peers.float64()
def test_gradients_are_the_peers(dim: int, side: int):
    ours, theirs = pair(dim)
    x, t = torch.randn(2, 3, side, side), torch.tensor([20.0, 700.0])
    towards = torch.randn_like(x)
    to_input = []
    for network in (ours, theirs):
        noisy = x.clone().requires_grad_()
        (network(noisy, t) * towards).sum().backward()
        to_input.append(noisy.grad)
    assert difference(*to_input) < 1e-9
    actual, expected = peers.gradients(ours), peers.from_peer(peers.gradients(theirs), ours.state_dict())
    assert set(actual) == set(expected)
    for name, gradient in actual.items():
        assert expected[name].abs().max() > 0, name
        assert difference(gradient, expected[name]) < 1e-9, name


def test_first_weights_are_distributed_as_the_peers():
    torch.manual_seed(0)
    theirs, ours = peers.denoising_diffusion().Unet(32), Unet(32)
    expected = peers.from_peer(theirs.state_dict(), ours.state_dict())
    for name, tensor in ours.state_dict().items():
        if tensor.numel() < 1000:  # too few to tell, but equal ones (gains) have to be equal
            assert (tensor.max() == tensor.min()) == (expected[name].max() == expected[name].min()), name
        else:
            assert tensor.std().item() == pytest.approx(expected[name].std().item(), rel=0.1), name
            assert abs(tensor.mean() - expected[name].mean()) < 0.2 * tensor.std(), name


def test_dropout_drops_where_the_peers_does(monkeypatch: pytest.MonkeyPatch):
    ours, theirs = pair(8, dropout=0.3)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 800.0])
    without = theirs.eval()(x, t)
    assert difference(ours.eval()(x, t), without) < 1e-5
    assert difference(ours.train()(x, t), without) > 1e-2

    def drop(self: nn.Dropout, x: Tensor) -> Tensor:
        """The same activations in both networks, whatever the layout in memory."""
        kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(x.shape[1])) >= self.p
        return x * kept / (1 - self.p)

    monkeypatch.setattr(nn.Dropout, "forward", drop)
    assert difference(ours(x, t), theirs(x, t)) < 1e-5
    assert difference(ours(x, t), without) > 1e-2


def test_the_default_has_the_papers_size():
    with torch.device("meta"):
        ours, theirs = Unet(), peers.denoising_diffusion().Unet(64)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (ours, theirs)]
    assert counts == [35_711_491, 35_711_491]


@pytest.mark.parametrize(("channels", "size"), [(3, (16, 16)), (3, (24, 40)), (1, (8, 8)), (4, (8, 16))])
def test_output_is_shaped_like_the_input(channels: int, size: tuple[int, int]):
    x = torch.randn(2, channels, *size)
    assert Unet(8, channels=channels)(x, torch.tensor([0.0, 999.0])).shape == x.shape


def test_an_impossible_size_is_refused():
    message = "image_size: 30 is not divisible by 8, the down-sampling of this network; allowed: .* e.g. 24 or 32"
    for shape in ((1, 3, 30, 32), (1, 3, 32, 30)):
        with pytest.raises(RequestError, match=message):
            Unet(8)(torch.zeros(shape), torch.zeros(1))


def test_a_wrong_number_of_channels_is_refused():
    with pytest.raises(RequestError, match=r"channels: 2 is not allowed; allowed: 1 .*, 3 .*, 4"):
        Unet(8, channels=2)
    with pytest.raises(RequestError, match="channels: 1 is not allowed; allowed: 3"):
        Unet(8)(torch.zeros(1, 1, 16, 16), torch.zeros(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim: 0 is not allowed; allowed: positive multiples of 8"),
        ({"dim": 20}, "dim: 20 is not allowed; allowed: positive multiples of 8"),
        ({"dim_mults": ()}, r"dim_mults: \(\) is not allowed; allowed: one or more positive whole numbers"),
        ({"dim_mults": (1, 0)}, r"dim_mults: \(1, 0\) is not allowed"),
        ({"dropout": 1.0}, "dropout: 1.0 is not allowed; allowed: 0 or more and less than 1"),
        ({"dropout": -0.1}, "dropout: -0.1 is not allowed"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str):
    with pytest.raises(RequestError, match=message):
        Unet(**options)
    choice = f"unet({', '.join(f'{name}={value!r}' for name, value in options.items())})"
    with pytest.raises(RequestError, match=f"network: unet.*{next(iter(options))}"):
        networks.bind(choice)


def test_it_is_chosen_by_name():
    network = networks.bind("unet(dim=8, dim_mults=[1, 2])")(channels=1, classes=2)
    assert isinstance(network, Unet)
    assert (network.channels, network.classes, network.divisor) == (1, 2, 2)


def test_labels_matter_and_none_is_no_label():
    torch.manual_seed(0)
    network = Unet(**SMALL, classes=3)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([300.0])
    outputs = [network(x, t, torch.tensor([label])) for label in range(4)]
    for i in range(4):
        for j in range(i):
            assert difference(outputs[i], outputs[j]) > 1e-3
    assert torch.equal(network(x, t), outputs[3])
    assert torch.equal(network(x, t.long()), outputs[3])


def test_every_picture_keeps_its_own_label_and_timestep():
    torch.manual_seed(0)
    network = Unet(**SMALL, classes=3)
    x, t, label = torch.randn(4, 3, 8, 8), torch.tensor([0.0, 5.5, 300.0, 999.0]), torch.tensor([0, 3, 1, 2])
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(4)])
    assert difference(network(x, t, label), alone) < 1e-5


def test_without_classes_the_label_is_ignored():
    network = Unet(**SMALL)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 300.0])
    assert torch.equal(network(x, t, torch.tensor([5, 7])), network(x, t))


def test_channels_last_changes_nothing_but_the_layout():
    torch.manual_seed(0)
    network = disturb(Unet(16))
    x, t = torch.randn(2, 3, 16, 24), torch.tensor([1.0, 300.0])
    expected = network(x, t)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # the stubs lack it
    actual = network(x.contiguous(memory_format=torch.channels_last), t)
    assert difference(actual, expected) < 1e-5
    assert actual.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype):
    torch.manual_seed(0)
    network = Unet(16)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([1.0, 999.0])
    expected = network(x, t)
    with torch.autocast("cpu", dtype):
        mixed = network(x, t)
        black = network(torch.zeros_like(x), t)
    mixed.float().square().mean().backward()
    gradients = peers.gradients(network)
    assert len(gradients) == len(list(network.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert black.isfinite().all()
    assert difference(mixed, expected) < 0.05
    assert difference(network.to(dtype)(x.to(dtype), t), expected) < 0.05


def test_zero_stays_zero_in_half_precision():
    # 1e-12, the bound in float32, is itself zero in float16: 0 / 0.
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert torch.equal(RMSNorm(8)(torch.zeros(1, 8, 2, 2, dtype=dtype)), torch.zeros(1, 8, 2, 2, dtype=dtype))


def test_it_compiles_to_one_graph():
    network = Unet(**SMALL, classes=2)
    x, t, label = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 300.0]), torch.tensor([0, 2])
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert difference(compiled(x, t, label), network(x, t, label)) < 1e-5
