"""What a trainer keeps besides weights: checked before anything is changed, since a file may be anybody's."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ddm.errors import RequestError

ADAM, MUON = frozenset({"step", "exp_avg", "exp_avg_sq"}), frozenset({"momentum"})
"""What optimisers remember of a parameter."""


def remembered(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """What the optimiser knows of each parameter, as ``exp_avg.head.weight``."""
    return {
        f"{key}.{name}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def remember(optimizer: torch.optim.Optimizer, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give an optimiser what :func:`remembered` told of another; what it knew is forgotten."""
    optimizer.state.clear()
    for name, parameter in network.named_parameters():
        kept = {key: state[f"{key}.{name}"] for key in ADAM | MUON if f"{key}.{name}" in state}
        # In the memory layout of the weights: the fused step walks both side by side.
        found = {key: torch.empty_like(parameter).copy_(value) for key, value in kept.items() if value.ndim}
        steps = {key: value.to(parameter.device, copy=True) for key, value in kept.items() if not value.ndim}
        if kept:
            optimizer.state[parameter] = steps | found


def check_state(
    optimizer: torch.optim.Optimizer, network: nn.Module, state: Mapping[str, Tensor], *, counts: Sequence[str]
) -> None:
    """Raise :class:`RequestError` unless ``state`` has these counts and all or nothing of each parameter, no more.

    A parameter that no step has reached yet is remembered by nothing.
    """
    groups = optimizer.param_groups
    orthogonal = {id(parameter) for group in groups if "momentum" in group for parameter in group["params"]}
    wanted = dict.fromkeys(counts, torch.Size())
    for name, parameter in network.named_parameters():
        keys = MUON if id(parameter) in orthogonal else ADAM
        if any(f"{key}.{name}" in state for key in keys):
            wanted |= {f"{key}.{name}": torch.Size() if key == "step" else parameter.shape for key in keys}
    for name in sorted(wanted.keys() | state.keys()):
        ours, theirs = wanted.get(name), state.get(name)
        if ours is None or theirs is None or theirs.shape != ours or theirs.dtype != torch.float32:
            shown = "missing" if theirs is None else f"{theirs.dtype} {tuple(theirs.shape)}"
            allowed = "nothing of that name" if ours is None else f"torch.float32 {tuple(ours)}"
            raise RequestError(f"checkpoint: state: {name} is {shown}; allowed: {allowed}")


def check_tensors(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], group: str) -> None:
    """Raise :class:`RequestError` naming the first tensor of ``given`` that a network cannot take."""
    for name in sorted(wanted.keys() | given.keys()):
        ours, theirs = wanted.get(name), given.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            shapes = [tuple(each.shape) if each is not None else "nothing" for each in (theirs, ours)]
            raise RequestError(
                f"checkpoint: {group} are of another network: {name} is {shapes[0]}, this network has {shapes[1]}"
            )
