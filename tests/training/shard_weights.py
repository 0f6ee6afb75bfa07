"""Run by test_sharding.py on two processes: a step with weights that PyTorch's ``fully_shard`` has split among them."""

import copy
import sys

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ddm.diffusion import GaussianDiffusion
from ddm.networks import residual_unet, unet
from ddm.networks.residual_unet import ResidualUnet
from ddm.networks.unet import Unet

BATCH = 8
SPLIT = (residual_unet.ResidualBlock, unet.ResidualBlock)


def step(network: nn.Module, part: slice) -> tuple[Tensor, Tensor]:
    """Loss and norm of the gradients of one step on a part of a batch, the same batch every time."""
    diffusion = GaussianDiffusion(network, schedule="cosine", objective="v")
    source = torch.Generator().manual_seed(1)
    pictures, noise = (torch.randn(BATCH, 3, 8, 8, generator=source)[part] for _ in range(2))
    position = diffusion.position(torch.rand(BATCH, generator=source)[part])
    label = (torch.arange(BATCH) % 4)[part]
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    loss = diffusion.loss(pictures, label, position=position, noise=noise).mean()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), 0.5)
    optimizer.step()
    return loss.detach(), whole(norm)


def whole(value: Tensor) -> Tensor:
    """A split tensor put together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def check(network: nn.Module) -> None:
    """Compare a split network's step with that of a whole one, which every process makes by itself."""
    rank, count = distributed.get_rank(), distributed.get_world_size()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # some begin as zeros, and their gradients with them
    reference, total = copy.deepcopy(network), sum(each.numel() for each in network.parameters())
    mesh = init_device_mesh("cpu", (count,))
    for module in network.modules():
        if isinstance(module, SPLIT):
            fully_shard(module, mesh=mesh)
    fully_shard(network, mesh=mesh)
    kept = sum(each.to_local().numel() for each in network.parameters() if isinstance(each, DTensor))
    assert kept < 0.6 * total, f"{kept} of {total} numbers are here"
    wanted, norm = step(reference, slice(None))
    loss, found = step(network, slice(rank * BATCH // count, (rank + 1) * BATCH // count))
    distributed.all_reduce(loss)
    torch.testing.assert_close(loss / count, wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(found, norm, rtol=1e-5, atol=0)
    for (name, ours), theirs in zip(network.named_parameters(), reference.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(whole(ours.grad), theirs.grad, rtol=1e-4, atol=1e-6, msg=name)
        torch.testing.assert_close(whole(ours), theirs, rtol=1e-5, atol=1e-6, msg=name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    check(Unet(dim=8, dim_mults=(1, 2), classes=4))
    check(ResidualUnet(width=8, mults=(1, 2), blocks=1, attention=(4,), size=8, classes=4))
    if distributed.get_rank() == 0:
        sys.stdout.write("equal\n")
    distributed.destroy_process_group()
