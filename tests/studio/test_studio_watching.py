"""The Watch tab without a browser: a log that is cut, torn, replaced or very long, and a training that is under way."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddm.errors import RequestError
from ddm.images import save_png
from ddm.runs import log
from ddm.runs.config import override
from ddm.runs.folder import dump_config, move_aside
from ddm.runs.recipes import recipes

pytest.importorskip("gradio")
import gradio as gr

from ddm.commands.studio import following, screen, watching
from ddm.commands.studio.following import History, Tail, curve
from ddm.commands.studio.runlist import Runs
from ddm.commands.studio.screen import charts, head
from ddm.commands.studio.watch import Watching
from ddm.commands.studio.watching import Watched, told

NOW = 1_800_000_000.0
TINY = {"network": "unet(dim=8, dim_mults=(1, 2))", "image_size": 16, "train.steps": 1000, "every.log": 10}
SMALL = ["--network", TINY["network"], "--image-size", "16", "--batch-size", "4", "--sample.count", "4"]


def record(step: int, **changes: Any) -> dict[str, Any]:
    """A line of metrics.jsonl: two seconds a record."""
    found = {"step": step, "images": step * 8, "loss": 1 / step, "gradient_norm": 0.5, "lr": 1e-3, "skipped": 0}
    return found | {"images_per_second": 40.0, "memory_gb": 0.1, "time": NOW - 500 + step / 5} | changes


def write(path: Path, *records: dict[str, Any]) -> None:
    for each in records:
        log.append(path, each)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as training leaves one after 100 of 1,000 steps."""
    path = tmp_path / "runs" / "cats"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(dump_config(override(recipes["shapes"](), TINY)))
    write(path / "metrics.jsonl", *(record(step) for step in range(10, 101, 10)))
    return path


def watched_at(path: Path) -> Watched:
    found = Watched(path.name, path)
    found.refresh()
    return found


def quiet(path: Path, seconds: float) -> None:
    """Let the last sign of life be so long ago."""
    for each in (path, *path.rglob("*")):
        os.utime(each, (NOW - seconds, NOW - seconds))


# --- reading what is appended


def all_lines(tail: Tail) -> list[str]:
    return [line for piece in tail.read() for line in piece.lines]


def test_each_line_is_read_once_and_a_torn_one_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    tail = Tail(path)
    assert all_lines(tail) == [], "there is no file yet"
    path.write_bytes(b"one\ntwo\nthr")
    assert all_lines(tail) == ["one", "two"]
    assert all_lines(tail) == []
    path.write_bytes(b"one\ntwo\nthree\n")
    assert all_lines(tail) == ["three"]


@pytest.mark.parametrize("chunk", [1, 3, 7, 4096])
def test_lines_do_not_depend_on_how_much_is_read_at_a_time(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "CHUNK", chunk)
    lines = [f"line {number} {'ä' * (number % 5)}" for number in range(50)]
    (tmp_path / "a").write_text("\n".join(lines) + "\ntorn", encoding="utf-8")
    assert all_lines(Tail(tmp_path / "a")) == lines


def test_a_line_without_end_is_given_up_and_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "CHUNK", 64)
    monkeypatch.setattr(following, "LONGEST", 256)
    (tmp_path / "a").write_bytes(b"one\n" + b"x" * 100_000)
    assert all_lines(Tail(tmp_path / "a")) == ["one"]


def change(path: Path, step: int, choice: random.Random) -> int:
    """What may happen to a log between two looks; the step at which it goes on."""
    kind = choice.choice(["append", "append", "append", "tear", "cut", "replace", "remove", "garble"])
    if kind == "append":
        count = choice.randint(1, 40)
        write(path, *(record(step + 10 * number, time=choice.random()) for number in range(1, count + 1)))
        return step + 10 * count
    if kind == "tear" and path.exists():
        with path.open("ab") as file:
            file.write(b'{"step": 99999, "lo')
    if kind == "garble" and path.exists():
        with path.open("ab") as file:
            file.write(b'\xff\x00 no record\n[1]\n{"step": "x"}\n')
    if kind == "cut" and path.exists():
        step = choice.randrange(0, step + 1, 10)
        kept = [each for each in map(parsed, path.read_bytes().split(b"\n")[:-1]) if each and each["step"] <= step]
        path.unlink()
        write(path, *kept)
    if kind in ("replace", "remove"):
        path.unlink(missing_ok=True)
        step = 0
    if kind == "replace":
        write(path, record(10, time=choice.random()))
        return 10
    return step


def parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_to_a_log_what_was_followed_is_what_stands_there(seed: int, tmp_path: Path):
    path, choice, step = tmp_path / "metrics.jsonl", random.Random(seed), 0
    followed = History(path)
    for _ in range(60):
        step = change(path, step, choice)
        followed.refresh()
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        expected = [each for each in map(parsed, lines) if each]
        assert followed.column("step").tolist() == [each["step"] for each in expected]
        assert followed.column("time").tolist() == [each["time"] for each in expected]
        assert followed.unreadable == len(lines) - len(expected)


def test_steps_that_go_back_take_what_came_after_them_away(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    write(path, *(record(step) for step in (10, 20, 30, 40)))
    followed = History(path)
    followed.refresh()
    write(path, *(record(step, loss=7.0) for step in (20, 30)))
    followed.refresh()
    assert followed.column("step").tolist() == [10, 20, 30]
    assert followed.column("loss").tolist() == [0.1, 7, 7]
    fresh = History(path)
    fresh.refresh()
    assert np.array_equal(fresh.column("step"), followed.column("step")), "read at once it is the same"


def test_what_is_not_finite_is_kept_as_such_and_what_is_no_number_is_not(tmp_path: Path):
    write(
        tmp_path / "m",
        record(10, loss=float("nan")),
        record(20, loss=float("inf")),
        {"step": 30, "loss": "a", "lr": []},
    )
    found = History(tmp_path / "m")
    found.refresh()
    assert np.array_equal(found.column("loss"), [np.nan, np.inf, np.nan], equal_nan=True)
    assert found.last("loss") is None and found.last("lr") is None and found.last("step") == 30
    assert len(curve(found.column("step"), found.column("loss"), points=5).step) == 0


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200,000 records."""
    path = tmp_path_factory.mktemp("long") / "long"
    path.mkdir()
    (path / "config.yaml").write_text(dump_config(override(recipes["shapes"](), TINY | {"train.steps": 3_000_000})))
    with (path / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps(record(10 * number)) + "\n" for number in range(1, 200_001))
    return path


def spent(work: Callable[[], object]) -> float:
    """Seconds of a processor, so that a busy machine makes no difference."""
    started = time.process_time()
    work()
    return time.process_time() - started


def test_a_log_of_200_000_records_is_followed_in_milliseconds(long: Path):
    found = Watched("long", long)
    assert spent(found.refresh) < 6, "once"
    assert len(found.history) == 200_000 and found.state().word == "training"

    def look() -> None:
        found.refresh()
        screen.head(found)
        screen.charts(found)

    look()
    assert min(spent(look) for _ in range(3)) < 0.15, "every two seconds"
    write(long / "metrics.jsonl", record(2_000_010))
    assert spent(found.refresh) < 0.05
    assert len(found.history) == 200_001


def test_a_long_log_is_drawn_with_few_points(long: Path):
    found = watched_at(long)
    drawn = found.curve("loss")
    assert len(drawn.step) == watching.POINTS
    losses = found.history.column("loss")
    assert drawn.low.min() == losses.min() and drawn.high.max() == losses.max()
    sizes = np.diff(np.linspace(0, len(losses), watching.POINTS + 1).astype(int))
    assert (drawn.value * sizes).sum() / len(losses) == pytest.approx(losses.mean())
    assert len(screen.head(found)) + len(screen.charts(found)) < 150_000


# --- how a run is


def test_it_waits_for_a_run_that_begins_later(tmp_path: Path, run: Path):
    later = Watched("later", tmp_path / "later")
    later.refresh()
    assert later.state().word == "waiting" and "has not begun" in later.state().message
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    later.refresh()
    assert later.state().message == "It has begun; its first record comes after 10 steps."
    assert "begin" in screen.charts(later) and screen.head(later) and told(later)["loss"] is None
    write(tmp_path / "later" / "metrics.jsonl", record(10))
    later.refresh()
    assert later.state().word == "training" and later.step == 10


def test_a_silent_run_is_stopped_and_a_lively_one_in_training(run: Path):
    quiet(run, 30)
    assert watched_at(run).state(NOW).word == "training"
    quiet(run, 90)
    state = watched_at(run).state(NOW)
    assert (state.word, state.message) == (
        "stopped",
        "Stopped at step 100; nothing was saved. The same command begins again.",
    )
    (run / "checkpoints" / "000080").mkdir(parents=True)
    quiet(run, 90)
    assert watched_at(run).state(NOW).message == "Stopped at step 100; saved at step 80. The same command goes on."


def test_a_run_whose_records_take_long_is_not_given_up_at_once(run: Path):
    (run / "metrics.jsonl").unlink()
    write(run / "metrics.jsonl", *(record(step, time=NOW - 3000 + step * 6) for step in range(10, 101, 10)))
    quiet(run, 500)
    assert watched_at(run).state(NOW).word == "training", "a record a minute"
    quiet(run, 700)
    assert watched_at(run).state(NOW).word == "stopped"


def test_a_finished_and_a_diverged_run_say_so(run: Path):
    write(run / "metrics.jsonl", record(110, loss=float("nan"), gradient_norm=float("nan"), skipped=10))
    quiet(run, 90)
    state = watched_at(run).state(NOW)
    assert state.word == "diverged" and "not finite" in state.message and "step 110" in state.message
    write(run / "metrics.jsonl", record(1000, skipped=10))
    assert watched_at(run).state(NOW).word == "finished"


def test_a_run_without_a_log_is_shown_as_it_was_saved(run: Path):
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints" / "000100").mkdir(parents=True)
    found = watched_at(run)
    assert found.state(NOW).message == "Saved at step 100; the log of its training is not here."
    assert "Saved at step 100" in head(found) and "begin with the second record" in charts(found)
    assert told(found)["state"] == "stopped"


def test_skipped_steps_are_told_while_it_goes_on(run: Path):
    write(run / "metrics.jsonl", record(110, skipped=3))
    assert "3 steps were not finite" in watched_at(run).state().message


def test_the_time_left_is_that_of_the_pace(run: Path):
    found = watched_at(run)
    assert found.pace == pytest.approx(0.2) and found.left == pytest.approx(900 * 0.2)
    write(run / "metrics.jsonl", record(110, time=NOW + 100_000))
    found.refresh()
    assert found.pace == pytest.approx(0.2), "a night's break is no pace"


def test_a_run_moved_aside_is_followed_where_it_begins_anew(run: Path):
    runs = Runs({}, run.parent)
    found = runs.get("cats")
    found.refresh()
    settings = (run / "config.yaml").read_bytes()
    aside = move_aside(run)
    found.refresh()
    assert found.state().word == "waiting" and not len(found.history)
    run.mkdir()
    (run / "config.yaml").write_bytes(settings)
    write(run / "metrics.jsonl", record(10, loss=5.0))
    found.refresh()
    assert found.history.column("loss").tolist() == [5.0]
    assert runs.names == ["cats", aside.name] and runs.get("cats") is found


def test_a_run_that_resumes_loses_what_it_had_written_since_its_checkpoint(run: Path):
    found = watched_at(run)
    log.truncate(run / "metrics.jsonl", after_step=50)
    write(run / "metrics.jsonl", *(record(step, loss=9.0, time=NOW + step) for step in range(60, 131, 10)))
    found.refresh()
    assert found.history.column("step").tolist() == list(range(10, 131, 10))
    assert found.history.column("loss").tolist()[5:] == [9.0] * 8


def test_unreadable_settings_and_evaluations_are_no_failure(run: Path):
    (run / "config.yaml").write_text("format: [")
    (run / "evaluations.jsonl").write_text("no record\n")
    found = watched_at(run)
    assert found.total is None and found.left is None and found.evaluations == []
    assert told(found)["total"] is None and "100" in screen.head(found) and screen.numbers(found)


def evaluation(step: int, value: float) -> dict[str, Any]:
    """A line of evaluations.jsonl."""
    protocol = {"reference": "shapes", "reference_digest": "a", "n_real": 100, "n_fake": 50, "first_seed": 0}
    protocol |= {"features": "f", "features_digest": "b", "resize": "none", "pictures": "16x16x3", "rounding": "uint8"}
    found = {"by": "train", "step": step, "weights": "ema", "metric": "fid", "label": "FD [f]", "value": value}
    found |= {"low": value - 1, "high": value + 1, "better": "lower", "details": {}, "warnings": []}
    return found | {"protocol": protocol, "protocol_digest": "c", "time": NOW}


def test_distances_are_drawn_and_the_newest_number_told(run: Path):
    write(run / "evaluations.jsonl", evaluation(50, 80.0), evaluation(100, 40.0))
    found = watched_at(run)
    facts = told(found)
    assert facts["distances"] == {"FD [f]": {"step": [50, 100], "value": [80, 40], "low": [79, 39], "high": [81, 41]}}
    assert [each["step"] for each in facts["evaluations"]] == ["100"]
    assert "FD [f] from step 50 to 100: 80 at first, 40 now, 40 at least; lower is better" in screen.charts(found)
    assert "<td>40.0</td>" in screen.numbers(found)


def test_all_that_is_told_is_plain_json(run: Path):
    write(run / "metrics.jsonl", record(110, loss=float("nan"), lr=float("inf")))
    text = json.dumps(told(watched_at(run)), allow_nan=False)
    assert str(run) not in text and json.loads(text)["curves"]["loss"]["step"] == list(range(10, 101, 10))


# --- the film


def test_pictures_are_the_very_files_and_one_that_is_being_written_is_not_there_yet(run: Path):
    for step in (50, 100):
        save_png(run / "samples" / f"{step:06d}.png", torch.randint(0, 256, (3, 67, 67), dtype=torch.uint8))
    found, whole = watched_at(run), (run / "samples" / "000100.png").read_bytes()
    assert found.frames == [50, 100]
    assert found.frame(0) == found.frame(2) == (100, whole)
    assert found.frame(1) == (50, (run / "samples" / "000050.png").read_bytes())
    for cut in (0, 7, 40, len(whole) - 1):
        (run / "samples" / "000100.png").write_bytes(whole[:cut])
        assert found.frame(0) == found.frame(1) and found.frame(2) is None
    (run / "samples" / "000050.png").unlink()
    assert found.frame(0) is None and "No pictures yet" in screen.frame(found, 0)


@pytest.mark.parametrize("number", [-1, 3, 2.5, "1", None, True, float("nan")])
def test_pictures_that_there_are_not_are_refused(run: Path, actions: Watching, number: Any):
    for step in (50, 100):
        save_png(run / "samples" / f"{step:06d}.png", torch.zeros(3, 9, 9, dtype=torch.uint8))
    with pytest.raises(RequestError, match="number: .* allowed: (a whole number from )?0 to"):
        actions.watch_frame("cats", number)


def test_pixels_of_the_film_stay_square(run: Path):
    """At image_size 16 training enlarges by 4: a sheet of 2 x 2 is 35 pixels wide, drawn as 140."""
    save_png(run / "samples" / "000050.png", torch.zeros(3, 140, 140, dtype=torch.uint8))
    assert "--wide: 525px; --narrow: 280px" in screen.frame(watched_at(run), 0)


# --- the tab


@pytest.fixture
def actions(run: Path) -> Watching:
    return Watching(Runs({}, run.parent))


@pytest.mark.parametrize("name", ["dogs", "../cats", "/etc", "", None, 3, ["cats"], "cats/../cats"])
def test_runs_are_taken_from_the_list_alone(actions: Watching, name: Any, tmp_path: Path):
    for action in (actions.watch, actions.watch_frame):
        with pytest.raises(RequestError, match="run: .* is unknown.*allowed: cats") as caught:
            action(name)
        assert str(tmp_path) not in str(caught.value)


def test_runs_that_appear_are_found_and_those_given_stay(run: Path, tmp_path: Path):
    runs = Runs({"mine": run / "checkpoints" / "000080"}, run.parent)
    assert runs.names == ["mine"], "it is one run, by the name it was given"
    (run.parent / "dogs").mkdir()
    assert runs.names == ["mine"], "not yet a run"
    (run.parent / "dogs" / "config.yaml").write_text("format: 1")
    assert runs.names == ["mine", "dogs"]
    assert Runs({"mine": run}).names == ["mine"] and Runs({}, tmp_path / "nowhere").names == []
    assert runs.liveliest == "mine"


def skipped(value: Any) -> bool:
    return value == gr.skip()


def test_the_page_changes_only_where_something_changed(actions: Watching, run: Path):
    names, head, charts, _, frame, numbers, seen = actions.page(None, 1, {})
    assert names.value == "cats" and ">training<" in head
    assert "Learning rate" in charts and "No pictures yet" in frame and "Nothing was measured" in numbers
    *parts, same = actions.page("cats", 1, seen)
    assert all(map(skipped, parts)) and same == seen
    write(run / "metrics.jsonl", record(110))
    save_png(run / "samples" / "000110.png", torch.zeros(3, 9, 9, dtype=torch.uint8))
    names, head, charts, slider, frame, numbers, seen = actions.page("cats", 1, seen)
    assert [skipped(each) for each in (names, head, charts, slider, frame, numbers)] == [True, *[False] * 4, True]
    assert "110" in head and "Step 110" in frame


def test_who_looks_at_an_earlier_picture_keeps_it_and_who_looks_at_the_newest_follows(actions: Watching, run: Path):
    for step in (10, 20, 30):
        save_png(run / "samples" / f"{step:06d}.png", torch.zeros(3, 9, 9, dtype=torch.uint8))
    *_, seen = actions.page("cats", 1, {})
    assert seen["number"] == 3
    save_png(run / "samples" / "000040.png", torch.ones(3, 9, 9, dtype=torch.uint8))
    assert "Step 40" in actions.turned("cats", 99) and "Step 10" in actions.turned("cats", 1)
    *_, stays = actions.page("cats", 2, seen)
    *_, follows = actions.page("cats", 3, seen)
    assert stays["number"] == 2 and follows["number"] == 4


def test_a_page_without_runs_says_how_to_get_one(tmp_path: Path):
    names, head, *_ = Watching(Runs({}, tmp_path)).page(None, 1, {})
    assert names.choices == [] and "ddm train shapes" in head


# --- a training that is under way


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """ddm train shapes, as a process of its own."""
    code = "import sys; from ddm.cli import main; sys.exit(main())"
    settings = ["--runs", str(tmp_path / "runs"), "--name", "live", "--device", "cpu", *SMALL, "--steps", "100000"]
    every = ["--every.log", "2", "--every.sample", "10", "--every.save", "1000", "--sample.steps", "2"]
    command = [sys.executable, "-c", code, "train", "shapes", *settings, *every]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def until(done: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


def test_a_training_in_another_process_is_followed_to_its_end(training: subprocess.Popen, tmp_path: Path):
    folder = tmp_path / "runs"
    actions = Watching(Runs({}, folder))
    assert actions.watch_runs() == []
    until(lambda: actions.watch_runs() == ["live"])
    states = set()

    def look(least: int) -> bool:
        facts = actions.watch("live")
        states.add(facts["state"])
        return facts["records"] >= least and len(facts["frames"]) >= 2

    until(lambda: look(10))
    assert states <= {"waiting", "training"} and "training" in states
    facts = actions.watch("live")
    assert facts["images_per_second"] > 0 and facts["seconds_left"] > 0 and facts["total"] == 100_000
    assert 'src="data:image/png;base64,' in actions.watch_frame("live", 1)
    training.send_signal(signal.SIGINT)
    training.wait(60)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    facts = actions.watch("live")
    records = log.read(folder / "live" / "metrics.jsonl")
    assert facts["step"] == max(records[-1]["step"], facts["step"]) and facts["records"] == len(records)
    assert f"saved at step {facts['step']:,}" in facts["message"] or facts["state"] == "training"
    if watching.LOCKS.exists():
        assert facts["state"] == "stopped", "the lock is gone, so there is nothing to wait for"
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}, "it only reads"
