import copy
import math

import pytest
import torch
from torch import Tensor

from counts import STRESS
from ddm import GaussianDiffusion, Trainer
from ddm.data import ImageSet
from ddm.errors import RequestError
from ddm.networks import networks
from ddm.training import Diverged, optimizers

PIXELS = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DATA = ImageSet(PIXELS, torch.arange(40) % 4, ("a", "b", "c", "d"), batch_size=8)


def make(*, classes: int = 4, data: ImageSet = DATA, dropout: float = 0.2, **options) -> Trainer:
    torch.manual_seed(0)
    choice = f"residual_unet(width=8, mults=(1, 2), blocks=1, attention=(4,), dropout={dropout})"
    network = networks.bind(choice)(channels=3, classes=classes, size=8)
    diffusion = GaussianDiffusion(network, schedule="cosine", objective="v")
    defaults = {"steps": 6, "batch": 8, "precision": "fp32", "device": "cpu", "flip": True, "decay": 0.5, "warmup": 2}
    return Trainer(diffusion, data, **defaults | options)


def everything(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"{group}.{name}": value.clone() for group, some in trainer.tensors().items() for name, value in some.items()
    }


def advance(trainer: Trainer, steps: int) -> list[float]:
    losses = []
    for step in trainer.steps():
        losses.append(step.loss.item())
        if len(losses) == steps:
            break
    return losses


def assert_resumed_equals_whole(at: list[int], steps: int, **options) -> None:
    """Stopped after any of these steps and gone on with, a training is the one that was not stopped, bit for bit."""
    options |= {"steps": steps, "ema": ("constant(decay=0.9)", "power(width=0.1)")}
    whole = make(**options)
    losses = advance(whole, steps)
    for stop in at:
        first = make(**options)
        assert advance(first, stop) == losses[:stop]
        kept, counters = copy.deepcopy(first.tensors()), first.counters()
        second = make(**options)
        advance(second, 1)  # what a trainer did before it loads may not matter
        second.load(kept, counters)
        torch.manual_seed(99)  # nor may the global generator
        assert advance(second, steps) == losses[stop:]
        ours, theirs = everything(second), everything(whole)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


STOPS = {"": [3], "1": [1, 4, 8, 12, 16, 20], "full": list(range(1, 21))}[STRESS]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", optimizers)
def test_some_steps_and_resume_equal_all_bit_for_bit(precision: str, accumulate: int, optimizer: str, record_property):
    steps = 21 if STRESS else 6
    assert_resumed_equals_whole(STOPS, steps, optimizer=optimizer, precision=precision, accumulate=accumulate)
    record_property("faults", len(STOPS))


def test_the_comparison_can_fail():
    """A test of the test above: another seed gives other weights."""
    one, other = make(), make(seed=1)
    assert advance(one, 2) != advance(other, 2)
    ours, theirs = everything(one), everything(other)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("weights"))


def test_accumulation_averages_the_gradient():
    """Two micro-batches of 4 see what one batch of 8 sees, but for the order of sums, when their draws are the same."""
    trainers = [make(batch=8, accumulate=1, dropout=0.0), make(batch=4, accumulate=2, dropout=0.0)]
    norms = []
    for trainer in trainers:
        fixed = DrawnOnce(trainer.data, trainer.batch)
        trainer.data = fixed  # pyright: ignore[reportAttributeAccessIssue]
        trainer.diffusion.forward = fixed.loss(trainer.diffusion)
        norms.append(next(trainer.steps()).gradient_norm.item())
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


class DrawnOnce:
    """Eight pictures with fixed noise, handed out whole or in halves."""

    def __init__(self, data: ImageSet, size: int):
        self.whole, self.size = data.batch(0, 8, seed=0), size

    def batch(self, number: int, size: int, **_):
        self.rows = slice(number * size, (number + 1) * size)
        part = copy.copy(self.whole)
        object.__setattr__(part, "x0", self.whole.x0[self.rows])
        object.__setattr__(part, "label", None)
        return part

    def loss(self, diffusion: GaussianDiffusion):
        noise = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        position = torch.linspace(10, 900, 8).round()
        return lambda x0, label, **_: diffusion.loss(x0, None, position=position[self.rows], noise=noise[self.rows])


