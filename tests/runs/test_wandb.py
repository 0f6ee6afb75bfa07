"""Weights & Biases: the real package offline, and what it is given; nothing is ever sent or asked."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.errors import RequestError
from ddm.images import grid, save_png
from ddm.runs.trackers import PROJECT, Trackers, Wandb, open_trackers

CONFIG = {"network": "unet(dim=64)", "train": {"lr": 1e-4, "ema": ["constant(decay=0.99)"]}}
PICTURES = torch.randint(0, 256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def opened(folder: Path, *choices: str, say=lambda line: None) -> Trackers:
    folder.mkdir(exist_ok=True)
    return open_trackers(choices, folder=folder, name="my-run", config=CONFIG, say=say)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A user who has never heard of W&B: no settings, no key, no variables but the suite's."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DISABLE_GIT", "true")
    for name in ("CACHE", "DATA", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home))
    yield monkeypatch
    wandb.teardown()


def records(folder: Path) -> list[Any]:
    """Everything in an offline run's file: LevelDB's log format behind 7 bytes of W&B's own."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    wandb.teardown()  # run.finish() returns before the file is written to its end; the end of a process waits for this
    (path,) = folder.glob("*.wandb")
    data, at, found, parts = path.read_bytes(), 7, [], b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block that has no room for a header
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    rows = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item} for row in rows]


def offline_runs(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*"))


def test_wandb_offline_keeps_what_was_logged(tmp_path, bare):
    bare.setenv("WANDB_MODE", "offline")
    said, run = [], tmp_path / "run"
    tracker = opened(run, "wandb", say=said.append)
    sheet = grid(PICTURES)
    save_png(tmp_path / "a.png", sheet, text={"parameters": "Steps: 18"})
    tracker.log({"train/loss": 0.5, "train/lr": 1e-4}, 10)
    tracker.image("samples", tmp_path / "a.png", 10)
    tracker.log({"train/loss": 0.25}, 20)
    tracker.image("tensor", sheet, 20)
    tracker.close()
    assert said == []
    (place,) = offline_runs(run)
    first, second = history(place)
    assert (first["_step"], first["train/loss"], first["train/lr"]) == (10, 0.5, 1e-4)
    assert (second["_step"], second["train/loss"]) == (20, 0.25)
    assert (place / "files" / first["samples/path"]).read_bytes() == (tmp_path / "a.png").read_bytes()
    assert second["tensor/format"] == "png"
    assert (np.asarray(Image.open(place / "files" / second["tensor/path"])) == sheet.permute(1, 2, 0).numpy()).all()
    (about,) = [each.run for each in records(place) if each.WhichOneof("record_type") == "run"]
    assert (about.project, about.display_name, about.entity) == (PROJECT, "my-run", "")
    assert {item.key: json.loads(item.value_json) for item in about.config.update}.items() >= CONFIG.items()
    assert json.loads((run / "wandb.json").read_bytes()) == {"format": 1, "id": about.run_id}


def test_wandb_goes_on_with_the_same_run_in_a_fresh_folder(tmp_path, bare):
    bare.setenv("WANDB_MODE", "offline")
    for step in (1, 2):
        tracker = opened(tmp_path, "wandb")
        tracker.log({"train/loss": float(step)}, step)
        tracker.close()
    known = json.loads((tmp_path / "wandb.json").read_bytes())["id"]
    places = offline_runs(tmp_path)
    assert len(places) == 2
    assert all(known in place.name for place in places)
    assert [row["_step"] for place in places for row in history(place)] == [1, 2]


class FakeRun:
    """Stands for wandb.init: nothing is sent, everything is remembered."""

    disabled, starting_step = False, 0
    started: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **given):
        self.started.append(given)
        self.id, self.logged = given.get("id", "new-id"), []

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        pass


@pytest.fixture
def fake(bare):
    import wandb

    bare.setattr(FakeRun, "started", [])
    bare.setattr(wandb, "init", FakeRun)
    return bare


def test_wandb_is_given_only_what_the_user_left_open(tmp_path, fake):
    fake.setenv("WANDB_API_KEY", "x" * 40)
    opened(tmp_path, "wandb")
    opened(tmp_path, "wandb(project='mine', entity='us', mode='offline')")
    common = {"name": "my-run", "config": CONFIG, "dir": str(tmp_path)}
    assert FakeRun.started == [
        common | {"project": PROJECT},
        common | {"project": "mine", "entity": "us", "mode": "offline", "id": "new-id", "resume": "allow"},
    ]


