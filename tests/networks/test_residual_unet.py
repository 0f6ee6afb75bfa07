"""The stronger backbone: exactly DDPM's network where asked for, and well behaved everywhere else."""

import re

import pytest
import torch
from torch import Tensor, nn

from ddm.errors import RequestError
from ddm.networks import networks
from ddm.networks.base import sinusoidal_embedding
from ddm.networks.residual_unet import ResidualBlock, ResidualUnet, SelfAttention, groups_of

DDPM = {"film": False, "dropout": 0.1, "head_width": None}
"""What turns the defaults into the CIFAR-10 network of Ho et al. 2020."""


def tiny(**options) -> ResidualUnet:
    """A network of two small levels, in evaluation mode."""
    torch.manual_seed(0)
    return ResidualUnet(**{"width": 16, "mults": (1, 2), "blocks": 1, "size": 16} | options).eval()


def perturbed(network: nn.Module, *, scale: float = 1.0) -> nn.Module:
    """Every parameter random, the zeros and ones of a fresh network too, at a scale that keeps activations near 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            norm_weight = parameter.ndim == 1 and bool((parameter == 1).all())
            parameter.copy_(norm_weight + scale * noise / fan_in**0.5)
    return network


def batch(size: tuple[int, int] = (16, 16), *, channels: int = 3, count: int = 2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.linspace(3, 970, count, dtype=torch.float64).to(dtype)


# --- The same function as diffusers' UNet2DModel -----------------------------------------------------------------


FILM = {"film": True, "head_width": 16, "classes": 4}
THEIR_FILM = {
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 16,
    "attn_norm_num_groups": 32,
    "num_class_embeds": 5,
}


def diffusers_unet(widths: list[int], **options) -> nn.Module:
    """UNet2DModel as ``google/ddpm-cifar10-32`` configures it but for ``options``, in evaluation mode."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the oracle for this network")
    configuration = {
        "sample_size": 32,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 2,
        "block_out_channels": widths,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "center_input_sample": False,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-6,
        "norm_num_groups": 32,
        "act_fn": "silu",
        "time_embedding_type": "positional",
        "attention_head_dim": None,
        "add_attention": True,
    }
    return diffusers.UNet2DModel(**configuration | options).eval()


class ExactSines(nn.Module):
    """Stands in for diffusers' sines, which are float32 whatever the network is."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        return sinusoidal_embedding(t, self.width)


RENAMED = (
    (r"conv_in\.", "entry."),
    (r"time_embedding\.linear_", "conditioning.linear"),
    (r"class_embedding\.", "conditioning.label."),
    (r"mid_block\.resnets\.0\.", "middle1."),
    (r"mid_block\.resnets\.1\.", "middle2."),
    (r"mid_block\.attentions\.0\.", "middle1.attention."),
    (r"(down|up)_blocks\.(\d)\.resnets\.", r"\1.\2.blocks."),
    (r"(down|up)_blocks\.(\d)\.attentions\.(\d)\.", r"\1.\2.blocks.\3.attention."),
    (r"(down|up)_blocks\.(\d)\.(?:down|up)samplers\.0\.", r"\1.\2.resize."),
    (r"\.time_emb_proj\.", ".condition."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_out\.0\.", ".project."),
    (r"conv_norm_out\.", "norm."),
    (r"conv_out\.", "exit."),
)


def our_name(theirs: str) -> str:
    for pattern, name in RENAMED:
        theirs = re.sub(pattern, name, theirs)
    return theirs


def translated(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of UNet2DModel (weights, or gradients) under our names, query, key and value joined into one."""
    ours = {our_name(name): tensor for name, tensor in theirs.items()}
    for name in [name for name in ours if ".to_q." in name]:
        parts = [ours.pop(name.replace(".to_q.", f".to_{part}.")) for part in "qkv"]
        ours[name.replace(".to_q.", ".qkv.")] = torch.cat(parts)
    return ours


