"""What was logged is found in the real files of the real packages; whatever a tracker does, the run goes on."""

import io
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.errors import RequestError
from ddm.images import grid, save_png
from ddm.runs.trackers import Trackers, check_trackers, open_trackers, trackers

CONFIG = {"network": "unet(dim=64)", "train": {"lr": 1e-4, "ema": ["constant(decay=0.99)"]}}
PICTURES = torch.randint(0, 256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def opened(folder: Path, *choices: str, say=lambda line: None, step: int | None = None) -> Trackers:
    folder.mkdir(exist_ok=True)
    return open_trackers(choices, folder=folder, name="my-run", config=CONFIG, say=say, step=step)


class Breaks:
    """A tracker whose every method may raise."""

    def __init__(self, *, on: str = "", error: BaseException | None = None):
        self.on, self.error, self.calls = on, error or OSError("no route\nto host"), []

    def _called(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        if name == self.on:
            raise self.error

    def log(self, values, step):
        self._called("log", dict(values), step)

    def image(self, name, picture, step):
        self._called("image", name, step)

    def close(self):
        self._called("close")


def test_no_trackers_are_trackers_too(tmp_path):
    said = []
    none = open_trackers((), folder=tmp_path / "nowhere", name="", config={}, say=said.append)
    none.log({"train/loss": 1.0}, 1)
    none.image("samples", PICTURES[0], 1)
    none.close()
    assert said == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["log", "image", "close"])
def test_a_tracker_that_raises_is_dropped_and_reported_once(method):
    said = []
    good, bad, last = Breaks(), Breaks(on=method), Breaks()
    both = Trackers({"good": good, "bad(x=1)": bad, "last": last}, said.append)
    for step in (1, 2):
        both.log({"train/loss": 0.5}, step)
        both.image("samples", PICTURES[0], step)
    both.close()
    both.close()
    assert said == ["bad(x=1) failed and is told no more (OSError: no route to host); the run goes on"]
    everything = [("log", {"train/loss": 0.5}, 1), ("image", "samples", 1), ("log", {"train/loss": 0.5}, 2)]
    everything += [("image", "samples", 2), ("close",)]
    assert good.calls == last.calls == everything
    names = [call[0] for call in bad.calls]
    assert names == {"log": ["log", "close"], "image": ["log", "image", "close"]}.get(
        method, ["log", "image", "log", "image", "close", "close"]
    )


def test_a_signal_is_not_a_tracker_s_failure():
    broken = Trackers({"bad": Breaks(on="log", error=KeyboardInterrupt())}, print)
    with pytest.raises(KeyboardInterrupt):
        broken.log({}, 1)


def test_a_tracker_that_cannot_be_opened_is_reported(tmp_path, monkeypatch):
    def refuses(*, folder, name, config, step, say):
        raise ConnectionError("nobody there")

    monkeypatch.setitem(trackers._parts, "refuses", refuses)
    monkeypatch.setitem(trackers._parts, "breaks", lambda *, folder, name, config, step, say: Breaks())
    said = []
    both = opened(tmp_path, "refuses", "breaks", say=said.append)
    assert said == ["refuses failed and is told no more (ConnectionError: nobody there); the run goes on"]
    assert list(both._members) == ["breaks"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("wandbb", "trackers: 'wandbb' is unknown (did you mean 'wandb'?); allowed: tensorboard, wandb"),
        ("wandb(projekt='x')", "trackers: option of wandb: 'projekt' is unknown"),
        ("wandb(folder='x')", "trackers: option of wandb: 'folder' is unknown"),
        ("wandb(mode='never')", "trackers: wandb(mode='never'): mode must be 'online', 'offline' or 'disabled'"),
        ("tensorboard(x=1)", "trackers: option of tensorboard: 'x' is unknown"),
    ],
)
def test_wrong_choices_are_refused_before_any_is_opened(tmp_path, choice, message):
    for act in (lambda: check_trackers(["tensorboard", choice]), lambda: opened(tmp_path, "tensorboard", choice)):
        with pytest.raises(RequestError) as caught:
            act()
        assert str(caught.value).startswith(message)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("package", ["wandb", "tensorboard"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError) as caught:
        opened(tmp_path, package)
    assert (
        str(caught.value) == f'trackers: {package} needs {package}: pip install "denoising-diffusion-model[{package}]"'
    )


def test_a_folder_of_old_records_is_not_the_package(tmp_path, monkeypatch):
    """./wandb, where W&B keeps records, can be imported wherever the package is not installed."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name == "wandb" or name.startswith("wandb.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(RequestError, match="pip install"):
        check_trackers(["wandb"])


def test_options_as_they_are_listed():
    assert [trackers.signature(name) for name in trackers] == [
        "tensorboard",
        "wandb(project=None, entity=None, mode=None)",
    ]


def read_events(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_tensorboard_shows_what_was_logged(tmp_path):
    said = []
    tracker = opened(tmp_path / "my run", "tensorboard", say=said.append)
    sheet = grid(PICTURES)
    save_png(tmp_path / "a.png", sheet)
    for step in (10, 20):
        tracker.log({"train/loss": 1 / step, "train/lr": 1e-4}, step)
    tracker.log({"train/loss": math.nan}, 30)
    tracker.image("samples", tmp_path / "a.png", 20)
    tracker.image("gray", sheet[:1], 20)
    tracker.close()
    place = tmp_path / "my run" / "tensorboard"
    assert said == [f"tensorboard --logdir '{place}'"]
    events = read_events(place)
    losses = [(each.step, each.value) for each in events.Scalars("train/loss")]
    assert losses[:2] == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))]
    assert losses[2][0] == 30
    assert math.isnan(losses[2][1])
    assert len(events.Scalars("train/lr")) == 2
    assert (pixels(events.Images("samples")[0].encoded_image_string) == sheet.permute(1, 2, 0).numpy()).all()
    assert (pixels(events.Images("gray")[0].encoded_image_string)[..., 0] == sheet[0].numpy()).all()
    assert "config/text_summary" in events.Tags()["tensors"]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path):
    first = opened(tmp_path, "tensorboard", step=0)
    for step in (1, 2, 3, 4):
        first.log({"train/loss": float(step)}, step)
    first.close()
    second = opened(tmp_path, "tensorboard", step=2)
    for step in (3, 4, 5):
        second.log({"train/loss": step + 100.0}, step)
    second.close()
    found = [(each.step, each.value) for each in read_events(tmp_path / "tensorboard").Scalars("train/loss")]
    assert found == [(1, 1.0), (2, 2.0), (3, 103.0), (4, 104.0), (5, 105.0)]
