import re
from dataclasses import fields

import pytest

from ddm.metrics.published import LOWEST, PUBLISHED, TEST, TRAIN, Published

KNOWN = [
    ("arXiv 2006.11239", 1000, 3.17),
    ("arXiv 2206.00364", 35, 1.97),
    ("arXiv 2206.00364", 35, 1.79),
    ("arXiv 2310.02279", 1, 1.73),
    ("arXiv 1809.11096", 1, 14.73),
    ("arXiv 2010.02502", 100, 4.16),
]


@pytest.mark.parametrize(("source", "evaluations", "value"), KNOWN)
def test_the_numbers_everybody_quotes(source: str, evaluations: int, value: float):
    found = [each for each in PUBLISHED if source in each.source and each.value == value]
    assert [each.evaluations for each in found] == [evaluations]


def test_one_network_has_three_numbers_by_weights_and_split():
    """The 14.30 that the paper prints is not of the averaged weights, and not against the training set."""
    found = {(each.model, each.protocol): each.value for each in PUBLISHED if "pesser/pytorch_diffusion" in each.source}
    assert found == {
        ("pretrained DDPM, weights not averaged", TEST): 14.30,
        ("pretrained DDPM, averaged weights", TEST): 5.27,
        ("pretrained DDPM, averaged weights", TRAIN): 3.21,
    }


def test_every_number_says_where_it_is_from():
    for each in PUBLISHED:
        assert re.search(r"arXiv \d{4}\.\d{5}$|pesser/pytorch_diffusion|Denoising Diffusion Model", each.source), each
        assert each.protocol and each.metric == "FID" and 0 < each.value < 100
        assert each.evaluations is None or each.evaluations >= 1


def test_the_lowest_of_three_is_called_so():
    assert {each.source for each in PUBLISHED if each.protocol == LOWEST} == {"Karras et al. 2022, arXiv 2206.00364"}


def test_nothing_is_there_twice():
    keys = [(each.model, each.evaluations, each.protocol) for each in PUBLISHED]
    assert len(set(keys)) == len(keys)
    assert [each.name for each in fields(Published)] == [
        "model",
        "metric",
        "value",
        "evaluations",
        "protocol",
        "source",
    ]