def twins(widths: list[int], dtype: torch.dtype, *, ours: dict, theirs: dict) -> tuple[ResidualUnet, nn.Module]:
    """Our network and diffusers' with the same random weights; load_state_dict leaves nothing over on either side."""
    oracle = perturbed(diffusers_unet(widths, **theirs)).to(dtype=dtype)
    for module in oracle.modules():
        if isinstance(module, nn.GroupNorm):  # theirs has one number for all widths; no difference from 128 on
            module.num_groups = groups_of(module.num_channels)
    network = ResidualUnet(widths[0], tuple(width // widths[0] for width in widths), **ours).eval().to(dtype)
    network.load_state_dict(translated(oracle.state_dict()), strict=True)
    return network, oracle


def test_is_ddpms_network_in_float32():
    ours, theirs = twins([128, 256, 256, 256], torch.float32, ours=DDPM, theirs={})
    assert sum(parameter.numel() for parameter in ours.parameters()) == 35_746_307
    assert all(m.num_groups == 32 for m in ours.modules() if isinstance(m, nn.GroupNorm))
    x, t = batch((32, 32))
    with torch.no_grad():
        expected, output = theirs(x, t).sample, ours(x, t)
    assert 0.1 < expected.std() < 10
    assert (output - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("options", "their_options"), [(DDPM, {}), (FILM, THEIR_FILM)], ids=["ddpm", "film"])
def test_outputs_and_gradients_are_diffusers_in_float64(options, their_options):
    ours, theirs = twins([32, 64, 64, 64], torch.float64, ours=options, theirs=their_options)
    theirs.time_proj = ExactSines(32)
    x, t = batch((32, 32), dtype=torch.float64)
    label = torch.tensor([4, 1]) if ours.classes else None
    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    output, expected = ours(ours_x, t, label), theirs(theirs_x, t, label).sample
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours_x.grad, theirs_x.grad, rtol=1e-9, atol=1e-9)
    gradients = translated({name: parameter.grad for name, parameter in theirs.named_parameters()})
    assert len(gradients) == len(list(ours.parameters()))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-9, atol=1e-8, msg=name)


# --- A fresh network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("film", [True, False])
def test_a_fresh_network_returns_exactly_zero(film):
    x, t = batch()
    assert (tiny(film=film, classes=2)(x, t, torch.tensor([0, 1])) == 0).all()


def test_fresh_blocks_and_attention_change_nothing():
    x, _ = batch(channels=16)
    for attention in (True, False):
        block = ResidualBlock(16, 16, features=8, dropout=0.0, film=True, attention=attention, head_width=None)
        assert torch.equal(block(x, torch.randn(2, 8)), x)


def test_dropout_acts_in_training_only():
    network = perturbed(tiny(dropout=0.5))
    x, t = batch()
    assert torch.equal(network(x, t), network(x, t))
    network.train()
    assert not torch.equal(network(x, t), network(x, t))


# --- Time and label ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("film", [True, False])
def test_time_and_label_change_the_output(film):
    network = perturbed(tiny(film=film, classes=3))
    x, t = batch(count=1)
    outputs = [network(x, t, torch.tensor([label])) for label in range(4)] + [network(x, t + 1, torch.tensor([0]))]
    for i, first in enumerate(outputs):
        for second in outputs[i + 1 :]:
            assert (first - second).abs().max() > 1e-3


def test_no_label_is_the_last_label():
    network = perturbed(tiny(classes=3))
    x, t = batch()
    assert torch.equal(network(x, t), network(x, t, torch.tensor([3, 3])))


def test_a_network_without_classes_ignores_labels():
    network = perturbed(tiny())
    x, t = batch()
    assert torch.equal(network(x, t), network(x, t, torch.tensor([0, 1])))


def test_whole_timesteps_are_as_good_as_floats():
    network = perturbed(tiny())
    x, _ = batch()
    assert torch.equal(network(x, torch.tensor([3, 970])), network(x, torch.tensor([3.0, 970.0])))


def test_timesteps_stay_apart_in_a_bfloat16_network():
    network = perturbed(tiny()).bfloat16()
    x, _ = batch(dtype=torch.bfloat16)
    outputs = network(x[:1].expand(2, -1, -1, -1), torch.tensor([901.0, 902.0]))
    assert outputs.dtype == torch.bfloat16
    assert not torch.equal(outputs[0], outputs[1])


# --- Shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("size", [(16, 16), (64, 64), (16, 48)])
def test_any_divisible_size_and_1_to_4_channels(size, channels):
    x, t = batch(size, channels=channels)
    assert perturbed(tiny(channels=channels))(x, t).shape == x.shape


@pytest.mark.parametrize("width", [10, 24, 32, 48, 96])
def test_any_even_width(width):
    x, t = batch((4, 4))
    assert perturbed(tiny(width=width, attention=(4,), size=4))(x, t).isfinite().all()


def test_groups_hold_at_least_four_channels_and_are_at_most_32():
    assert {width: groups_of(width) for width in (10, 24, 32, 48, 96, 128, 192, 256, 1024)} == {
        10: 2, 24: 6, 32: 8, 48: 12, 96: 24, 128: 32, 192: 32, 256: 32, 1024: 32,
    }  # fmt: skip


def test_wrong_pictures_are_refused():
    network = tiny(mults=(1, 1, 1))
    with pytest.raises(RequestError, match=r"image_size: 18 is not divisible by 4.*16 or 20"):
        network(*batch((16, 18)))
    with pytest.raises(RequestError, match=r"channels: 1 .* allowed: 3"):
        network(*batch(channels=1))
    with pytest.raises(RequestError, match=r"channels: 2 .* allowed: 1"):
        tiny(channels=2)
    with pytest.raises(RequestError, match=r"image_size: 18 is not divisible by 4"):
        tiny(mults=(1, 1, 1), size=18)


# --- Attention ---------------------------------------------------------------------------------------------------


