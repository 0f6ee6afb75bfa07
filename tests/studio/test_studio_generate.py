"""The Generate tab without a browser: its pictures are those of ``ddm sample``, and each can be made again."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

from ddm import load
from ddm.cli import main
from ddm.commands.studio import generating
from ddm.commands.studio.endpoints import Endpoints
from ddm.commands.studio.generate import Pictures
from ddm.commands.studio.generating import Moment, Request
from ddm.commands.studio.shared import Limits, Models, Studio
from ddm.diffusion.editing import spherical
from ddm.errors import RequestError
from ddm.runs.model import Model
from pages import Page as Html


@pytest.fixture(scope="module")
def model(runs: list[Path]) -> Model:
    return load(runs[0], device="cpu")


@pytest.fixture(scope="module")
def studio(model: Model) -> Studio:
    return Studio(Models({"first": lambda: model}))


def last(moments) -> Moment:
    *_, found = moments
    assert found.finished
    return found


def pixels(file: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(file)) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def facts(file: bytes) -> dict:
    with Image.open(io.BytesIO(file)) as image:
        return json.loads(image.text["ddm"])


def test_pictures_are_those_of_the_model(studio: Studio, model: Model):
    found = last(generating.generate(studio, Request("first", "star", count=3, seed=7)))
    expected = model.sample(3, seed=7, label="star")
    for number, (picture, wanted) in enumerate(zip(found.pictures, expected)):
        assert pixels(picture.file).equal(wanted) and picture.pixels.equal(wanted)
        assert (picture.seed, picture.label) == (7 + number, "star")


def test_files_say_what_the_command_line_writes(studio: Studio, runs: list[Path], tmp_path: Path):
    request = Request("first", "", 2, 5, "ddim(eta=0.5)", "trailing", 6, 1.5)
    found = last(generating.generate(studio, request))
    options = ["--sampler", "ddim(eta=0.5)", "--grid", "trailing", "--steps", "3", "--guidance", "1.5", "--seed", "5"]
    out = str(tmp_path / "out") + "/"
    assert main(["sample", str(runs[0]), "--count", "2", "--out", out, "--batch-size", "2", *options, "--quiet"]) == 0
    for picture, path in zip(found.pictures, sorted((tmp_path / "out").glob("*.png"))):
        with Image.open(path) as theirs, Image.open(io.BytesIO(picture.file)) as ours:
            assert ours.text == theirs.text
            assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("name", ["one", "sheet", "near"])
def test_every_file_can_be_made_again(
    studio: Studio, runs: list[Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture
):
    request = Request("first", count=3, seed=4, sampler="heun(churn=20)", evaluations=21)
    if name == "near":
        file = last(generating.near(studio, request, share=0.2)).pictures[1].file
    else:
        found = last(generating.generate(studio, request))
        file = found.sheet if name == "sheet" else found.pictures[1].file
    (tmp_path / "it.png").write_bytes(file)
    out = str(tmp_path / "again.png")
    assert main(["sample", str(runs[0]), "--again", str(tmp_path / "it.png"), "--out", out, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["equal"]


def test_pictures_near_a_seed_are_a_share_of_the_way_to_others(studio: Studio, model: Model):
    found = last(generating.near(studio, Request("first", count=2, seed=4), share=0.2))
    generator = model.generator
    for picture in found.pictures:
        assert picture.towards not in (None, 4)
        said = facts(picture.file)
        assert (said["seed"], said["edit"]) == (4, {"way": "between", "last": picture.towards, "shares": [0.2]})
        noises = (generator.noise([seed])() for seed in (4, picture.towards))
        start = spherical(*noises, torch.tensor([0.2]))
        *_, end = generator.solve(
            generator.denoiser([4]), start * generator.grid[0], generator.grid, generator.noise([4])
        )
        assert generating.png(picture.pixels) == generating.png(((end.x + 1) * 127.5).round().clamp(0, 255).byte()[0])
    assert not found.pictures[0].pixels.equal(found.pictures[1].pixels)
    (own,) = model.sample(1, seed=4)
    apart = [(each.pixels.float() - own.float()).abs().mean() for each in found.pictures]
    far = [
        (each.float() - own.float()).abs().mean() for each in model.sample(16, seed=8, label=found.pictures[0].label)
    ]
    assert max(apart) < min(far), "nearer to it than other pictures"


def test_every_step_is_seen_and_the_guess_becomes_the_picture(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generating, "PACE", 0.0)
    moments = list(generating.generate(studio, Request("first", count=2, evaluations=15, guidance=1.0)))
    assert [each.done for each in moments] == [*range(1, 9), 8] and {each.steps for each in moments} == {8}
    assert [each.finished for each in moments] == [False] * 8 + [True]
    final = moments[-1].pictures[0].pixels.float()
    apart = [(each.pictures[0].pixels.float() - final).abs().mean() for each in moments]
    assert apart[0] > apart[-2] >= apart[-1] == 0
    near = list(generating.near(studio, Request("first", count=2, evaluations=15, guidance=1.0)))
    assert [each.done for each in near] == [*range(1, 9), 8, *range(9, 17), 16]


def test_looks_that_come_too_soon_are_left_out(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generating, "PACE", 1e9)
    assert len(list(generating.generate(studio, Request("first", evaluations=15)))) == 2, "the first and the last"


def test_stopping_stops_within_a_step(studio: Studio, model: Model, monkeypatch: pytest.MonkeyPatch):
    calls = []
    denoise = model.generator.diffusion.denoise
    monkeypatch.setattr(model.generator.diffusion, "denoise", lambda *a, **k: (calls.append(1), denoise(*a, **k))[1])
    stream = Pictures(studio).generate("first", "", 2, 0, "", "", 60, None)
    next(stream)
    before = len(calls)
    stream.close()
    assert len(calls) == before <= 4, "two evaluations of heun, twice with guidance"


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": "other"}, "model: 'other' is unknown; allowed: first"),
        ({"label": "dog"}, "label: 'dog' is unknown"),
        ({"count": 0}, "count: 0 is not allowed; allowed: a whole number from 1 to 64"),
        ({"count": 65}, "count: 65 is not allowed"),
        ({"seed": -1}, "seed: -1 is not allowed"),
        ({"seed": 2**63}, "seed: 9223372036854775808 is not allowed"),
        ({"sampler": "magic"}, "sample.sampler: 'magic' is unknown"),
        ({"sampler": "heun(churn=-1)"}, "churn must be greater than or equal to 0"),
        ({"sampler": "__import__('os')"}, "has an option without a name"),
        ({"sampler": "adaptive", "evaluations": 20}, "evaluations: 20 is not allowed with adaptive"),
        ({"grid": "levels(at=(3, 2))", "evaluations": 21}, "sample.steps: "),
        ({"evaluations": -5}, "evaluations: -5 is not allowed"),
        ({"evaluations": 1e9}, "evaluations: 1000000000 is not allowed"),
        ({"evaluations": 1999, "count": 64, "guidance": 1.0}, "64 pictures with 1999 evaluations each are"),
        ({"guidance": float("nan")}, "guidance: nan is not allowed"),
        ({"guidance": 1e6}, "guidance: 1000000.0 is not allowed"),
    ],
)
def test_what_cannot_be_is_refused(studio: Studio, changes: dict, words: str):
    with pytest.raises(RequestError) as error:
        next(generating.generate(studio, replace(Request("first"), **changes)))
    assert words in str(error.value)
    assert next(generating.generate(studio, Request("first", evaluations=2))).pictures, "and the next works"


@pytest.mark.parametrize("share", [0, -0.5, 1.1, float("nan"), "0.2", None])
def test_shares_are_checked(studio: Studio, share: object):
    with pytest.raises(RequestError, match="share: .* is not allowed; allowed: a number from 0.01 to 1"):
        next(generating.near(studio, Request("first"), share=share))  # pyright: ignore[reportArgumentType]


def test_guidance_needs_classes(model: Model):
    bare = replace(model, classes=())
    with pytest.raises(RequestError, match="guidance: 2 is not allowed for a model without classes; allowed: 1"):
        next(generating.generate(Studio(Models({"first": lambda: bare})), Request("first", guidance=2.0)))


def test_the_page_shows_and_says_all(studio: Studio):
    *earlier, (shown, made) = Pictures(studio).generate("first", "", 2, 9, "heun", "karras", 21, 1.0)
    html = Html(shown)
    images, links = html.all("img"), html.all("a")
    assert len(images) == 2 and len(links) == 3
    for number, image in enumerate(images):
        file = base64.b64decode(image.get("src").partition(",")[2])
        assert facts(file)["seed"] == 9 + number
        assert links[number].get("href") == image.get("src")
        assert links[number].get("download") == f"seed-{9 + number}.png"
        assert f"seed {9 + number}" in image.get("alt")
    assert "heun, 11 steps, karras" in html.text and "seed 9, cross" in html.text
    assert all("Save" not in shown and "progress" in shown for shown, _ in earlier), "not to be saved half done"
    *_, (again, same) = Pictures(studio).again(made)
    assert "equal in every pixel" in again and same == made
    *_, (near, after) = Pictures(studio).near(made, 10, 0.2, *("first", "", 1, 0, "", "", 3, 1.0))
    assert "20% of the way to seed" in near and after.request.evaluations == 21, "made as those that are shown"
    *_, (again, same) = Pictures(studio).again(after)
    assert "equal in every pixel" in again


def test_other_pictures_are_not_called_the_same(studio: Studio):
    *_, (_, made) = Pictures(studio).generate("first", "", 1, 9, "", "", 21, 1.0)
    *_, (again, _) = Pictures(studio).again(replace(made, digests=("0" * 64,)))
    assert "Not equal to those before" in again


def test_endpoints_answer_with_json(studio: Studio, model: Model):
    *steps, found = Endpoints(studio).generate("first", count=2, seed=3, evaluations=21)
    assert all({"done", "steps", "preview"} == set(each) for each in steps) and steps
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    wanted = model.generator.with_settings(steps=found["settings"]["steps"]).generate([3, 4])
    for picture, expected in zip(found["pictures"], wanted):
        assert pixels(base64.b64decode(picture["png"])).equal(expected)
    assert [each["label"] for each in found["pictures"]] == ["moon", "ring"]


def test_a_studio_with_small_limits(model: Model):
    small = Studio(Models({"first": lambda: model}), Limits(pictures=2, evaluations=50))
    with pytest.raises(RequestError, match="count: 3 is not allowed; allowed: a whole number from 1 to 2"):
        next(generating.generate(small, Request("first", count=3)))
    with pytest.raises(RequestError, match="are 60 evaluations; allowed: 50"):
        next(generating.generate(small, Request("first", "", 2, 0, "ddim", "", 30, 1.0)))
