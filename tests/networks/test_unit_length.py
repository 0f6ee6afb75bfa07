"""Channels brought to unit length: what is written by hand is what autograd makes of the formula."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddm.networks.unit_length import SHORTEST, normalized_silu, unit_length


def plain(x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    unit = x / x.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
    return F.silu(unit * scale + (0 if shift is None else shift))


def draw(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", [(5, 1, 1), (2, 5, 1, 1)])
@pytest.mark.parametrize("shifted", [True, False])
def test_values_and_gradients(layout: torch.memory_format, scale: tuple[int, ...], shifted: bool):
    x = draw((2, 5, 3, 4)).contiguous(memory_format=layout)
    tensors = [x, draw(scale), draw((2, 5, 1, 1)) if shifted else None]
    towards, found = draw((2, 5, 3, 4)), []
    for function in (normalized_silu, plain):
        leaves = [None if each is None else each.detach().clone().requires_grad_() for each in tensors]
        output = function(*leaves)
        (output * towards).sum().backward()
        found.append([output, *(leaf.grad for leaf in leaves if leaf is not None)])
    for ours, expected in zip(*found):
        assert torch.allclose(ours, expected, rtol=1e-12, atol=1e-14)
    assert found[0][0].is_contiguous(memory_format=layout)


def test_gradients_are_those_of_differences():
    x = draw((2, 3, 2, 2)).requires_grad_()
    assert torch.autograd.gradcheck(unit_length, x)
    assert torch.autograd.gradcheck(normalized_silu, (x, draw((3, 1, 1)).requires_grad_(), draw((2, 3, 1, 1))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_black_pictures_have_finite_gradients(dtype: torch.dtype):
    x = torch.zeros(1, 4, 2, 2, dtype=dtype, requires_grad=True)
    normalized_silu(x, torch.ones(4, 1, 1, dtype=dtype)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_little_is_kept_for_the_way_back():
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.numel() == x.numel():
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        normalized_silu(x, torch.ones(8, 1, 1), torch.zeros(1, 8, 1, 1))
    assert kept == {x.data_ptr()}
