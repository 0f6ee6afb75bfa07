import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddm.data import get_data
from ddm.errors import RequestError
from ddm.metrics import Embedded, Measurement
from ddm.metrics.memorisation import duplicates, memorisation
from ddm.seeding import drawn
from metrics.samples import source

Pictures = Callable[[Tensor], Embedded]


def pictures(pixels: Tensor) -> Embedded:
    return Embedded(torch.zeros(len(pixels), 1), pixels)


def smooth(n: int, seed: int) -> Tensor:
    """Unrelated pictures in which, as in photographs, neighbouring pixels are alike."""
    random = source(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=random) * 255
    return torch.nn.functional.interpolate(coarse, size=16, mode="bicubic").clamp(0, 255).round().to(torch.uint8)


def noisy(pixels: Tensor, levels: float, seed: int = 9) -> Tensor:
    noise = torch.randn(pixels.shape, generator=source(seed)) * levels
    return (pixels + noise).clamp(0, 255).round().to(torch.uint8)


TRAINING = smooth(400, 1)


def flagged(found: Measurement) -> list[int]:
    return sorted(picture for picture, _, ratio in found.details["nearest"] if ratio <= 1 / 3)


def test_planted_copies_are_found_and_named():
    planted = {3: 17, 11: 399, 40: 0}
    fake = smooth(50, 2)
    for place, original in planted.items():
        fake[place] = noisy(TRAINING[original], levels=2 * (place % 2))
    found = memorisation(pictures(TRAINING), pictures(fake))
    assert found.value == 3 / 50 and found.low < 0.06 < found.high
    assert flagged(found) == sorted(planted)
    assert {picture: original for picture, original, _ in found.details["nearest"][:3]} == planted
    assert found.details["nearest"][0][2] == 0 and len(found.details["nearest"]) == 16
    assert found.better == "lower"
    json.dumps(found.details)


def test_unrelated_and_mirrored_pictures_are_no_copies():
    for fake in (smooth(100, 3), TRAINING[:100].flip(-1)):
        found = memorisation(pictures(TRAINING), pictures(fake))
        assert found.value == 0 == found.low
        assert found.high == pytest.approx(1.96**2 / (100 + 1.96**2))


def test_pictures_that_are_often_in_the_training_set_do_not_hide_their_copies():
    often = TRAINING.clone()
    often[:20] = noisy(TRAINING[:1], levels=1).expand(20, -1, -1, -1)
    assert memorisation(pictures(often), pictures(TRAINING[:1])).value == 1


def test_copies_of_a_training_set_of_one_picture_are_copies():
    one = TRAINING[:1].expand(60, -1, -1, -1)
    assert memorisation(pictures(one), pictures(one[:2])).value == 1


def test_the_criterion_is_that_of_the_definition():
    fake = noisy(TRAINING[:30], levels=40)
    distances = torch.cdist(
        fake.flatten(1).double(), TRAINING.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    closest = distances.sort(1).values[:, :7]
    expected = closest[:, 0] / closest.mean(1)
    found = memorisation(pictures(TRAINING), pictures(fake), neighbours=7, ratio=0.5)
    assert found.value == (expected <= 0.5).double().mean()
    assert 0 < found.value < 1
    for picture, original, ratio in found.details["nearest"]:
        assert ratio == pytest.approx(expected[picture].item(), rel=1e-6)
        assert original == distances[picture].argmin()


def test_pictures_of_a_large_set_keep_their_numbers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddm.metrics.memorisation.MOST", 25)
    fake = smooth(50, 4)
    early, late = drawn(50, 25)[[3, 20]].tolist()
    fake[late], fake[early] = TRAINING[5], TRAINING[5]
    found = memorisation(pictures(TRAINING), pictures(fake))
    assert found.details["n_fake"] == 25 and flagged(found) == [early, late]
    twins = duplicates(pictures(TRAINING), pictures(fake))
    assert [each[:2] for each in twins.details["nearest"][:2]] in (
        [[early, late], [late, early]],
        [[late, early], [early, late]],
    )


def test_near_copies_among_the_generated_pictures():
    fake = smooth(60, 5)
    fake[20], fake[33] = noisy(fake[7], levels=2), noisy(fake[40], levels=2, seed=8)
    found = duplicates(pictures(TRAINING), pictures(fake))
    assert found.value == 4 / 60 and flagged(found) == [7, 20, 33, 40]
    assert sorted(each[:2] for each in found.details["nearest"][:4]) == [[7, 20], [20, 7], [33, 40], [40, 33]]
    assert memorisation(pictures(TRAINING), pictures(fake)).value == 0
    assert duplicates(pictures(TRAINING), pictures(smooth(60, 5))).value == 0


@pytest.mark.parametrize("levels", [0, 5])
def test_a_collapsed_generator_makes_nothing_but_duplicates(levels: float):
    """Each of two pictures a hundred times: among themselves they are all equally near."""
    fake = noisy(smooth(2, 6).repeat(100, 1, 1, 1), levels)
    assert duplicates(pictures(TRAINING), pictures(fake)).value == 1


def test_the_interval_of_duplicates_is_the_spread_over_repetitions():
    """A generator that makes one of 1,000 pictures, so that most duplicates are pairs."""
    random, made = source(7), smooth(1000, 7)
    found = []
    for _ in range(120):
        fake = made[torch.randint(len(made), (200,), generator=random)]
        found.append(duplicates(pictures(TRAINING[:50]), pictures(fake)))
    spread = torch.tensor([each.value for each in found]).std()
    assert 0.8 < torch.tensor([each.error for each in found]).mean() / spread < 1.2


def test_refusals():
    with pytest.raises(RequestError, match=r"^real pictures: 49 are too few; allowed: 50 or more$"):
        memorisation(pictures(TRAINING[:49]), pictures(TRAINING))
    with pytest.raises(RequestError, match=r"^generated pictures: shape \(1, 16, 16\); allowed: \(3, 16, 16\), as of"):
        memorisation(pictures(TRAINING), pictures(TRAINING[:, :1]))
    with pytest.raises(RequestError, match=r"^generated pictures: 1 are too few; allowed: 2 or more$"):
        duplicates(pictures(TRAINING), pictures(TRAINING[:1]))


@pytest.mark.skipif(
    not Path(os.environ.get("DDM_DATA", "/nowhere"), "cifar10").exists(), reason="DDM_DATA names no folder with cifar10"
)
def test_photographs():
    """Unrelated photographs pass; copies of them with noise do not."""
    some = get_data('cifar10(split="test")').pixels.clone()
    training, fake = some[:5000], some[-300:]
    assert memorisation(pictures(training), pictures(fake)).value <= 0.01
    fake[:30] = noisy(training[100:130], levels=2)
    found = memorisation(pictures(training), pictures(fake))
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert {each[0] for each in found.details["nearest"]} <= set(range(30))
