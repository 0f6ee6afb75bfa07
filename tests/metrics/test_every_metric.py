"""What holds for all metrics, and what they share."""

import gc
import json
import math
from dataclasses import replace

import pytest
import torch

from ddm.errors import DdmError, RequestError
from ddm.metrics import Embedded, metrics
from ddm.metrics.intervals import jackknife_error, random_groups, wilson
from ddm.metrics.remembering import remember
from metrics.samples import everything, normal, source

IN_PIXELS = {"memorisation", "duplicates"}
IN_FEATURES = sorted(set(metrics) - IN_PIXELS - {"inception_score"})


@pytest.mark.parametrize("name", metrics)
def test_a_measurement_is_plain_numbers_around_a_value(name: str):
    found = metrics.bind(name)(real=everything(64, 1), fake=everything(60, 2))
    assert type(found.value) is type(found.low) is type(found.high) is float
    assert found.low <= found.value <= found.high and math.isfinite(found.error)
    assert json.loads(json.dumps(found.details)) == found.details
    assert all("\n" not in warning for warning in found.warnings)


@pytest.mark.parametrize("name", metrics)
def test_the_order_of_the_pictures_does_not_matter(name: str):
    real, fake = everything(64, 1), everything(61, 2)
    found = metrics[name](real, fake)
    for seed in (1, 2):
        ours, theirs = (torch.randperm(n, generator=source(seed)) for n in (64, 61))
        shuffled = metrics[name](real.take(ours), fake.take(theirs))
        assert shuffled.value == pytest.approx(found.value, rel=1e-9, abs=1e-12)
        assert (shuffled.low, shuffled.high) == pytest.approx((found.low, found.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", metrics)
def test_two_pictures_are_measured_or_refused(name: str):
    real, fake = everything(64, 1), everything(2, 2)
    for ours, theirs in ((real, fake), (fake, real), (fake, fake)):
        try:
            found = metrics[name](ours, theirs)
        except RequestError as error:
            refusal = str(error)
        else:
            refusal = ""
            assert math.isfinite(found.value) and found.low <= found.value <= found.high
        assert (not refusal or "allowed: " in refusal) and "\n" not in refusal


@pytest.mark.parametrize("name", metrics)
def test_float64_features_of_the_same_values_give_the_same(name: str):
    real, fake = everything(64, 1), everything(60, 2)
    wide = [replace(each, features=each.features.double(), logits=each.logits.double()) for each in (real, fake)]
    assert metrics[name](*wide) == metrics[name](real, fake)


def spoiled(pictures: Embedded, value: float) -> Embedded:
    features, logits = pictures.features.clone(), pictures.logits.clone()
    features[[7, 9], 3] = logits[[7, 9], 3] = value
    return replace(pictures, features=features, logits=logits)


@pytest.mark.parametrize("name", [*IN_FEATURES, "inception_score"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(name: str, value: float):
    real, fake = everything(64, 1), everything(60, 2)
    what = "logits" if name == "inception_score" else "features"
    expected = rf"^the {what} of generated picture 7 are not finite \(2 such pictures of 60\)"
    with pytest.raises(DdmError, match=expected):
        metrics[name](real, spoiled(fake, value))
    if name != "inception_score":
        with pytest.raises(DdmError, match=r"^the features of real picture 7 are not finite \(2 such pictures of 64\)"):
            metrics[name](spoiled(real, value), fake)


@pytest.mark.parametrize("name", IN_FEATURES)
def test_two_feature_spaces_are_refused(name: str):
    with pytest.raises(
        RequestError, match=r"^features: 5 numbers a generated picture; allowed: 6, as of the real ones$"
    ):
        metrics[name](everything(64, 1), everything(60, 2, d=5))


def test_wilsons_interval():
    """Its ends are where the share is just 1.96 standard errors of the end away."""
    for share, count in ((0.0, 50), (0.1, 50), (0.5, 7), (1.0, 1000)):
        low, high = wilson(share, count)
        assert 0 <= low <= share <= high <= 1
        for end in (low, high):
            error = (end * (1 - end) / count) ** 0.5
            assert abs(share - end) == pytest.approx(1.96 * error, abs=1e-9)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = normal(50, 1, source(1))[:, 0]
    without = (values.sum() - values) / 49
    assert jackknife_error(without) == pytest.approx((values.std() / 50**0.5).item())


def test_groups_are_even_random_and_go_with_the_picture():
    features = normal(103, 5, source(2))
    dealt = random_groups(features, 20)
    assert sorted(dealt.bincount().tolist()) == [5] * 17 + [6] * 3
    order = torch.randperm(103)
    assert random_groups(features[order], 20).equal(dealt[order])
    # Equal pictures are dealt at random too: were they dealt evenly, a jackknife would see no spread.
    twice = features[torch.arange(100) % 2]
    shares = torch.stack(
        [(twice[random_groups(twice, 20) == group, 0] > features[1, 0] - 1e-9).double().mean() for group in range(20)]
    )
    assert shares.std() > 0.15


def test_results_are_kept_as_long_as_their_pictures():
    calls = []

    @remember
    def counted(pictures: Embedded, option: int = 10) -> int:
        calls.append(option)
        return len(pictures) + option

    first, second = everything(3, 1), everything(4, 1)
    assert [counted(first, 1), counted(second, 1), counted(first, 1), counted(second, 1)] == [4, 5, 4, 5]
    assert len(calls) == 2
    assert counted(first, 2) == 5 and len(calls) == 3
    assert counted(first, 1) == 4 and len(calls) == 4, "only the last two are kept"
    assert counted(everything(3, 1), 1) == 4 and len(calls) == 5, "equal pictures are not the same"
    assert counted(first) == 13 and counted(first, 10) == 13
    kept = counted.__closure__
    del first, second
    gc.collect()
    assert all(cell.cell_contents == [] for cell in kept if isinstance(cell.cell_contents, list))


@pytest.mark.parametrize("count", [20_000, 30_000, 50_000])
@pytest.mark.parametrize("order", ["turns", "sorted"])
def test_a_part_of_a_set_has_every_class_in_its_share(count: int, order: str):
    """Every fifth of 50,000 pictures whose ten classes take turns would be two classes alone."""
    labels = torch.arange(count) % 10
    labels = labels if order == "turns" else labels.sort().values
    whole = Embedded(torch.zeros(count, 1), torch.zeros(count, 1, 1, 1, dtype=torch.uint8), labels=labels)
    part = whole.spread(10_000)
    assert part.labels is not None and len(part) == 10_000
    assert part.labels.bincount(minlength=10).sub(1000).abs().max() < 150, "five standard deviations"
    again = whole.spread(10_000).labels
    assert again is not None and torch.equal(part.labels, again)
