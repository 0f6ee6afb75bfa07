"""Searched grids of a run: when they are searched, kept, used again, and when they are not."""

import argparse
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddm
from ddm.cli import main
from ddm.commands.console import Console
from ddm.commands.doctoring import make_case
from ddm.commands.entries import enter
from ddm.commands.training import train
from ddm.diffusion import make_grid
from ddm.errors import DdmError, RequestError
from ddm.generators import DiffusionGenerator
from ddm.registry import Choice
from ddm.runs import searched
from ddm.runs.config import override
from ddm.runs.cost import with_evaluations, with_steps
from ddm.runs.diagnosis import plan
from ddm.runs.model import Model
from ddm.runs.recipes import recipes
from ddm.runs.searched import FORMAT, Found, GridFamily, SearchedGrid, keep_grids, read_grids
from ddm.runs.sources import load
from metrics.toys import toys

__all__ = ["toys"]

CHANGES = {
    "data": "shapes(count=8)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "train.lr": 0.05,  # so that its trajectories bend
    "train.warmup": 0,
    "train.ema": ("constant(decay=0.5)",),
    "every.save": 2,
    "sample.count": 1,
    "sample.steps": 3,
    "sample.guidance": 1.0,
}
FOUND = Found(seeds=(0, 4), teacher="heun", teacher_steps=12, date="2026-01-01 00:00:00", ddm="0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    train(override(recipes["shapes"](), CHANGES), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of one's own, in which a search is short."""
    monkeypatch.setattr(searched, "PICTURES", 4)
    monkeypatch.setattr(searched, "LEVELS", 12)
    monkeypatch.setattr(searched, "MOST", 8)
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fail(*_: object) -> None:
        raise AssertionError("there was a search")

    return lambda: monkeypatch.setattr(searched, "step_costs", fail)


def opened(source: Path, **options: Any) -> tuple[Model, DiffusionGenerator, list[str]]:
    said: list[str] = []
    model = load(source, device="cpu", say=said.append, **options)
    assert isinstance(model.generator, DiffusionGenerator)
    return model, model.generator, said


def entry(digit: str, steps: int, *levels: float) -> SearchedGrid:
    return SearchedGrid(weights_sha256=digit * 64, steps=steps, levels=levels, found=FOUND)


def silent(_: str) -> None:
    raise AssertionError("nothing is to be said")


# --- searched, kept, used


def test_what_was_asked_for_is_searched_once_and_kept(run: Path, no_search: Callable[[], None]):
    model, generator, said = opened(run, grid="searched", steps=4)
    assert said[0] == "grid    searching along the trajectories of 4 pictures, once for these weights"
    assert re.fullmatch(r"grid    searched for 4 steps in \d+ s, kept in .*tiny/grids.json", said[1])
    kept = {each.steps: each for each in read_grids(run, silent)}
    assert set(kept) == set(range(1, 9)), "all that the search gave"
    assert {each.weights_sha256 for each in kept.values()} == {model.digest}
    assert generator.grid.tolist() == [*kept[4].levels, 0]
    assert generator.settings()["grid"] == f"levels(at={kept[4].levels!r})"
    assert generator.grid[0] == 80 and all(each.levels[0] == 80 for each in kept.values())
    assert (kept[4].found.seeds, kept[4].found.teacher_steps) == ((10**9, 4), 12)
    no_search()
    again, other = opened(run, grid="searched", steps=4), opened(run, grid="searched", steps=7)
    assert torch.equal(again[1].grid, generator.grid) and again[2] == ["grid    searched (grids.json)"]
    assert other[1].grid.tolist() == [*kept[7].levels, 0]
    assert not torch.equal(ddm.load(run, device="cpu", grid="karras", steps=4).sample(2), model.sample(2))


def test_the_search_is_that_of_the_trajectories_of_the_weights(run: Path):
    """Made once more by hand, in one batch and without a file."""
    from ddm.diffusion.searching import search_grid

    _, generator, _ = opened(run, grid="searched", steps=5)
    seeds, fine = range(10**9, 10**9 + 4), make_grid("karras", generator.diffusion.sigmas, 12)
    x = generator.noise(seeds)() * fine[0]
    expected = search_grid(generator.denoiser(seeds), x, fine, 5)
    torch.testing.assert_close(generator.grid, expected, rtol=1e-5, atol=0)


def test_little_memory_gives_the_same_grids(run: Path, monkeypatch: pytest.MonkeyPatch):
    _, whole, _ = opened(run, grid="searched", steps=6)
    (run / "grids.json").unlink()
    monkeypatch.setattr(searched, "HELD", 1)
    _, parts, _ = opened(run, grid="searched", steps=6)
    assert torch.equal(whole.grid, parts.grid)


def test_more_steps_than_are_kept_as_a_rule_are_kept_too(run: Path):
    opened(run, grid="searched", steps=11)
    assert [each.steps for each in read_grids(run, silent)] == [*range(1, 9), 11]


def test_a_kept_grid_is_picked_up_where_no_other_is_asked_for(run: Path, no_search: Callable[[], None]):
    assert opened(run)[1].settings()["grid"] == "karras", "there is none yet"
    _, asked, _ = opened(run, grid="searched", steps=3)
    no_search()
    _, found, said = opened(run)
    assert torch.equal(found.grid, asked.grid)
    assert said == ["grid    searched (grids.json); --grid karras for the run's own"]
    for options in ({"grid": "karras"}, {"steps": 10}, {"grid": "trailing", "steps": 4}):
        _, other, said = opened(run, **options)
        assert other.settings()["grid"] == options.get("grid", "karras") and said == []


@pytest.mark.parametrize("sampler", ["adaptive(tolerance=0.1)", "consistency", "dpmpp_3m", "unipc(order=3)"])
def test_it_is_not_picked_up_for_samplers_that_lose_by_it(run: Path, sampler: str):
    opened(run, grid="searched", steps=3)
    assert opened(run, sampler="dpmpp_2m")[1].settings()["grid"].startswith("levels")
    assert opened(run, sampler=sampler)[1].settings()["grid"] == "karras"
    if sampler.startswith(searched.FREE):
        with pytest.raises(RequestError, match=r"^sample\.grid: searched is not allowed for \w+; allowed: karras"):
            opened(run, grid="searched", sampler=sampler)


def test_guidance_and_clipping_change_no_grid(run: Path):
    _, plain, _ = opened(run, grid="searched", steps=6)
    (run / "grids.json").unlink()
    _, guided, _ = opened(run, grid="searched", steps=6, guidance=5.0, clip="static")
    assert torch.equal(plain.grid, guided.grid)


def test_other_weights_have_other_grids(run: Path):
    ema, _, _ = opened(run, grid="searched", steps=3)
    for source, options in ((run, {"weights": "raw"}), (run / "checkpoints" / "000002", {})):
        model, generator, said = opened(source, **options)
        assert model.digest != ema.digest and generator.settings()["grid"] == "karras" and said == []
    raw, _, said = opened(run, weights="raw", grid="searched", steps=3)
    assert "searching" in said[0]
    kept = read_grids(run, silent)
    assert [each.weights_sha256 for each in kept] == [ema.digest] * 8 + [raw.digest] * 8
    inside = opened(run / "checkpoints" / "000004", steps=3)
    assert inside[2] == ["grid    searched (grids.json); --grid karras for the run's own"]


def test_a_checkpoint_by_itself_keeps_nothing(run: Path, tmp_path: Path):
    alone = Path(shutil.copytree(run / "checkpoints" / "000004", tmp_path / "alone" / "000004"))
    before = sorted(alone.parent.rglob("*"))
    _, generator, said = opened(alone, grid="searched", steps=4)
    assert re.fullmatch(r"grid    searched for 4 steps in \d+ s, not kept: this checkpoint is in no run", said[-1])
    assert sorted(alone.parent.rglob("*")) == before
    assert torch.equal(generator.grid, opened(run, grid="searched", steps=4)[1].grid)


# --- the file


def test_what_is_kept_is_merged(tmp_path: Path):
    first = [entry("a", 1, 80), entry("a", 2, 80, 2), entry("b", 2, 80, 3)]
    keep_grids(tmp_path, first)
    assert read_grids(tmp_path, silent) == first
    keep_grids(tmp_path, [entry("a", 2, 70, 1), entry("a", 3, 80, 2, 1)])
    assert read_grids(tmp_path, silent) == [first[0], entry("a", 2, 70, 1), first[2], entry("a", 3, 80, 2, 1)]
    lines = (tmp_path / "grids.json").read_text().splitlines()
    assert len(lines) == 1 + 4 + 1 and json.loads((tmp_path / "grids.json").read_text())["format"] == FORMAT
    assert [each.name for each in tmp_path.iterdir()] == ["grids.json"]


GOOD = entry("a", 2, 80, 2).model_dump(mode="json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": 1, "grids": [{"weigh',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"format": "1", "grids": []}',
        b'{"format": 1, "grids": {}}',
        b'{"format": 1, "grids": [3]}',
        *(
            json.dumps({"format": 1, "grids": [GOOD | wrong]}).encode()
            for wrong in (
                {"levels": [2, 80]},
                {"levels": [80, 80]},
                {"levels": [80]},
                {"levels": [80, 0]},
                {"levels": [80, -1]},
                {"levels": [80, float("nan")]},
                {"levels": [float("inf"), 80]},
                {"steps": 0, "levels": []},
                {"weights_sha256": "a"},
                {"found": None},
                {"more": 1},
            )
        ),
    ],
)
def test_a_damaged_file_is_told_and_written_anew(run: Path, content: bytes):
    (run / "grids.json").write_bytes(content)
    _, generator, said = opened(run, steps=2)
    assert said == [f"{run / 'grids.json'} is damaged and is not used; the next search writes it anew"]
    assert generator.settings()["grid"] == "karras"
    keep_grids(run, [entry("a", 2, 80, 2)])
    assert read_grids(run, silent) == [entry("a", 2, 80, 2)]


def test_a_sound_file_of_that_kind_is_read(tmp_path: Path):
    """Else the test above could pass for another reason."""
    (tmp_path / "grids.json").write_text(json.dumps({"format": 1, "grids": [GOOD]}))
    assert read_grids(tmp_path, silent) == [entry("a", 2, 80, 2)]


def test_a_file_of_a_later_format_is_left_alone(run: Path):
    path = run / "grids.json"
    path.write_text('{"format": 2, "grids": "something else"}')
    _, generator, said = opened(run, grid="searched", steps=3)
    assert said[0] == f"{path} was made by a newer ddm (format 2; this one reads 1) and is not used"
    assert re.fullmatch(
        r"grid    searched for 3 steps in \d+ s, not kept: .*grids.json was made by a newer ddm .*", said[-1]
    )
    assert generator.settings()["grid"].startswith("levels(at=(80.0, ")
    assert path.read_text() == '{"format": 2, "grids": "something else"}'


def test_a_file_that_cannot_be_written_stops_nothing(run: Path):
    (run / "grids.json").mkdir()
    _, generator, said = opened(run, grid="searched", steps=3)
    assert "not kept: " in said[-1] and "grids.json was not saved" in said[-1]
    assert generator.settings()["grid"].startswith("levels(at=(80.0, ")


# --- the levels travel as text


def test_levels_survive_being_written_down():
    levels = tuple((torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 80).tolist())
    levels = tuple(sorted(levels, reverse=True))
    text = json.loads(json.dumps({"grid": str(Choice("levels", {"at": levels}))}))["grid"]
    assert make_grid(text, torch.tensor([0.002, 80.0]), 40).tolist() == [*levels, 0]


def test_a_picture_can_be_made_again_without_the_file(run: Path, tmp_path: Path):
    arguments = ["--grid", "searched", "--steps", "4", "--count", "2", "--device", "cpu", "--out", f"{tmp_path}/out/"]
    assert main(["sample", str(run), *arguments]) == 0
    with Image.open(tmp_path / "out" / "000001.png") as picture:
        facts, pixels = json.loads(picture.text["ddm"]), np.asarray(picture.convert("RGB"))
    assert facts["grid"].startswith("levels(at=(80.0, ") and "grids.json" not in str(facts)
    (run / "grids.json").unlink()
    names = ("sampler", "steps", "grid", "guidance")
    again, _, said = opened(run, **{name: facts[name] for name in names})
    # Made alone here and beside another there, which may round a level differently.
    made = again.sample(1, seed=1)[0].permute(1, 2, 0).numpy()
    assert np.abs(made.astype(int) - pixels).max() <= 1 and said == []
    assert not torch.equal(again.sample(1, seed=1), load(run, device="cpu", steps=4).sample(1, seed=1))


def test_the_command_says_what_it_does(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments = ["sample", str(run), "--steps=5", "--count=1", "--device=cpu", f"--out={tmp_path / 'a.png'}"]
    assert main([*arguments, "--grid=searched"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"grid    searched for 5 steps in \d+ s, kept in .*grids.json", err[1])
    assert main(arguments) == 0
    assert capsys.readouterr().err.splitlines()[0] == "grid    searched (grids.json); --grid karras for the run's own"


# --- other numbers of steps


def test_rungs_of_a_comparison_have_the_grids_of_their_steps(run: Path):
    kept = lambda: {each.steps: each.levels for each in read_grids(run, silent)}
    model, generator, _ = opened(run, sampler="ddim", grid="searched", steps=3)
    (entered,) = enter({"a": model}, [2, 6, 8], seed=0)
    assert [(rung.evaluations, rung.generator.settings()["grid"]) for rung in entered.ladder] == [
        (steps, f"levels(at={kept()[steps]!r})") for steps in (2, 6, 8)
    ]
    message = "^sample.steps: 10 has no searched grid; allowed: 1, 2, 3, 4, 5, 6, 7, 8, or another --grid$"
    with pytest.raises(RequestError, match=message):
        with_evaluations(generator, 10, model.grids)
    picked, generator, _ = opened(run, sampler="ddim")
    (entered,) = enter({"a": picked}, [6, 10], seed=0)
    assert [rung.generator.settings()["grid"] for rung in entered.ladder] == [f"levels(at={kept()[6]!r})", "karras"]
    assert opened(run, grid="karras", steps=3)[0].grids is None


def test_levels_that_were_given_have_one_number_of_steps(run: Path):
    _, generator, _ = opened(run, sampler="ddim", grid="levels(at=(80, 5, 1))", steps=3)
    same = with_evaluations(generator, 3)
    assert same is not None and same.settings() == generator.settings()
    with pytest.raises(RequestError, match="^sample.steps: 10 is not allowed with a grid of 3 levels; allowed: 3$"):
        with_evaluations(generator, 10)


def test_a_family_is_asked_for_its_grids(run: Path):
    _, generator, _ = opened(run, grid="karras")
    family = GridFamily({2: "levels(at=(80.0, 2.0))"}, None)
    assert with_steps(generator, 2, family).settings()["grid"] == "levels(at=(80.0, 2.0))"
    assert with_steps(generator, 5, GridFamily(family.choices, "trailing")).settings()["grid"] == "trailing"


def test_the_doctor_changes_one_thing_at_a_time(run: Path, toys: None):
    """Neither other steps nor other weights bring a grid of another kind with them."""
    arguments = argparse.Namespace(
        source=run, weights="ema", device="cpu", batch_size=None, seed=0, features="toy_features", metrics=["fid"]
    )
    opened(run, weights="raw", grid="searched", steps=3)
    case = make_case(arguments, Console(quiet=True))
    assert [each.generator.settings()["grid"] for each in (case.model, case.reload("raw"))] == ["karras"] * 2
    opened(run, grid="searched", steps=3)
    case = make_case(arguments, Console(quiet=True))
    settings = case.model.generator.settings()
    assert settings["grid"].startswith("levels(") and case.reload("raw").generator.settings() == settings
    chosen = plan(case, ["steps"])
    assert [each.change for each in chosen.variants] == ["1 steps instead of 3", "6 steps instead of 3"]
    arguments.steps = 5
    chosen = plan(make_case(arguments, Console(quiet=True)), ["steps"])
    assert [each.change for each in chosen.variants] == ["2 steps instead of 5"]
    assert chosen.left_out["steps"].startswith("sample.steps: 10 has no searched grid; allowed: 1, 2, ")


# --- refusals


def test_wrong_models_are_told(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DiffusionGenerator, "denoiser", lambda *_: lambda x, sigma: x * torch.nan)
    with pytest.raises(DdmError, match="^no grid can be searched: what the model makes is not finite"):
        opened(run, grid="searched", steps=3)
    assert not (run / "grids.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "sample RUN --grid searched --steps 13",
            "sample.steps: 13 is not allowed with the searched grid; allowed: 1 to",
        ),
        ("sample RUN --grid searched(rho=7)", "sample.grid: option of searched: 'rho' is unknown"),
        ("sample RUN --grid serched", "sample.grid: 'serched' is unknown (did you mean 'searched'?)"),
        ("sample RUN --grid searched --sampler huen", "sample.sampler: 'huen' is unknown"),
        ("sample RUN --grid searched --steps 3 --sampler heun(churn=-1)", "churn must be greater than or equal to 0"),
        (
            "sample diffusers:x --grid searched",
            "grid: 'searched' is not allowed for diffusers: sources; allowed: steps",
        ),
        (
            "train shapes --sample.grid searched",
            "sample.grid: searched is not allowed here, it needs the trained model",
        ),
    ],
)
def test_bad_requests_exit_2_with_one_line_and_without_a_search(
    run: Path, no_search: Callable[[], None], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
    arguments: str, message: str,
):  # fmt: skip
    monkeypatch.chdir(run.parent)
    no_search()
    assert main([*arguments.replace("RUN", "tiny").split(" "), "--device=cpu"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ddm: ") and message in line
    assert not (run / "grids.json").exists() and [each.name for each in run.parent.iterdir()] == ["tiny"]
