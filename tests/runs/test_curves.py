from pathlib import Path

import pytest
from PIL import Image

from ddm.runs.curves import draw_loss, smooth


def test_smoothing_neither_lags_nor_changes_a_line():
    line = [float(i) for i in range(1000)]
    assert smooth(line)[100:900] == pytest.approx(line[100:900])
    assert smooth([1.0, 5.0]) == [1.0, 5.0]
    noisy = [(-1.0) ** i for i in range(1000)]
    assert max(abs(value) for value in smooth(noisy)[50:-50]) < 0.1


def test_the_curve_is_a_picture_where_there_is_something_to_draw(tmp_path: Path):
    records = [{"step": i, "loss": 1 / i, "lr": 1} for i in range(1, 50)] + [{"step": 50, "loss": float("nan")}]
    draw_loss(records, tmp_path / "loss.png", title="a title")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (960, 540)
    draw_loss(records[:1], tmp_path / "none.png", title="too short")
    assert not (tmp_path / "none.png").exists()