def test_timesteps_are_stratified_over_the_batch():
    trainer = make(batch=20, accumulate=1)
    seen: list[Tensor] = []
    original = trainer.diffusion.forward

    def spy(x0, label, *, position, noise, share):
        seen.append(position)
        return original(x0, label, position=position, noise=noise)

    trainer.diffusion.forward = spy
    advance(trainer, 2)
    for position in seen:
        assert sorted((position // 50).long().tolist()) == list(range(20))
    assert not torch.equal(*seen)


def test_labels_are_dropped_one_by_one():
    trainer = make(batch=40, accumulate=1, label_drop=0.5)
    seen: list[Tensor] = []
    original = trainer.diffusion.forward
    trainer.diffusion.forward = lambda x0, label, **more: seen.append(label) or original(x0, label, **more)
    advance(trainer, 5)
    dropped = torch.cat(seen) == 4
    assert 0.35 < dropped.float().mean() < 0.65
    assert all(0 < int((label == 4).sum()) < 40 for label in seen)


def test_learning_rate_warms_up_and_decays():
    trainer = make(steps=10, lr=1.0, warmup=4, decay=0.5)
    rates = [trainer.lr_at(step) for step in range(1, 11)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert [make(decay=0.0, warmup=0, lr=0.5).lr_at(step) for step in (1, 6)] == [0.5, 0.5]


def poison(trainer: Trainer, steps: set[int]) -> None:
    """Make the loss of these steps NaN."""
    original = trainer.diffusion.forward
    trainer.diffusion.forward = lambda *args, **more: (
        original(*args, **more) * (math.nan if trainer.step + 1 in steps else 1.0)
    )


def test_a_step_that_is_not_finite_is_never_applied():
    trainer = make(accumulate=1, ema=("constant(decay=0.5)",))
    poison(trainer, {2, 3})
    states = [everything(trainer)]
    for _ in trainer.steps():
        states.append(everything(trainer))
    weights = [{name: each[name] for name in each if name.startswith(("weights", "state.exp"))} for each in states]
    unchanged = [all(torch.equal(a[n], b[n]) for n in a) for a, b in zip(weights[1:], weights[2:])]
    assert unchanged == [True, True, False, False, False]
    assert all(bool(value.isfinite().all()) for value in states[-1].values())
    mean = trainer.take_mean()
    assert mean.skipped == 2
    assert math.isfinite(mean.loss)
    assert trainer.step == 6


def test_many_in_a_row_stop_the_training_with_an_explanation():
    trainer = make(steps=100, accumulate=1)
    poison(trainer, set(range(11, 101)))
    with pytest.raises(Diverged, match=r"at step 40: the last 30 steps had a loss or gradient that is not finite"):
        trainer.train()
    assert all(bool(value.isfinite().all()) for value in everything(trainer).values())


def test_infinite_gradients_are_caught_too():
    trainer = make(accumulate=1)
    next(iter(trainer.network.parameters())).register_hook(lambda gradient: gradient * math.inf)
    before = everything(trainer)
    advance(trainer, 3)
    after = everything(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("weights"))


def test_ema_follows_and_raw_differs():
    trainer = make(lr=1e-2)
    trainer.train()
    tensors = trainer.tensors()
    assert any(not torch.equal(tensors["weights"][name], tensors["ema"][name]) for name in tensors["ema"])


def test_fp16_says_what_is_used_where_there_is_no_gpu():
    assert make(precision="fp16").precision == "fp32"


def test_paper_defaults():
    network = networks.bind("unet(dim=8, dim_mults=(1, 2))")(channels=3)
    trainer = Trainer(GaussianDiffusion(network, timesteps=1000), DATA, device="cpu")
    assert (trainer.lr, trainer.total, trainer.accumulate, trainer.batch) == (8e-5, 20_000, 2, 8)
    assert trainer.ema.rules[0](10**6) == 0.995


def test_bad_requests_are_refused():
    with pytest.raises(RequestError, match="conditional: True is not allowed for data without labels"):
        make(data=ImageSet(PIXELS, batch_size=8))
    with pytest.raises(RequestError, match="device: 'gpu' is unknown"):
        make(device="gpu")
    trainer = make()
    kept = trainer.tensors()
    other = make(classes=0)
    before = everything(other)
    with pytest.raises(RequestError, match=r"weights are of another network: .* this network has nothing"):
        other.load(kept, trainer.counters())
    assert all(torch.equal(before[name], value) for name, value in everything(other).items())


def test_it_learns():
    """One colour is learned within a hundred steps: the loss falls to a fraction."""
    flat = ImageSet(torch.full((16, 3, 8, 8), 200, dtype=torch.uint8), batch_size=16)
    trainer = make(classes=0, data=flat, steps=120, batch=16, accumulate=1, lr=5e-3, decay=0.0, dropout=0.0)
    losses = advance(trainer, 120)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
