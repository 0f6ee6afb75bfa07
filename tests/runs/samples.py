"""Small checkpoints, each with contents of its own."""

from pathlib import Path

import torch

from ddm.runs import checkpoints


def tensors_at(step: int) -> dict[str, dict[str, torch.Tensor]]:
    source = torch.Generator().manual_seed(step)
    weights = {"conv.weight": torch.randn(4, 3, 3, 3, generator=source), "conv.bias": torch.randn(4, generator=source)}
    return {
        "weights": weights,
        "ema": {name: tensor.double() / 2 for name, tensor in weights.items()},
        "state": {"step": torch.tensor(float(step)), "empty": torch.zeros(0, 3), "flags": torch.tensor([True, False])},
    }


def save(folder: Path, step: int, content: int | None = None) -> Path:
    content = step if content is None else content
    return checkpoints.save(folder, step, tensors_at(content), {"content": content, "ema": [0.99, None], "name": "ü"})


def assert_holds(path: Path, content: int) -> None:
    loaded = checkpoints.load(path)
    assert loaded.step == int(path.name)
    assert loaded.state == {"content": content, "ema": [0.99, None], "name": "ü"}
    assert {group: set(named) for group, named in loaded.tensors.items()} == {
        group: set(named) for group, named in tensors_at(content).items()
    }
    for group, named in tensors_at(content).items():
        for name, tensor in named.items():
            assert loaded.tensors[group][name].dtype == tensor.dtype
            assert torch.equal(loaded.tensors[group][name], tensor)
