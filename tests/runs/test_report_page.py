"""What a report says of a run, and what it must not say."""

import base64
import io
import json
import math
import re
import shlex
import tomllib
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from ddm.cli import main
from ddm.data import ImageSet
from ddm.images import grid, save_png
from ddm.metrics import Embedded
from ddm.metrics.memorisation import memorisation
from ddm.metrics.protocols import Protocol
from ddm.runs import closest as closest_module
from ddm.runs import log
from ddm.runs.anonymous import without_paths
from ddm.runs.closest import closest
from ddm.runs.config import Config, flatten, override
from ddm.runs.folder import Run, dump_config
from ddm.runs.inline import drawing, film, picture, sheet
from ddm.runs.numbers import drawable, read_numbers
from ddm.runs.progress import finish
from ddm.runs.recipes import recipes
from ddm.runs.repeating import grouped_settings, nearest_recipe, train_command
from ddm.runs.report import Report, duration, gather, render
from ddm.runs.training_film import cut, evenly, read_film
from pages import Page, check

# --- nothing of the machine


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ('folder(path="/home/anna/cats")', 'folder(path="…")'),
        ("folder(path='~/cats', labels=False)", "folder(path='…', labels=False)"),
        ('folder(path="/home/anna/my cats (2)")', 'folder(path="…")'),
        (r"arrays(path='C:\\Users\\anna\\x.npz')", "arrays(path='…')"),
        (r"arrays(path='\\\\server\\anna\\x.npz')", "arrays(path='…')"),
        ('parquet(path="../anna/x")', 'parquet(path="…")'),
        ('parquet(path="anna/x")', 'parquet(path="…")'),
        ('folder(path="cats")', 'folder(path="cats")'),
        ('hub(id="owner/name")', 'hub(id="owner/name")'),
        ('cifar10(split="test")', 'cifar10(split="test")'),
        ("cannot read /home/anna/x.png, 3 more", "cannot read …, 3 more"),
        ("see file:///home/anna/x", "see …"),
        ("~anna/x is gone", "… is gone"),
        ("120 images/s, 1/3 of 2 / 3", "120 images/s, 1/3 of 2 / 3"),
        ("unet(dim=64, dim_mults=(1, 2, 4, 8))", "unet(dim=64, dim_mults=(1, 2, 4, 8))"),
    ],
)
def test_paths_are_left_out_and_nothing_else(text: str, shared: str):
    assert without_paths(text) == shared


# --- settings and the command


CHANGES = {
    "data": "shapes(count=40)",
    "image_size": 16,
    "conditional": False,
    "sample.guidance": 1.0,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.betas": (0.8, 0.95),
    "train.ema": ("power(width=0.1)", "constant(decay=0.9)"),
    "train.flip": True,
    "train.lr": 1e-05,
    "keep.best": "loss",
    "evaluate.metrics": ("kid(pictures=5000)", "fid"),
}


