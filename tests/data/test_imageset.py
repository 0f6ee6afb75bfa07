import dataclasses

import pytest
import torch

from ddm.data import ImageSet


def numbered(count: int, *, labels: bool = True) -> ImageSet:
    """Pictures that say their own number: in their left column as the level, in the label modulo 5."""
    pixels = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    pixels[..., 0] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    label = torch.arange(count) % 5 if labels else None
    return ImageSet(pixels, label, tuple("abcde") if labels else ())


def test_batch_holds_pictures_in_range_with_their_labels_and_numbers():
    data = numbered(20)
    batch = data.batch(0, 8, seed=1)
    assert batch.x0.shape == (8, 3, 2, 2)
    assert batch.x0.dtype == torch.float32
    assert batch.label is not None
    assert batch.label.dtype == batch.index.dtype == torch.int64
    assert torch.equal(batch.x0[:, 0, 0, 0], batch.index.float() / 127.5 - 1)
    assert torch.equal(batch.label, batch.index % 5)
    assert batch.x0[:, :, :, 1].eq(-1).all()
    x0, label = batch
    assert x0 is batch.x0
    assert label is batch.label


def test_set_without_labels_gives_none():
    assert numbered(4, labels=False).batch(0, 2, seed=0).label is None


def test_properties():
    data = numbered(7)
    assert (data.count, len(data), data.channels, data.image_size) == (7, 7, 3, (2, 2))


@pytest.mark.parametrize("size", [1, 4, 7, 20, 33, 64])
def test_stream_is_one_permutation_after_the_other(size: int):
    data, count = numbered(20), 20
    stream = torch.cat([data.batch(number, size, seed=3).index for number in range(-(-3 * count // size))])
    epochs = [stream[epoch * count : (epoch + 1) * count] for epoch in range(3)]
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, torch.arange(count))
    assert not torch.equal(epochs[0], epochs[1])


def test_stream_does_not_depend_on_the_size_of_batches():
    data = numbered(20)
    small = torch.cat([data.batch(number, 5, seed=3).index for number in range(12)])
    large = torch.cat([data.batch(number, 30, seed=3).index for number in range(2)])
    assert torch.equal(small, large)


def test_batch_is_a_function_of_its_arguments_alone():
    fresh, used = numbered(50), numbered(50)
    for number in (9, 0, 3, 3, 77):
        used.batch(number, 16, seed=number, flip=True)
    one, other = fresh.batch(3, 16, seed=5, flip=True), used.batch(3, 16, seed=5, flip=True)
    assert torch.equal(one.x0, other.x0)
    assert torch.equal(one.index, other.index)


def test_seeds_differ():
    data = numbered(50)
    assert not torch.equal(data.batch(0, 50, seed=0).index, data.batch(0, 50, seed=1).index)


@pytest.mark.parametrize(
    "parts",
    [
        [slice(0, 6), slice(6, 12)],
        [range(0, 4), range(4, 9), range(9, 12)],
        [slice(None, 12), range(12, 12)],
    ],
)
def test_parts_of_the_processes_make_the_batch_of_one(parts: list[slice | range]):
    data = numbered(10)
    for number in range(4):
        whole = data.batch(number, 12, seed=2, flip=True)
        pieces = [data.batch(number, 12, seed=2, flip=True, part=part) for part in parts]
        assert torch.equal(torch.cat([piece.x0 for piece in pieces]), whole.x0)
        assert torch.equal(torch.cat([piece.index for piece in pieces]), whole.index)
        assert torch.equal(torch.cat([piece.label for piece in pieces if piece.label is not None]), whole.label)


def test_part_with_a_step():
    data = numbered(10)
    whole = data.batch(1, 12, seed=2).index
    assert torch.equal(data.batch(1, 12, seed=2, part=range(1, 12, 3)).index, whole[1::3])


@pytest.mark.parametrize("part", [range(5, 13), range(-2, 4), range(6, 0, -1)])
def test_part_outside_of_the_batch_is_refused(part: range):
    with pytest.raises(ValueError, match=r"part range\(.*\) does not lie in a batch of 12"):
        numbered(10).batch(0, 12, seed=0, part=part)


@pytest.mark.parametrize(("number", "size"), [(-1, 4), (0, 0)])
def test_batch_that_cannot_be_is_refused(number: int, size: int):
    with pytest.raises(ValueError, match="number must be >= 0 and size >= 1"):
        numbered(10).batch(number, size, seed=0)


def test_flip_mirrors_half_of_the_pictures_and_nothing_else():
    data, size = numbered(100), 50
    mirrored = 0
    for number in range(20):
        plain, flipped = data.batch(number, size, seed=4), data.batch(number, size, seed=4, flip=True)
        assert torch.equal(plain.index, flipped.index)
        assert torch.equal(plain.label, flipped.label)
        turned = (flipped.x0 == plain.x0.flip(-1)).flatten(1).all(1)
        same = (flipped.x0 == plain.x0).flatten(1).all(1)
        assert (turned | same).all()
        mirrored += int((turned & ~same).sum())
    assert 0.44 * 1000 < mirrored < 0.56 * 1000


def test_iterating_is_one_shuffled_epoch_with_a_smaller_last_batch():
    data = dataclasses.replace(numbered(20), batch_size=8)
    batches = list(data)
    assert [len(batch.index) for batch in batches] == [8, 8, 4]
    index = torch.cat([batch.index for batch in batches])
    assert torch.equal(index.sort().values, torch.arange(20))
    assert not torch.equal(index, torch.arange(20))
    for (x0, label), batch in zip(data, batches):
        assert torch.equal(x0, batch.x0)
        assert torch.equal(label, batch.label)


def test_ordered_is_the_set_as_stored():
    data = numbered(20)
    chunks = list(data.ordered(8))
    assert [len(chunk) for chunk in chunks] == [8, 8, 4]
    assert torch.equal(torch.cat(chunks), data.pixels)


def test_to_the_cpu_keeps_the_memory_map():
    data = numbered(20)
    moved = data.to("cpu", budget_bytes=0)
    assert moved.pixels is data.pixels
    assert moved.device == torch.device("cpu")


@pytest.mark.parametrize(("budget", "place"), [(20 * 12, "meta"), (20 * 12 - 1, "cpu"), (None, "meta")])
def test_pictures_move_to_the_device_where_they_fit(budget: int | None, place: str):
    data = numbered(20)
    moved = data.to("meta", budget_bytes=budget)
    assert moved.pixels.device.type == place
    batch = moved.batch(0, 8, seed=0, flip=True)
    assert batch.x0.device.type == batch.index.device.type == "meta"
    assert batch.label is not None
    assert batch.label.device.type == "meta"
    assert next(moved.ordered(3)).device.type == "meta"
    assert data.device.type == data.pixels.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("budget", [None, 0])
def test_batches_on_cuda_are_those_of_the_cpu_and_nothing_waits(budget: int | None):
    data = numbered(20)
    moved = data.to("cuda", budget_bytes=budget)
    moved.batch(0, 8, seed=0, flip=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [moved.batch(number, 8, seed=0, flip=True) for number in range(6)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for number, batch in enumerate(found):
        wanted = data.batch(number, 8, seed=0, flip=True)
        assert torch.equal(batch.x0.cpu(), wanted.x0)
        assert torch.equal(batch.index.cpu(), wanted.index)
