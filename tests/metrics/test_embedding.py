import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ddm.metrics.embedding import FeatureCache, embed
from ddm.metrics.features import as_rgb
from metrics.toys import ToyFeatures


def pictures(count: int = 9, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, 8, 8), generator=draw, dtype=torch.uint8)


def test_batches_change_nothing():
    toy = ToyFeatures().eval()
    whole = embed(toy, pictures(), batch=100)
    for batch in (1, 4, 9):
        parts = embed(toy, pictures(), batch=batch)
        assert all(torch.equal(parts[name], whole[name]) for name in ("features", "logits"))
    assert whole["features"].shape == (9, 12)


def test_floats_are_refused():
    with pytest.raises(TypeError, match=r"must be uint8, not torch\.float32"):
        ToyFeatures().eval()(torch.zeros(1, 3, 8, 8))


def test_measuring_in_training_mode_is_refused():
    with pytest.raises(AssertionError, match="eval mode"):
        ToyFeatures().train()(pictures())


def test_gray_and_transparent_pictures_become_colour():
    gray = as_rgb(pictures(channels=1))
    assert gray.shape[1] == 3 and torch.equal(gray[:, 0], gray[:, 2])
    clear = pictures(channels=4)
    clear[:, 3] = 0
    assert as_rgb(clear).eq(255).all()
    solid = pictures(channels=4)
    solid[:, 3] = 255
    assert torch.equal(as_rgb(solid), solid[:, :3])
    half = torch.tensor([100, 0, 200, 51], dtype=torch.uint8).reshape(1, 4, 1, 1)  # a fifth of it over white
    assert as_rgb(half).flatten().tolist() == [224, 204, 244]


def test_kept_features_are_found_by_content(tmp_path: Path):
    cache = FeatureCache(tmp_path, ToyFeatures())
    vectors = embed(ToyFeatures().eval(), pictures(), batch=9)
    assert cache.read(pictures()) is None
    cache.write(pictures(), vectors)
    found = cache.read(pictures())
    assert found is not None and torch.equal(found["features"], vectors["features"])
    for change in ("pixel", "order", "count"):
        other = pictures()
        if change == "pixel":
            other[3, 1, 2, 2] ^= 1
        other = other.flip(0) if change == "order" else other[:-1] if change == "count" else other
        assert cache.read(other) is None, change
    assert FeatureCache(tmp_path, ToyFeatures(version=1)).read(pictures()) is None, "another feature space"


def test_a_file_cut_in_half_is_made_again_with_a_word(tmp_path: Path):
    said: list[str] = []
    cache = FeatureCache(tmp_path, ToyFeatures(), said.append)
    cache.write(pictures(), embed(ToyFeatures().eval(), pictures(), batch=9))
    path = cache.path(pictures())
    os.truncate(path, path.stat().st_size // 2)
    assert cache.read(pictures()) is None
    assert len(said) == 1 and "is damaged and is made again" in said[0] and path.name in said[0]


def _keep(folder: Path) -> None:
    cache, vectors = FeatureCache(folder, ToyFeatures()), embed(ToyFeatures().eval(), pictures(), batch=9)
    for _ in range(40):
        cache.write(pictures(), vectors)
        found = cache.read(pictures())
        assert found is not None and np.array_equal(found["features"], vectors["features"])


def test_two_processes_may_keep_the_same(tmp_path: Path):
    workers = [multiprocessing.get_context("fork").Process(target=_keep, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len([each for each in tmp_path.rglob("*") if each.is_file()]) == 1
