import pytest
import torch

from ddm.data import ImageSet
from ddm.errors import RequestError
from ddm.generators import FixedPictures

PIXELS = torch.randint(0, 256, (12, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1])
LABELLED = FixedPictures(ImageSet(PIXELS, LABELS, ("a", "b", "c")))


def test_seed_i_is_picture_i():
    assert torch.equal(LABELLED.generate(range(12)), PIXELS)
    seeds = [11, 0, 3, 3]
    assert torch.equal(LABELLED.generate(seeds), PIXELS[seeds])
    made = LABELLED.generate([0])
    made.zero_()
    assert torch.equal(LABELLED.generate(range(12)), PIXELS), "what a caller does to its pictures is its own affair"


def test_what_it_says_of_itself():
    assert (LABELLED.shape, LABELLED.classes, LABELLED.limit, LABELLED.settings()) == ((3, 4, 6), 3, 12, {})
    assert LABELLED.labels_of([5, 0, 1]) == [1, 2, 0]
    plain = FixedPictures(ImageSet(PIXELS))
    assert plain.classes == 0 and plain.labels_of(range(3)) is None


@pytest.mark.parametrize(
    ("seeds", "wrong"), [(range(10, 15), 14), ([12], 12), ([3, -1], -1), (range(2**40, 2**40 + 9), 2**40 + 8)]
)
def test_beyond_the_end_says_how_many_there_are(seeds, wrong: int):
    for ask in (LABELLED.generate, LABELLED.labels_of):
        with pytest.raises(RequestError, match=f"^seed: {wrong} is not allowed; there are 12 pictures, 0 to 11$"):
            ask(seeds)


def test_a_class_cannot_be_asked_for():
    with pytest.raises(RequestError, match="^label: stored pictures cannot be asked for by class; allowed: none$"):
        LABELLED.generate([0], [2])
