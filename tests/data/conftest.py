"""Small picture files to read, and a cache of their own to read them into."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddm.data import ImageSet, get_data


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ImageSet]:
    """``get_data`` with a cache of this test's own."""
    return functools.partial(get_data, cache=tmp_path / "cache")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with twelve different 8x8 PNGs in three sub-folders, and things that are no pictures."""
    root = tmp_path / "pictures"
    for number in range(12):
        path = root / ("cat", "ant", "bee")[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    (root / "readme.txt").write_text("no picture")
    (root / "ant" / ".hidden.png").write_text("no picture")
    (root / ".DS_Store").write_bytes(b"\0\0")
    (root / ".git").mkdir()
    (root / ".git" / "x.png").write_text("no picture")
    return root


@pytest.fixture
def cifar10() -> Path:
    """The folder of the real thing, where this machine has it."""
    path = Path(os.environ.get("DDM_DATA", "/nowhere"), "cifar10")
    if not path.is_dir():
        pytest.skip("DDM_DATA names no folder with cifar10")
    return path
