import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from ddm.errors import DdmError
from ddm.storage import Damaged, cache_folder, digest_of_tensors, read_tensors, trim, write_file, write_tensors


def some(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(300, 7, generator=draw),
        "b": torch.arange(5),
        "pixels": torch.zeros(2, 3, dtype=torch.uint8),
    }


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "deep" / "file.safetensors"
    assert read_tensors(path) is None
    write_tensors(path, some())
    found = read_tensors(path)
    assert found is not None and found.keys() == some().keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in some().items()
    )
    assert [each.name for each in path.parent.iterdir()] == [path.name], "nothing temporary stays"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_told(tmp_path: Path, share: float):
    path = tmp_path / "file.safetensors"
    write_tensors(path, some())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(Damaged, match=r"file\.safetensors"):
        read_tensors(path)


def test_a_flipped_bit_anywhere_is_told(tmp_path: Path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, some())
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(Damaged):
            read_tensors(path)


def test_a_file_without_digest_is_not_ours(tmp_path: Path):
    from safetensors.torch import save_file

    save_file(some(), tmp_path / "file.safetensors")
    with pytest.raises(Damaged, match="not as it was written"):
        read_tensors(tmp_path / "file.safetensors")


def test_the_digest_is_of_names_types_shapes_and_values():
    flat = torch.arange(12.0)
    digests = [
        digest_of_tensors({"a": flat}),
        digest_of_tensors({"b": flat}),
        digest_of_tensors({"a": flat.double()}),
        digest_of_tensors({"a": flat.reshape(3, 4)}),
        digest_of_tensors({"a": flat + 1}),
    ]
    assert len(set(digests)) == len(digests)
    assert digest_of_tensors({"a": flat.reshape(3, 4).T.contiguous().T}) == digests[3], (
        "the memory layout does not count"
    )


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DdmError, match="HF_HOME says where the cache is") as caught:
        write_file(tmp_path / "file" / "inside", b"1")
    assert "\n" not in str(caught.value)


def _write_often(path: Path, seed: int) -> None:
    for _ in range(60):
        write_tensors(path, some(seed))


def test_two_processes_write_and_a_third_reads(tmp_path: Path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, some(0))
    digests = {digest_of_tensors(some(seed)) for seed in (0, 1)}
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, seed)) for seed in (0, 1)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = read_tensors(path)
        assert found is not None and digest_of_tensors(found) in digests
    assert [writer.exitcode for writer in writers] == [0, 0]


def test_trim_keeps_what_was_used_last(tmp_path: Path):
    for number in range(4):
        write_file(tmp_path / f"folder-{number}" / "file", b"x" * 100)
        os.utime(tmp_path / f"folder-{number}" / "file", (number, number))
    trim(tmp_path, 250)
    assert sorted(each.parent.name for each in tmp_path.rglob("file")) == ["folder-2", "folder-3"]
    trim(tmp_path / "absent", 0)


def test_reading_counts_as_use(tmp_path: Path):
    write_tensors(tmp_path / "old.safetensors", some())
    os.utime(tmp_path / "old.safetensors", (1, 1))
    read_tensors(tmp_path / "old.safetensors")
    assert (tmp_path / "old.safetensors").stat().st_mtime > 1e9


def test_the_cache_is_the_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path))
    assert cache_folder("data") == tmp_path / "ddm" / "data" / "default"
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DdmError, match=r"cannot make the cache folder: .*; HF_HOME says where it is"):
        cache_folder("data")
