import math

import pytest
import torch

from ddm.errors import RequestError
from ddm.training import Ema, averages


def follow(rule: str, weights: list[float]) -> list[float]:
    """The average after each step of a network of one weight that takes these values."""
    network = torch.nn.Linear(1, 1, bias=False).double()
    ema = Ema(network, [rule])
    seen = []
    for step, weight in enumerate(weights, 1):
        network.weight.data.fill_(weight)
        ema.update(step)
        seen.append(next(ema.networks[0].parameters()).item())
    return seen


WALK = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).cumsum(0).tolist()


def test_inverse_power_is_ema_pytorch():
    """The paper's average, step by step as the package computes it."""
    package = pytest.importorskip("ema_pytorch")
    network = torch.nn.Linear(1, 1, bias=False).double()
    peer = package.EMA(network, beta=0.995, update_every=10)
    theirs = []
    for weight in WALK:
        network.weight.data.fill_(weight)
        peer.update()
        theirs.append(peer.ema_model.weight.item())
    ours = follow("inverse_power(decay=0.995, power=0.6666666666666666, after=100, every=10)", WALK)
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_power_function_has_the_width_it_is_named_for(width: float):
    """Its weights over the past are t^gamma, and their relative standard deviation is the width (EDM2, equation 123)."""
    steps = 2000
    profile = torch.zeros(steps, dtype=torch.float64)
    for step in range(1, steps + 1):
        decay = averages["power"](step, width=width)
        profile *= decay
        profile[step - 1] += 1 - decay
    assert float(profile.sum()) == pytest.approx(1)
    times = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    mean = float((profile * times).sum())
    assert math.sqrt(float((profile * (times - mean) ** 2).sum())) == pytest.approx(width, rel=0.01)


def test_constant_forgets_the_start_and_settles_at_its_decay():
    assert averages["constant"](10**9, decay=0.9999) == 0.9999
    assert averages["constant"](1, decay=0.9999) == pytest.approx(0.1)
    assert follow("constant(decay=0.5)", [1.0] * 30)[-1] == pytest.approx(1, abs=1e-6)


def test_several_averages_at_once_and_none_is_the_network():
    network = torch.nn.Linear(2, 2)
    ema = Ema(network, ["constant(decay=0.5)", "power(width=0.1)"])
    before = network.weight.detach().clone()
    network.weight.data.add_(1)
    ema.update(5)
    first, second = (next(each.parameters()) for each in ema.networks)
    assert not torch.equal(first, second)
    assert not first.requires_grad
    for each in (first, second):
        assert (each > before).all()
        assert (each < network.weight).all()


def test_unknown_rules_are_refused():
    with pytest.raises(RequestError, match=r"train.ema: 'constnt' is unknown .did you mean 'constant'"):
        Ema(torch.nn.Linear(1, 1), ["constnt"])
    with pytest.raises(RequestError, match=r"decay must be less than 1"):
        Ema(torch.nn.Linear(1, 1), ["constant(decay=1.5)"])
