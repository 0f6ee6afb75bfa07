"""Numbers that go wrong: whatever is not finite makes its step so, and a step that is not finite is never applied.

Nothing here waits for the device, and nothing replaces a number by another: a NaN that is hidden is a NaN that trains.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

PATIENCE = 20
"""So many steps in a row that are not finite end the training."""


@torch.no_grad()
def flaw(tensors: Sequence[Tensor]) -> Tensor:
    """A scalar on the device: 0 where all numbers of all tensors are finite, NaN where one is not; one pass."""
    norms = torch._foreach_norm(list(tensors), 1)  # pyright: ignore[reportPrivateImportUsage]
    return 0 * torch.stack(norms).sum()


def spoilt(loss: Tensor, flaw: Tensor) -> Tensor:
    """The loss, exactly; but NaN, with gradients of NaN, where it is not finite or ``flaw`` is NaN.

    So one process's trouble is in the gradients of all once they are added up, and all leave the step out.
    """
    return loss * (1 + 0 * loss.detach() + flaw)


def explain(in_a_row: int, tensors: Mapping[str, Mapping[str, Tensor]], scale: float) -> str | None:
    """Why a training must end, if it must; waits for the device.

    Args:
        in_a_row: so many of the last steps were not finite.
        tensors: what is trained, by group and name.
        scale: by which fp16 multiplies the loss; 1 without.
    """
    if in_a_row >= PATIENCE:
        culprit = _first_flaw(tensors)
        if culprit:
            return (
                f"{culprit} holds a NaN or an infinity, and the last {in_a_row} steps were not applied; "
                "a fault of the machine, or a train.lr that is too high"
            )
        return (
            f"the last {in_a_row} steps had a loss or gradient that is not finite and were not applied; "
            "try a lower train.lr, or train.precision bf16 or fp32"
        )
    if scale < 1:
        return f"fp16's scale of the loss fell to {scale:.1g}: gradients vanish; try train.precision bf16 or fp32"
    return None


def _first_flaw(tensors: Mapping[str, Mapping[str, Tensor]]) -> str | None:
    """``ema/head.weight`` for the first tensor with a number that is not finite."""
    for group, named in tensors.items():
        for name, tensor in named.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                return f"{group}/{name}"
    return None
