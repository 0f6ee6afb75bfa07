import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.inception import InceptionScore

from ddm.errors import RequestError
from ddm.metrics import Embedded
from ddm.metrics.inception_score import inception_score
from ddm.seeding import shuffled
from metrics.samples import calibration, embedded, normal, source

REAL = embedded(torch.zeros(2, 3))


def classified(logits: torch.Tensor) -> Embedded:
    return embedded(torch.zeros(len(logits), 3), logits=logits)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save:UserWarning")
@pytest.mark.filterwarnings("ignore:std\\(\\).*degrees of freedom:UserWarning")
def test_torchmetrics_agrees():
    logits = 3 * normal(200, 10, source(0))
    peer = InceptionScore(feature=nn.Identity(), splits=1).set_dtype(torch.float64)
    peer.update(logits)
    assert inception_score(REAL, classified(logits)).value == pytest.approx(peer.compute()[0].item(), rel=1e-10)


def test_sure_and_various_scores_the_number_of_classes():
    sure = 1000.0 * torch.eye(7).repeat(3, 1)
    assert inception_score(REAL, classified(sure)).value == pytest.approx(7)
    assert inception_score(REAL, classified(sure[:1].expand(5, -1))).value == pytest.approx(1)
    assert inception_score(REAL, classified(torch.zeros(5, 7))).value == pytest.approx(1)


def test_splits_are_scored_apart():
    logits = 2 * normal(40, 6, source(1))
    alone = [inception_score(REAL, classified(logits[part])) for part in shuffled(40).tensor_split(4)]
    found = inception_score(REAL, classified(logits), splits=4)
    assert found.value == pytest.approx(np.mean([each.value for each in alone]))
    assert found.error == pytest.approx(np.sqrt(np.sum([each.error**2 for each in alone])) / 4)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_interval_is_the_spread_over_repetitions(scale: float):
    random = source(2)
    found = [inception_score(REAL, classified(scale * normal(300, 6, random))) for _ in range(400)]
    assert 0.85 < calibration(found) < 1.15


def test_more_is_better():
    assert inception_score(REAL, classified(torch.eye(3))).better == "higher"


def test_refusals():
    with pytest.raises(RequestError, match=r"^inception_score: this feature space has no classes; allowed: one whose"):
        inception_score(REAL, REAL)
    with pytest.raises(RequestError, match=r"5 pictures are too few for splits=3; allowed: 6 or more$"):
        inception_score(REAL, classified(torch.zeros(5, 7)), splits=3)


def test_splits_of_classes_that_take_turns_have_all_of_them():
    sure = 50 * torch.nn.functional.one_hot(torch.arange(1000) % 10, 10).float()
    assert inception_score(REAL, classified(sure)).value == pytest.approx(10)
    assert inception_score(REAL, classified(sure), splits=10).value > 9