@pytest.mark.parametrize("name", ["shapes", "edm"])
def test_the_command_gives_the_settings(name: str, capsys: pytest.CaptureFixture):
    config = override(recipes[name](), CHANGES)
    words = shlex.split(train_command(config, "a name"))
    assert words[0] == "ddm" and words[words.index("--name") + 1] == "a name"
    assert main([*words[1:], "--dry-run", "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out) == config.model_dump(mode="json")


def test_a_recipe_is_its_own_nearest_and_needs_no_change():
    for name in recipes:
        assert nearest_recipe(recipes[name]()) == name
        assert train_command(recipes[name](), "x") == f"ddm train {name} --name x"


def test_all_settings_are_there_and_the_changed_ones_marked():
    config = override(recipes["shapes"](), {"train.lr": 0.5, "keep.best": "loss"})
    rows = {row.field: row for group in grouped_settings(config).values() for row in group}
    assert rows.keys() == flatten(config.model_dump()).keys()
    assert {name for name, row in rows.items() if row.usual is not None} == {"train.lr", "keep.best"}
    assert (rows["train.lr"].value, rows["train.lr"].usual, rows["keep.best"].usual) == ("0.5", "0.003", "none")
    assert all(row.meaning for row in rows.values())


# --- pictures


def numbered(count: int, side: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (count, channels, side, side), generator=torch.Generator().manual_seed(count)).byte()


@pytest.mark.parametrize(("count", "side", "scale"), [(64, 32, 2), (16, 8, 8), (5, 8, 1), (1, 4, 3), (7, 100, 1)])
def test_a_grid_is_cut_into_what_it_was_made_of(count: int, side: int, scale: int):
    pixels = numbered(count, side)
    assert torch.equal(cut(grid(pixels, scale=scale), count, side), pixels)


def test_what_is_no_such_grid_is_not_cut():
    sheet_of_9 = grid(numbered(9, 8), scale=2)
    for count, side in ((16, 8), (4, 8), (9, 7), (9, 64)):
        assert cut(sheet_of_9, count, side) is None


def test_evenly_keeps_both_ends():
    for length in range(30):
        some = evenly(list(range(length)), 7)
        assert len(some) == min(length, 7) and some == sorted(set(some))
        assert some[:1] == list(range(length))[:1] and some[-1:] == list(range(length))[-1:]


def decoded(uri: str) -> list[np.ndarray]:
    kind, data = uri.split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return [np.array(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_kept_bit_for_bit_and_gaps_are_transparent(channels: int):
    pixels = numbered(3, 5, channels)
    (found,) = decoded(picture(sheet(pixels, columns=2), "words").uri)
    assert found.shape == (11, 11, 4)
    assert (found[..., 3] == 255).sum() == 3 * 25 and not found[5].any(axis=0)[3]
    if channels == 3:
        assert np.array_equal(found[6:, :5, :3], pixels[2].permute(1, 2, 0).numpy())


def test_a_film_has_every_frame():
    frames = [sheet(numbered(4, 6) // (n + 1)) for n in range(5)]
    found = decoded(film(frames, "words").uri)
    assert [np.array_equal(a[:6, :6, :3], b[:3, :6, :6].permute(1, 2, 0)) for a, b in zip(found, frames)] == [True] * 5


def config_of(**changes) -> Config:
    return override(recipes["shapes"](), {"image_size": 8, "sample.count": 16} | changes)


def test_the_film_of_the_training_is_the_same_seeds_by_step(tmp_path: Path):
    made = {step: numbered(16, 8) // (step // 10) for step in range(10, 310, 10)}
    for step, pixels in made.items():
        save_png(tmp_path / f"{step:06d}.png", grid(pixels, scale=8))
    save_png(tmp_path / "best.png", grid(made[10], scale=8))
    found = read_film(tmp_path, config_of())
    assert found.seeds == 16 and found.unreadable == 0 and len(found.frames) == 20
    steps = [frame.step for frame in found.frames]
    assert steps == sorted(set(steps)) and (steps[0], steps[-1]) == (10, 300)
    assert [frame.step for frame in found.frames if frame.key] == [10, steps[round(19 / 2)], 300]
    (last,) = decoded(found.frames[-1].picture.uri)
    assert np.array_equal(last[:8, 9:17, :3], made[300][1].permute(1, 2, 0).numpy())


def test_damaged_and_foreign_grids_are_passed_over(tmp_path: Path):
    save_png(tmp_path / "000010.png", grid(numbered(16, 8), scale=8))
    (tmp_path / "000020.png").write_bytes((tmp_path / "000010.png").read_bytes()[:-400])
    (tmp_path / "000030.png").write_bytes(b"no picture")
    save_png(tmp_path / "000040.png", grid(numbered(9, 8), scale=8))
    found = read_film(tmp_path, config_of())
    assert [frame.step for frame in found.frames] == [10] and found.unreadable == 3
    assert read_film(tmp_path / "none", config_of()).frames == []


def test_drawings_share_nothing_and_letters_mean_nothing():
    hostile = '<script>alert(1)</script> $\\frac$ --> " ]]> &amp;'

    def draw(axes) -> None:
        axes.plot([1, 2, 3], [3, 1, 2], marker="o", color="#1f5fa8", label=hostile)
        axes.set(xlabel=hostile, title=hostile)
        axes.legend()

    first, second = drawing(draw, name="a"), drawing(draw, name=hostile)
    page = Page(first + second)
    assert page.scripts == [] and page.text.count("alert(1)") == 6
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert ids and len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', first + second))
    assert used and used <= set(ids)
    assert "http" not in first and "font-family" not in first and "currentColor" in first
    assert "var(--1f5fa8, #1f5fa8)" in first


# --- neighbours


def brute(pixels: torch.Tensor, pool: torch.Tensor) -> torch.Tensor:
    """Root mean squared differences, ``[n, m]``, straight from the definition."""
    difference = pixels[:, None].double() - pool[None].double()
    return difference.square().flatten(2).mean(2).sqrt()


@pytest.mark.parametrize("mirror", [False, True])
def test_neighbours_are_those_of_the_definition(mirror: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(closest_module, "ENTRIES", 7 * 3 * 6 * 6)  # chunks of 7 pictures
    pool, pixels = numbered(101, 6), numbered(9, 6)
    pixels[4] = pool[33] // 8 * 8
    pixels[2] = pool[100].flip(-1)
    found = finish(closest(pixels, ImageSet(pool), mirror=mirror, count=5))
    ways = torch.stack([brute(pixels, pool), brute(pixels.flip(-1), pool)][: 1 + mirror])
    nearest = ways.min(0).values.sort(1)
    turned = ways.argmin(0) == 1
    ratios = nearest.values[:, 0] / nearest.values[:, :50].mean(1)
    assert [each.place for each in found] == ratios.argsort()[:5].tolist()
    assert [each.ratio for each in found] == pytest.approx(ratios.sort().values[:5].tolist())
    for each in found:
        expected = nearest.indices[each.place, :3].tolist()
        assert [n.number for n in each.neighbours] == expected
        assert [n.mirrored for n in each.neighbours] == turned[each.place, expected].tolist()
        assert [n.levels for n in each.neighbours] == pytest.approx(nearest.values[each.place, :3].tolist())
        for n in each.neighbours:
            assert torch.equal(n.pixels.flip(-1) if n.mirrored else n.pixels, pool[n.number])
    assert (found[0].place == 2 and found[0].ratio == 0) if mirror else found[0].place == 4


def test_the_ratio_is_that_of_the_metric():
    pool, pixels = numbered(80, 6), numbered(9, 6)
    real, fake = (Embedded(each.flatten(1).float(), each) for each in (pool, pixels))
    theirs = memorisation(real, fake).details["nearest"]
    ours = finish(closest(pixels, ImageSet(pool), mirror=False, count=9))
    assert [(each.place, each.neighbours[0].number) for each in ours] == [(a, b) for a, b, _ in theirs]
    assert [each.ratio for each in ours] == pytest.approx([ratio for *_, ratio in theirs])


def test_few_training_pictures_have_few_neighbours():
    found = finish(closest(numbered(3, 4), ImageSet(numbered(2, 4)), mirror=True, count=8))
    assert len(found) == 3 and all(len(each.neighbours) == 2 for each in found)
    (only,) = finish(closest(numbered(1, 4), ImageSet(numbered(1, 4)), mirror=False, count=8))
    assert only.ratio == 0 and [n.levels for n in only.neighbours] == [0.0]


# --- numbers

HOW = Protocol("cifar10", "a" * 64, 50_000, 1000, 0, "efficientnet", "b" * 64, "area", "32x32x3")


def record(value: float = 12.3456, *, protocol: Protocol = HOW, **changes) -> dict:
    """A line of evaluations.jsonl as ``Evaluated.records`` writes it."""
    found = {
        "by": "evaluate",
        "model": "x",
        "step": 40,
        "weights": "ema",
        "metric": "fid",
        "label": "FD [efficientnet]",
    }
    found |= {"generation": {"sampler": "heun", "steps": 18, "guidance": 1.0, "clip": "none"}}
    found |= {"value": value, "low": value - 0.5, "high": value + 0.5, "better": "lower", "details": {}, "warnings": []}
    found |= {"protocol": asdict(protocol), "protocol_digest": protocol.digest, "time": 1_795_400_760.3}
    return found | changes


def test_numbers_stand_together_only_where_their_protocol_is_one():
    other = replace(HOW, n_fake=5000)
    found = read_numbers(
        [record(), record(9.0, protocol=other), record(2.0, label="KID", better="higher")], config_of()
    )
    assert [group.protocol for group in found.groups] == [HOW, other]
    first, second = found.groups[0].rows
    assert (first.label, first.value, first.interval) == ("FD [efficientnet] ↓", "12.35", "[11.85, 12.85]")
    assert (first.sampler, first.steps, first.weights, first.step) == ("heun", "18", "ema", "40")
    assert (second.label, first.date) == ("KID ↑", "2026-11-23")


def test_the_same_measured_again_takes_the_place_of_the_earlier():
    generation = {"sampler": "ddim", "steps": 9, "guidance": 2.0, "guidance_high": 5.0, "clip": "static"}
    found = read_numbers([record(1.0), record(2.0, generation=generation), record(3.0)], config_of())
    (group,) = found.groups
    made = "ddim, guidance 2 in (0, 5], clip static"
    assert [(row.value, row.sampler) for row in group.rows] == [("3.00", "heun"), ("2.00", made)]


def test_of_the_training_only_the_last_measurement_is_a_row():
    def trained(step: int) -> dict:
        found = record(float(step), by="train", step=step)
        del found["generation"], found["model"]  # as training writes it
        return found

    found = read_numbers([trained(10), trained(20), trained(30), record(5.0)], config_of(**{"sample.steps": 7}))
    (group,) = found.groups
    assert [(row.value, row.steps) for row in group.rows] == [("30.00", "7"), ("5.00", "18")] and group.earlier == 2


def test_warnings_stand_once_and_tell_no_path():
    warned = record(warnings=["too few", "read from /home/anna/x"])
    assert read_numbers([warned, warned], config_of()).warnings == [
        "FD [efficientnet]: too few",
        "FD [efficientnet]: read from …",
    ]


def test_records_that_say_nothing_are_counted():
    bad = [{}, record(protocol_digest=3), record(low="x"), record(better="?"), record(by="train", step=None)]
    bad += [{**record(), "protocol": {"reference": "x"}}]
    found = read_numbers([*bad, record(math.nan)], config_of())
    assert found.unreadable == len(bad) and found.groups[0].rows[0].value == "nan"
    assert drawable([*bad, record(math.nan), record(math.inf), record()]) == [record()]


# --- the page of a run that was never trained but has records

SECRET = "hunter2-4711"


def make_run(path: Path, **changes) -> Run:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(dump_config(config_of(**changes)))
    return Run.open(path)


def page_of(run: Run) -> tuple[Report, str, list[str]]:
    said: list[str] = []
    report = finish(gather(run, device="cpu", say=said.append))
    assert report is not None
    return report, render(report), said


def line(step: int, time: float, **changes) -> dict:
    record = {"step": step, "images": step * 32, "loss": 1 / step, "images_per_second": 64.0, "time": time}
    return record | changes


def test_speed_and_wall_time_are_those_of_all_sessions(tmp_path: Path):
    run = make_run(tmp_path / "a")
    starts = ("2026-11-23T02:00:00+00:00", "2026-11-23T03:00:00+00:00", "2026-11-23T04:00:00+00:00")
    first, second = 1795399200.0, 1795402800.0
    lines = [line(10, first + 60), line(20, first + 100, images_per_second=32.0), line(30, second + 50)]
    for each in lines:
        log.append(run.metrics, each)
    sessions = [{"started": start, "from_step": 0, "device": "cpu"} for start in starts]
    (run.path / "environment.json").write_text(json.dumps({"format": 1, "sessions": sessions}))
    report, page, _ = page_of(run)
    assert (report.state.step, report.state.total, report.state.images) == (30, 900, 960)
    assert report.state.wall == pytest.approx(150)
    assert report.state.speed == pytest.approx(960 / (320 / 64 + 320 / 32 + 320 / 64))
    assert [len(each.starts) for each in report.environments] == [3]
    words = check(page).text
    assert "30 of 900" in words and "2 min 30 s" in words and "in 3 sessions" in words


def test_durations():
    assert [duration(each) for each in (5, 599, 3540, 3725, 360_000)] == [
        "0 min 05 s",
        "9 min 59 s",
        "59 min",
        "1 h 02 min",
        "100 h 00 min",
    ]


def test_the_page_tells_nothing_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home" / "anna-of-the-tests"
    monkeypatch.setenv("HOME", str(home))
    run = make_run(home / "work" / "demo", data=f'folder(path="{home}/pictures")', trackers=("tensorboard",))
    session = {
        "started": "2026-11-23T02:00:00+00:00",
        "command": [f"{home}/bin/ddm", "train", "edm", "--token", SECRET],
        "unreadable": [{"name": f"{home}/pictures/{SECRET}.png", "reason": SECRET}],
        "device": f"cpu ({home}/x)",
        "packages": {"torch": "2.13.0"},
        "environ": SECRET,
    }
    (run.path / "environment.json").write_text(json.dumps({"sessions": [session]}))
    how = replace(HOW, reference=f"folder(path='{home}/pictures')")
    log.append(run.evaluations, record(protocol=how, warnings=[f"one of '{home}/pictures/a b.png'"], host=SECRET))
    _, page, said = page_of(run)
    for hidden in (str(tmp_path), "anna-of-the-tests", SECRET, "pictures/", "/bin/ddm"):
        assert hidden not in page
    assert "torch 2.13.0" in check(page).text
    assert "no checkpoint yet" in " ".join(said)


def test_hostile_words_stay_words(tmp_path: Path):
    hostile = '<script>alert("1")</script>'
    run = make_run(tmp_path / hostile.replace("/", "\u2215"), data=f"folder(path={hostile.replace('/', '')!r})")
    how = replace(HOW, features=hostile, reference="</caption><img src=x onerror=alert(2)>")
    for step in (10, 20):
        log.append(run.metrics, line(step, 0.0))
        log.append(run.evaluations, record(protocol=how, label=hostile, by="train", step=step, warnings=[hostile]))
    (run.path / "environment.json").write_text(
        json.dumps(
            {"sessions": [{"started": "2026-11-23T02:00:00+00:00", "device": hostile, "packages": {hostile: hostile}}]}
        )
    )
    _, page, _ = page_of(run)
    found = check(page)  # one script of known content, no handlers, nothing fetched
    assert found.text.count('<script>alert("1")') > 6
    assert "<img src=x onerror=alert(2)>" in found.text


def test_nothing_but_settings_is_a_page_that_says_what_is_missing(tmp_path: Path):
    run = make_run(tmp_path / "a")
    report, page, _ = page_of(run)
    words = check(page).text
    assert report.newest is None and report.curves == [] and report.state.step == 0
    for what in (
        "There is no checkpoint that can be used yet. Training makes one",
        "No curve yet: it takes two records of the loss",
        "No distance was measured in training: these settings do not ask for it",
        "ddm train … --every.evaluate 1000 ( in full below )",
        "There is no grid of the training yet. It makes one every 300 steps",
        "Nothing was measured yet. This does it: ddm evaluate runs/a",
        "No session is on record yet",
        "come with the first checkpoint",
    ):
        assert what in words, what
    changes = {"every.evaluate": 500, "every.sample": 0}
    words = check(page_of(make_run(tmp_path / "b", **changes))[1]).text
    assert "No distance was measured in training yet. It is every 500 steps" in words
    assert "There is no grid of the training yet. These settings do not ask for any" in words


def test_damaged_files_of_a_run_are_said_and_passed_over(tmp_path: Path):
    run = make_run(tmp_path / "a")
    for path in (run.metrics, run.evaluations):
        path.write_text("{}\nno record\n")
    (run.path / "environment.json").write_text('{"sessions": [{"started": 3}, null]}')
    (run.checkpoints / "000010").mkdir(parents=True)
    (run.checkpoints / "000010" / "manifest.json").write_text("{}")
    report, page, said = page_of(run)
    check(page)
    assert sum("line 2: not a record" in each for each in said) == 2
    assert any("manifest.json" in each for each in said) and report.environments == []
    run.metrics.write_text('{}\n{"step": "x", "loss": 1}\n{"step": 3, "loss": "nan"}\n')
    run.evaluations.write_text("{}\n")
    report, page, _ = page_of(run)
    assert report.curves == [] and "1 records could not be read" in check(page).text


def test_curves_are_of_the_loss_and_of_each_distance(tmp_path: Path):
    run = make_run(tmp_path / "a")
    run.metrics.write_text("".join(json.dumps(line(step, 0.0)) + "\n" for step in range(1, 3000)))
    for label in ("FD", "KID"):
        for step in (10, 20):
            log.append(run.evaluations, record(step / 3, label=label, metric=label, by="train", step=step))
    report, page, _ = page_of(run)
    assert [curve.name for curve in report.curves] == ["training loss", "FD", "KID"]
    assert len(report.curves[0].svg) < 200_000
    words = check(page).text
    assert "2,999 records" in words and "--every.evaluate" not in words
    assert "1,000 pictures against 50,000 of cifar10" in words


def test_the_template_travels_with_the_package():
    assert resources.files("ddm.runs").joinpath("report.html.jinja").is_file()
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["ddm.runs"] == ["*.jinja"]
    assert any(each.startswith("jinja2") for each in project["project"]["dependencies"])
