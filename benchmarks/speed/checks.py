"""Correct first: outputs and gradients of the fast path against float32, eager, in the ordinary layout."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from . import ours
from .session import Session

BOUNDS = {"fp32": (1e-4, 1e-4), "bf16": (2e-2, 4e-2)}
"""Norm of the difference over the norm, at most: of outputs, of all gradients together."""


def check(session: Session, network: str, compile: ours.Compile) -> None:
    """A row ``check`` for ``paper`` or ``ddpm``."""
    device, sizes = session.device.torch, session.sizes
    precision = ours.precision_of(device)
    row = {"kind": "check", "network": network, "precision": precision, "batch": sizes.check_batch}
    with session.attempt(row):
        session.begin()
        plain = perturbed(ours.make_network(getattr(sizes, network), sizes.side, torch.device("cpu"), None))
        fast = copy.deepcopy(plain).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if compile is not None:
            fast.compile(**compile)
        x, t = ours.inputs(sizes.check_batch, sizes.side, device)
        with ours.autocast(device):
            output = fast(x, t)
        found = output.float(), gradients(fast, output.float())
        with full_float32():
            plain = plain.to(device, memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
            output = plain(x.contiguous(), t)
            expected = output, gradients(plain, output)
        errors = [difference(*pair) for pair in zip(found, expected)]
        limits = BOUNDS[precision]
        rounded = {name: float(f"{error:.3g}") for name, error in zip(("outputs", "gradients"), errors)}
        allowed = {"outputs_at_most": limits[0], "gradients_at_most": limits[1]}
        within = all(error <= limit for error, limit in zip(errors, limits))  # no NaN is
        session.rows.add(**row, **rounded, **allowed, within=within)
    session.device.clear()


def perturbed(network: nn.Module) -> nn.Module:
    """Every parameter random, the zeros and ones of a fresh network too: else mistakes would not show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.mul_(0.9).add_(0.3 * torch.randn(parameter.shape) / fan_in**0.5)
    return network


def gradients(network: nn.Module, output: Tensor) -> Tensor:
    """Of a fixed function of the output, all in one row."""
    towards = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output.device)
    (output * towards).mean().backward()
    return torch.cat([each.grad.flatten().float() for each in network.parameters() if each.grad is not None])


def difference(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((found - expected).detach().norm() / expected.detach().norm())


@contextmanager
def full_float32() -> Iterator[None]:
    """Without the short cuts that GPUs take in float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