def attentive_levels(**options) -> list[int]:
    network = tiny(mults=(1, 1, 1, 1), **options)
    return [i for i, level in enumerate(network.down) if isinstance(level.blocks[0].attention, SelfAttention)]


@pytest.mark.parametrize(
    ("size", "attention", "levels"),
    [
        (32, (16,), [1]),
        (32, (16, 8), [1, 2]),
        (32, (), []),
        (64, (16,), [2]),
        (24, (16,), [1]),  # 12 x 12
        (24, (12,), [1]),
        (8, (16,), []),
        (256, (16,), []),
    ],
)
def test_attention_sits_where_it_was_asked_for(size, attention, levels):
    assert attentive_levels(size=size, attention=attention) == levels


def test_an_attention_size_that_cannot_be_is_refused():
    with pytest.raises(RequestError, match=r"attention: 15 .*allowed: 32, 16, 8, 4"):
        tiny(mults=(1, 1, 1, 1), size=32, attention=(16, 15))


def test_heads_are_at_least_as_wide_as_asked():
    heads = {width: SelfAttention(width, head_width=64).heads for width in (24, 64, 96, 128, 192, 160)}
    assert heads == {24: 1, 64: 1, 96: 1, 128: 2, 192: 3, 160: 2}
    assert SelfAttention(256, head_width=None).heads == 1


def test_attention_is_a_weighted_mean_over_all_positions():
    attention = perturbed(SelfAttention(24, head_width=8)).double()
    x, _ = batch((3, 5), channels=24, dtype=torch.float64)
    query, key, value = attention.qkv(attention.norm(x).flatten(2).mT).chunk(3, dim=-1)
    heads = []
    for i in range(3):
        part = slice(8 * i, 8 * i + 8)
        weights = (query[..., part] @ key[..., part].mT / 8**0.5).softmax(dim=-1)
        heads.append(weights @ value[..., part])
    expected = x + attention.project(torch.cat(heads, dim=-1)).mT.reshape(x.shape)
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


# --- Training and speed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("film", [True, False])
def test_every_parameter_learns(film):
    network = perturbed(tiny(film=film, classes=1, attention=(16, 8))).train()
    x, t = batch()
    network(x, t, torch.tensor([0, 1])).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert without == []


def test_channels_last_is_the_same_function_and_stays_channels_last():
    network = perturbed(tiny(attention=(16, 8)))
    x, t = batch((16, 48))
    expected = network(x, t)
    network.to(memory_format=torch.channels_last)
    output = network(x.contiguous(memory_format=torch.channels_last), t)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_attention_moves_no_memory_in_channels_last():
    attention = SelfAttention(16, head_width=8)
    x = batch((4, 6), channels=16)[0].contiguous(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
        output = attention(x)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert not {"aten::clone", "aten::contiguous"} & {event.key for event in profile.key_averages()}


def test_bfloat16_autocast_stays_close():
    network = perturbed(tiny())
    x, t = batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(x, t)
    expected = network(x, t)
    assert (output - expected).square().mean() < 1e-3 * expected.square().mean()


def test_is_one_graph_for_the_compiler():
    network = perturbed(tiny(classes=2))
    x, t = batch()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, torch.tensor([0, 2])), network(x, t, torch.tensor([0, 2])))
    torch.testing.assert_close(compiled(x, t), network(x, t))


# --- As a choice -------------------------------------------------------------------------------------------------


def test_is_a_choice_with_checked_options():
    build = networks.bind("residual_unet(width=32, mults=(1, 2), blocks=1)")
    network = build(channels=3, classes=10, size=16)
    assert isinstance(network, ResidualUnet)
    assert (network.channels, network.classes, network.divisor) == (3, 10, 2)
    x, t = batch()
    assert network(x, t, torch.tensor([0, 10])).shape == x.shape


@pytest.mark.parametrize(
    "option",
    ["width=7", "width=0", "mults=()", "mults=(0,)", "blocks=0", "dropout=1.0", "dropout=-0.1", "head_width=0",
     "attention=(0,)", "film=3"],
)  # fmt: skip
def test_options_out_of_range_are_refused(option):
    name = option.partition("=")[0]
    with pytest.raises(RequestError, match=f"network: residual_unet.*{name} "):
        networks.bind(f"residual_unet({option})")


def test_patches_keep_the_picture_and_cost_a_quarter():
    from torch.utils.flop_counter import FlopCounterMode

    costs = []
    for patch, mults in ((1, (1, 2)), (2, (1, 2))):
        network = ResidualUnet(16, mults, blocks=1, attention=(), patch=patch)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        x = torch.randn(2, 3, 16, 32)
        with FlopCounterMode(display=False) as counter:
            assert network(x, torch.tensor([3.0, 500.0])).shape == x.shape
        costs.append(counter.get_total_flops())
    assert 0.2 < costs[1] / costs[0] < 0.35
    with pytest.raises(RequestError, match="image_size: 18 is not divisible by 4"):
        network(torch.randn(1, 3, 18, 32), torch.zeros(1))