def test_the_user_s_environment_wins(tmp_path, fake):
    for name in ("PROJECT", "ENTITY", "DIR", "NAME", "RUN_ID", "MODE"):
        fake.setenv(f"WANDB_{name}", {"MODE": "offline", "DIR": str(tmp_path)}.get(name, "theirs"))
    (tmp_path / "wandb.json").write_text('{"id": "ours"}')
    opened(tmp_path, "wandb")
    (given,) = FakeRun.started
    assert not given.keys() & {"entity", "dir", "mode", "id", "resume"}
    assert (given["project"], given["name"]) == ("theirs", "theirs")


@pytest.mark.parametrize("key", ["WANDB_API_KEY", "netrc", "NETRC"])
def test_with_a_key_wandb_is_left_alone(tmp_path, fake, key):
    if key == "WANDB_API_KEY":
        fake.setenv(key, "x" * 40)
    else:
        path = tmp_path / "home" / ".netrc" if key == "netrc" else tmp_path / "elsewhere"
        path.write_text(f"machine api.wandb.ai\n  login user\n  password {'x' * 40}\n")
        path.chmod(0o600)
        if key == "NETRC":
            fake.setenv(key, str(path))
    said = []
    opened(tmp_path, "wandb", say=said.append)
    assert "mode" not in FakeRun.started[0]
    assert said == []


@pytest.mark.parametrize("netrc", [None, "machine github.com\n  login a\n  password b\n", "not a netrc at all {"])
def test_without_a_key_wandb_stays_offline_and_asks_nothing(tmp_path, fake, netrc):
    if netrc is not None:
        (tmp_path / "home" / ".netrc").write_text(netrc)
        (tmp_path / "home" / ".netrc").chmod(0o600)
    said = []
    opened(tmp_path, "wandb", say=said.append)
    assert FakeRun.started[0]["mode"] == "offline"
    assert said == ["wandb has no API key (wandb login): it keeps its records offline; wandb sync sends them"]


def test_going_online_without_a_key_is_a_wrong_request(tmp_path, fake):
    for choice in ("wandb(mode='online')", "wandb"):
        with pytest.raises(RequestError, match="trackers: wandb: mode 'online' needs an API key; run wandb login"):
            opened(tmp_path, "tensorboard", choice)
        fake.setenv("WANDB_MODE", "online")
    assert FakeRun.started == []


def test_wandb_without_a_network_goes_on_offline(tmp_path, fake):
    import wandb
    from wandb.errors import CommError

    def init(**given):
        if given.get("mode") != "offline":
            raise CommError("timed out\nConsider this and that")
        return FakeRun(**given)

    fake.setattr(wandb, "init", init)
    fake.setenv("WANDB_API_KEY", "x" * 40)
    said = []
    opened(tmp_path, "wandb", say=said.append)
    assert said == ["wandb cannot go online (CommError: timed out); it goes on offline"]
    assert FakeRun.started[0]["mode"] == "offline"


def test_wandb_is_not_told_twice_what_it_knows(tmp_path, fake):
    fake.setattr(FakeRun, "starting_step", 7)
    tracker = opened(tmp_path, "wandb(mode='offline')")
    for step in (5, 6, 7, 8):
        tracker.log({"train/loss": 0.0}, step)
    (member,) = tracker._members.values()
    assert isinstance(member, Wandb)
    assert [step for step, _ in member._run.logged] == [7, 8]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 3}', "\xff"])
def test_a_damaged_wandb_json_means_a_new_run(tmp_path, fake, text):
    (tmp_path / "wandb.json").write_text(text)
    opened(tmp_path, "wandb(mode='offline')")
    assert "id" not in FakeRun.started[0]
    assert json.loads((tmp_path / "wandb.json").read_bytes()) == {"format": 1, "id": "new-id"}


def test_a_disabled_wandb_keeps_nothing(tmp_path, bare):
    tracker = opened(tmp_path / "run", "wandb(mode='disabled')")
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close()
    assert os.listdir(tmp_path / "run") == []
