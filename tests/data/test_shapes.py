import time
from collections.abc import Callable

import pytest
import torch

from ddm.data import ImageSet
from ddm.data.shapes import SHAPES
from ddm.errors import RequestError

Load = Callable[..., ImageSet]


def test_pictures_are_labelled_evenly_and_stay_inside(load: Load):
    data = load("shapes(count=160)")
    assert data.classes == tuple(SHAPES)
    assert len(data.classes) == 8
    assert data.labels is not None
    assert torch.equal(data.labels, torch.arange(160) % 8)
    assert (data.count, data.channels, data.image_size) == (160, 3, (32, 32))
    edge = torch.cat(
        (data.pixels[..., 0, :], data.pixels[..., -1, :], data.pixels[..., 0], data.pixels[..., -1]), dim=-1
    )
    assert torch.equal(edge, edge[..., :1].expand_as(edge)), "a plain ground all around"
    assert edge.min() > 220, "and a pale one"


def test_smaller_set_is_the_start_of_a_larger_one_and_seeds_differ(load: Load):
    large, small, other = load("shapes(count=40)"), load("shapes(count=10)"), load("shapes(count=10, seed=1)")
    assert torch.equal(large.pixels[:10], small.pixels)
    assert not torch.equal(other.pixels, small.pixels)


def test_sizes_show_the_same_pictures(load: Load):
    small, large = load("shapes(count=16)", image_size=16), load("shapes(count=16)", image_size=64)
    reduced = torch.nn.functional.avg_pool2d(large.pixels.float(), 4)
    assert (reduced - small.pixels.float()).abs().mean() < 1


def test_shapes_can_be_told_apart(load: Load):
    """The nearest mean silhouette, centred and scaled, names the shape: what a person sees, in its crudest form."""
    data = load("shapes(count=800)", image_size=64)
    dark = (data.pixels.float() - data.pixels[:, :, :1, :1].float()).abs().amax(1)
    dark = dark / dark.amax((1, 2), keepdim=True)
    silhouettes = torch.stack([centred(picture > 0.5) for picture in dark]).flatten(1)
    means = torch.stack([silhouettes[data.labels == label].mean(0) for label in range(8)])
    right = (torch.cdist(silhouettes, means).argmin(1) == data.labels).float().mean()
    assert right > 0.97


def centred(inside: torch.Tensor) -> torch.Tensor:
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    box = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
    return torch.nn.functional.interpolate(box[None, None], (24, 24), mode="area")[0, 0]


def test_thousand_take_a_second_or_so(load: Load):
    start = time.process_time()
    load("shapes(count=1024)")
    assert time.process_time() - start < 10


@pytest.mark.parametrize("count", [0, -1])
def test_count(load: Load, count: int):
    with pytest.raises(RequestError, match="count must be greater than or equal to 1"):
        load(f"shapes(count={count})")
