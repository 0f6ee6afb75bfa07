import gc
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from ddm.runs.curves import distances, draw, smooth


def test_smoothing_neither_lags_nor_changes_a_line():
    line = [float(i) for i in range(1000)]
    assert smooth(line)[100:900] == pytest.approx(line[100:900])
    assert smooth([1.0, 5.0]) == [1.0, 5.0]
    noisy = [(-1.0) ** i for i in range(1000)]
    assert max(abs(value) for value in smooth(noisy)[50:-50]) < 0.1


def test_the_curve_is_a_picture_where_there_is_something_to_draw(tmp_path: Path):
    records = [{"step": i, "loss": 1 / i, "lr": 1} for i in range(1, 50)] + [{"step": 50, "loss": float("nan")}]
    draw(records, [], tmp_path / "loss.png", title="a title")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (960, 540)
    draw(records[:1], [], tmp_path / "none.png", title="too short")
    assert not (tmp_path / "none.png").exists()


def test_a_long_training_keeps_no_figures(tmp_path: Path):
    def alive() -> int:
        return sum(type(each) is Figure for each in gc.get_objects())

    gc.collect()
    before = alive()
    for _ in range(8):
        draw([{"step": i, "loss": 1 / i} for i in range(1, 50)], [], tmp_path / "loss.png", title="again")
    assert alive() <= before + 2


def evaluation(step: int, value: float, **changes) -> dict:
    protocol = {"n_fake": 100, "n_real": 1000, "reference": "shapes"}
    record = {"by": "train", "step": step, "metric": "fid", "label": "FD [toy]", "value": value, "better": "lower"}
    record |= {"low": 0.9 * value, "high": 1.1 * value, "protocol": protocol, "protocol_digest": "a"}
    return record | changes


def test_a_distance_is_drawn_beside_the_loss(tmp_path: Path):
    records = [{"step": i, "loss": 1 / i, "lr": 1} for i in range(1, 50)]
    draw(records, [evaluation(10, 9.0), evaluation(20, 3.0)], tmp_path / "both.png", title="a title")
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.size == (1680, 540)


def test_a_curve_has_one_protocol_and_one_point_a_step():
    other = evaluation(15, 77.0, protocol_digest="b")
    again = evaluation(10, 8.0)
    mine = evaluation(20, 3.0)
    ((name, curve),) = distances([evaluation(10, 9.0), other, again, evaluation(5, 1.0, by="evaluate"), mine])
    assert name == "FD [toy]"
    assert [(each["step"], each["value"]) for each in curve] == [(10, 8.0), (20, 3.0)]
