"""Optimisers: how gradients become steps. One that is not finite is never applied, and nothing waits to see it."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from ddm.registry import Registry

optimizers = Registry("optimizer", given=("network", "lr", "betas"))


@optimizers.register
def adam(network: nn.Module, *, lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam; Kingma & Ba 2014 (arXiv 1412.6980)."""
    return torch.optim.Adam(network.parameters(), lr=lr, betas=betas, fused=True)


@optimizers.register
def muon(
    network: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float],
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.95,
) -> "Muon":
    """Orthogonalised momentum for hidden weights, Adam for the others; Jordan 2024 (kellerjordan.github.io/posts/muon).

    Steps are scaled to the size of Adam's, so that one learning rate serves both (Liu et al. 2025, arXiv 2502.16982).
    Hidden are the weights of convolutions and linear layers between the first layer and the last; embeddings, biases
    and norms are Adam's.
    """
    hidden = list(hidden_weights(network))
    return Muon(network.parameters(), hidden, lr=lr, betas=betas, momentum=momentum)


def hidden_weights(network: nn.Module) -> Iterable[Tensor]:
    """Weights of convolutions and linear layers but the first and the last of the network."""
    layers = [each for each in network.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]
    return (layer.weight for layer in layers if layer not in (layers[0], layers[-1]))


class Muon(torch.optim.Adam):
    """Adam whose last parameter group takes orthogonal steps instead.

    Args:
        parameters: of the network.
        hidden: those of them that are matrices, or convolutions, which count as matrices ``[out, in * h * w]``.
        lr: of both.
        betas: Adam's decays.
        momentum: share of the old momentum that survives a step.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        hidden: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float,
    ):
        hidden = list(hidden)
        ids = {id(each) for each in hidden}
        super().__init__([each for each in parameters if id(each) not in ids], lr=lr, betas=betas, fused=True)
        self.add_param_group({"params": hidden, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both kinds, neither where ``found_inf`` is set."""
        group = self.param_groups.pop()
        try:
            super().step(closure)
        finally:
            self.param_groups.append(group)
        shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                shapes[parameter.shape].append(parameter)
        for parameters in shapes.values():
            self._orthogonal_step(parameters, group["lr"], group["momentum"])

    def _orthogonal_step(self, parameters: list[Tensor], lr: float, momentum: float) -> None:
        """All parameters of one shape at once: a few large products instead of many small ones."""
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        kept = [self.state[parameter]["momentum"] for parameter in parameters]
        gradient = _matrices([parameter.grad for parameter in parameters if parameter.grad is not None])
        old = _matrices(kept)
        new = torch.lerp(gradient, old, momentum)
        step = orthogonal(torch.lerp(gradient, new, momentum))  # Nesterov's momentum
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:
            new, step = torch.where(found_inf > 0, old, new), torch.where(found_inf > 0, 0, step)
        size = lr * 0.2 * max(step.shape[-2:]) ** 0.5
        for parameter, momentum_of, each, change in zip(parameters, kept, new, step):
            momentum_of.copy_(each.view(parameter.shape))
            parameter.sub_(change.view(parameter.shape), alpha=size)


def _matrices(tensors: list[Tensor]) -> Tensor:
    """Tensors of one shape ``[out, ...]`` as float32 ``[n, out, rest]``."""
    return torch.stack([each.flatten(1) for each in tensors]).float()


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: all singular values brought to between 0.7 and 1.2.

    Five steps of the Newton-Schulz iteration with Jordan's coefficients, in bfloat16 on GPUs.

    Args:
        matrices: ``[n, rows, columns]``.

    Returns:
        float32 of the same shape.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x if wide else x.mT).float()
