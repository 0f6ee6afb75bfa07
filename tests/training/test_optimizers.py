import pytest
import torch
from torch import nn

from ddm.training.optimizers import hidden_weights, optimizers, orthogonal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 24), nn.Linear(24, 24), nn.Linear(24, 12), nn.Linear(12, 24), nn.Linear(24, 24))


def test_orthogonal_is_the_polar_factor_but_for_its_singular_values():
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    for each, found in zip(matrices, orthogonal(matrices)):
        left, _, right = torch.linalg.svd(each, full_matrices=False)
        inside = left.T @ found @ right.T  # in the bases of the matrix itself: diagonal, and close to 1
        assert (inside - inside.diagonal().diag()).abs().max() < 1e-3
        assert inside.diagonal().min() > 0.6
        assert inside.diagonal().max() < 1.3
    torch.testing.assert_close(orthogonal(matrices.mT), orthogonal(matrices).mT)


def test_hidden_weights_take_the_steps_of_torchs_muon_and_the_others_those_of_adam():
    ours, theirs = network(), network()
    optimizer = optimizers.bind("muon(momentum=0.9)")(ours, lr=0.01, betas=(0.9, 0.99))
    hidden = list(hidden_weights(theirs))
    assert [tuple(each.shape) for each in hidden] == [(24, 24), (12, 24), (24, 12)]
    others = [each for each in theirs.parameters() if all(each is not one for one in hidden)]
    peers = [
        torch.optim.Muon(hidden, lr=0.01, momentum=0.9, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam(others, lr=0.01, betas=(0.9, 0.99)),
    ]
    random = torch.Generator().manual_seed(1)
    for _ in range(3):
        for one, other in zip(ours.parameters(), theirs.parameters()):
            # Drawn, not computed: the zero singular values of a true gradient of so small a net are all rounding.
            one.grad = torch.randn(one.shape, generator=random)
            other.grad = one.grad.clone()
        for each in (optimizer, *peers):
            each.step()
    start = network()
    for name, parameter in ours.named_parameters():
        moved, peer = parameter - start.get_parameter(name), theirs.get_parameter(name) - start.get_parameter(name)
        # Torch iterates in bfloat16, which moves singular values by some hundredths.
        assert (moved - peer).norm() < 0.03 * peer.norm(), name


def test_convolutions_count_as_matrices():
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 5, 3).to(memory_format=torch.channels_last)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), convolution, nn.Conv2d(5, 3, 3))
    before = convolution.weight.detach().clone()
    optimizer = optimizers.bind("muon")(layers, lr=1.0, betas=(0.9, 0.99))
    layers(torch.randn(2, 3, 9, 9)).square().sum().backward()
    optimizer.step()
    step = (convolution.weight - before).detach().flatten(1) / (0.2 * 54**0.5)
    assert torch.linalg.svdvals(step).min() > 0.6


@pytest.mark.parametrize("choice", optimizers)
def test_a_step_that_is_not_finite_changes_nothing(choice: str):
    layers = network()
    optimizer = optimizers.bind(choice)(layers, lr=0.01, betas=(0.9, 0.99))

    def step(scale: float, found_inf: float) -> None:
        (layers(torch.ones(2, 4)).sum() * scale).backward()
        optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()
        optimizer.zero_grad()

    step(1.0, 0.0)
    weights = [each.detach().clone() for each in layers.parameters()]
    kept = [v.clone() for p in layers.parameters() for k, v in optimizer.state[p].items() if k != "step"]
    step(float("nan"), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(weights, layers.parameters()))
    after = [v for p in layers.parameters() for k, v in optimizer.state[p].items() if k != "step"]
    assert all(torch.equal(a, b) for a, b in zip(kept, after))
    step(1.0, 0.0)
    assert not torch.equal(weights[0], next(iter(layers.parameters())))
