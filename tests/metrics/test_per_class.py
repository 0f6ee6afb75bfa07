import json

import pytest
import torch

from ddm.errors import RequestError
from ddm.metrics import Embedded
from ddm.metrics.kid import kid
from ddm.metrics.per_class import class_kid
from metrics.samples import embedded, normal, source

CENTRES = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
NAMES = ("cat", "dog", "ship")


def labelled(counts: list[int], seed: int, named: tuple[str, ...] = NAMES) -> Embedded:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return embedded(CENTRES[labels] + normal(len(labels), 3, source(seed)), labels=labels, classes=named)


def test_each_class_is_measured_alone():
    real, fake = labelled([30, 40, 50], 1), labelled([20, 10, 30], 2)
    found = class_kid(real, fake)
    alone = [kid(real.take(real.labels == label), fake.take(fake.labels == label)) for label in range(3)]
    assert found.details["classes"] == {name: [each.value, each.low, each.high] for name, each in zip(NAMES, alone)}
    assert found.value == pytest.approx(sum(each.value for each in alone) / 3)
    assert found.error == pytest.approx(sum(each.error**2 for each in alone) ** 0.5 / 3)
    json.dumps(found.details)


def test_it_finds_a_generator_that_ignores_the_label():
    real, fake = labelled([100] * 3, 1), labelled([100] * 3, 2)
    mixed = Embedded(fake.features, fake.pixels, labels=fake.labels.roll(1 + len(fake) // 3), classes=NAMES)
    assert kid(real, mixed).value == kid(real, fake).value
    assert class_kid(real, mixed).low > class_kid(real, fake).high


def test_classes_without_names_have_numbers():
    found = class_kid(labelled([5, 5, 5], 1, named=()), labelled([5, 5, 5], 2, named=()))
    assert list(found.details["classes"]) == ["0", "1", "2"]


def test_what_is_missing_is_named():
    real, bare = labelled([5, 5, 5], 1), embedded(normal(9, 3, source(3)))
    with pytest.raises(RequestError, match=r"^class_kid: the real pictures have no labels"):
        class_kid(bare, real)
    with pytest.raises(RequestError, match=r"^class_kid: the generated pictures have no labels"):
        class_kid(real, bare)
    with pytest.raises(RequestError, match=r"^class_kid: 1 generated pictures of class 'ship'; allowed: 2 or more$"):
        class_kid(real, labelled([5, 5, 1], 2))
    with pytest.raises(RequestError, match=r"^class_kid: 0 real pictures of class 'dog'; allowed: 2 or more$"):
        class_kid(real.take(real.labels != 1), real)
    with pytest.raises(RequestError, match=r"^class_kid: 0 generated pictures of class 'dog'; allowed: 2 or more$"):
        class_kid(real, real.take(real.labels != 1))
