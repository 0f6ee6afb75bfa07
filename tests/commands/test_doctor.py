"""``ddm doctor`` with a source; without one it is the check of the installation (also in test_cli)."""

import json
import re
from pathlib import Path

import pytest
import torch

from ddm.cli import main
from ddm.commands import doctor, installation
from ddm.commands.console import Console
from ddm.commands.training import train
from ddm.errors import DdmError
from ddm.generators.truncated import TruncatedPictures
from ddm.runs.config import override
from ddm.runs.finding import Finding
from ddm.runs.recipes import recipes
from ddm.runs.suspects import suspects
from metrics.toys import toys

__all__ = ["toys"]

CHANGES = {
    "data": "shapes(count=40)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 4,
    "every.save": 4,
    "every.log": 1,
    "every.sample": 0,
    "sample.steps": 2,
    "sample.guidance": 1.0,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "tiny"
    train(override(recipes["shapes"](), CHANGES), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


def ask(*arguments: object) -> int:
    toy = ["--features=toy_features", "--metrics", "fid", "--images=64", "--device=cpu"]
    return main(["doctor", *(str(each) for each in arguments), *toy])


def test_every_suspect_gets_its_row(run: Path, toys: None, capsys: pytest.CaptureFixture):
    assert ask(run) == 0
    out, _ = capsys.readouterr()
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert "FD [toy_features] ↓" in rows[0].replace("\\", "")
    names = [row.split("|")[1].strip() for row in rows[2:]]
    assert names[0] == "baseline"
    assert set(names[1:]) == {
        "count",
        "weights",
        "steps",
        "sampler",
        "guidance",
        "clip",
        "rounding",
        "flips",
        "floor",
        "reference",
    }
    moved = [abs(float(row.split("|")[4].split("[")[0].strip() or 0)) for row in rows[3:]]
    assert moved == sorted(moved, reverse=True)
    assert re.search(r"- (Most|Some|Little) of it is sample size: 64 pictures add about|no part can be told", out)
    assert "- left out: resizing: toy_features resizes in one way only" in out
    assert "- warn: learning rate" in out or "- ok: learning rate" in out


def test_the_cost_is_shown_before_it_begins(run: Path, toys: None, capsys: pytest.CaptureFixture):
    assert ask(run, "--suspects", "steps", "count", "guidance") == 0
    err = capsys.readouterr().err
    assert "steps: 4 steps instead of 2: 64 pictures, 2 times the time each" in err
    assert "count: 32 of the pictures: free" in err
    # baseline, half, twice, guidance: 4 x 64
    assert err.index("cost    256 pictures at most") < err.index("baseline: pictures")
    assert re.search(r"time    about \d+s for pictures", err)


def test_asked_again_it_makes_nothing_twice(run: Path, toys: None, capsys: pytest.CaptureFixture):
    found = []
    for _ in range(2):
        assert ask(run, "--suspects", "clip", "weights", "--json") == 0
        out, err = capsys.readouterr()
        found.append(json.loads(out))
    assert "time    not known: the pictures of the baseline were kept from before" in err
    for one, other in zip(found[0]["effects"], found[1]["effects"]):
        assert one | {"seconds": 0} == other | {"seconds": 0}


def test_json_has_all_there_is(run: Path, toys: None, capsys: pytest.CaptureFixture):
    assert ask(run, "--suspects", "count", "floor", "--json", "--quiet") == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert set(found) == {"baseline", "protocol", "effects", "verdict", "findings", "left_out"}
    assert found["protocol"]["n_fake"] == 64 and found["protocol"]["reference"] == "shapes(count=40)"
    limit = next(each for each in found["effects"] if each["kind"] == "limit")
    baseline = found["baseline"]["fid"]["value"]
    assert limit["difference"] == pytest.approx(limit["measurement"]["value"] - baseline)
    assert limit["interval"][0] < limit["difference"] < limit["interval"][1]
    assert "sample size" in found["verdict"]["fid"][0]
    assert {each["what"] for each in found["findings"]} >= {"average", "images seen", "learning rate", "start"}
    assert {each["status"] for each in found["findings"]} <= {"ok", "warn"}


def test_a_suspect_that_breaks_is_left_out_and_the_rest_goes_on(
    run: Path, toys: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> torch.Tensor:
        raise DdmError("pictures of seeds 3 are not finite")

    monkeypatch.setattr(TruncatedPictures, "generate", fail)
    assert ask(run, "--suspects", "rounding", "clip") == 0
    out = capsys.readouterr().out
    assert "- left out: rounding, truncated to uint8 instead of rounded: pictures of seeds 3 are not finite" in out
    assert "| clip" in out


def test_stored_pictures_are_asked_about_what_they_can_answer(toys: None, capsys: pytest.CaptureFixture):
    assert ask("data:shapes(count=90)", "--reference=shapes(count=200)", "--image-size=8") == 0
    out = capsys.readouterr().out
    assert "| floor" in out and "- left out: weights: data: sources have one set of weights, or none" in out
    assert "learning rate" not in out, "nobody trained these"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "--suspects", "weihgts"), "suspects: 'weihgts' is unknown (did you mean 'weights'?)"),
        (("RUN", "--suspects", "count", "--images=0"), "images: 0 is not allowed"),
        (("nowhere",), "is neither a run folder nor a checkpoint"),
        (("--images=5",), "images: 5 is not allowed without a SOURCE"),
        (("--suspects", "count"), "suspects: ['count'] is not allowed without a SOURCE"),
        (("--weights=raw",), "weights: 'raw' is not allowed without a SOURCE"),
    ],
)
def test_bad_requests_are_one_line(
    run: Path, toys: None, capsys: pytest.CaptureFixture, arguments: tuple[str, ...], message: str
):
    assert main(["doctor", *(str(run) if each == "RUN" else each for each in arguments)]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert message in err[-1] and len([line for line in err if line.startswith("ddm:")]) == 1


def test_the_help_and_the_page_name_every_suspect(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="0"):
        main(["doctor", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(suspects) in shown
    page = (Path(__file__).parents[2] / "docs" / "why-is-my-fid.md").read_text()
    assert all(f"`{name}`" in page for name in suspects)


def test_without_a_source_the_installation_is_checked(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def work(_: str):
        """In place of the real run, which test_cli has."""
        yield Finding("ok", "one real run", "2 steps")

    monkeypatch.setattr(installation, "real_work", work)
    assert main(["doctor", "--device=cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == 0
    assert [each["what"] for each in found["findings"]][:2] == ["ddm", "packages"]
    assert found["findings"][-1] == {"status": "ok", "what": "one real run", "seen": "2 steps", "cure": ""}


def test_a_check_that_breaks_off_is_a_failure(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def work(_: str):
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(installation, "real_work", work)
    assert main(["doctor", "--device=cpu"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  work: RuntimeError: no kernel image is available" in out


def test_examples_are_in_the_help():
    assert "ddm doctor runs/edm" in doctor.EXAMPLES
