"""``ddm compare`` as a user meets it."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddm.cli import main
from ddm.commands.console import Console
from ddm.commands.entries import distinct
from ddm.commands.training import train
from ddm.data import get_data
from ddm.images import to_pil
from ddm.runs import log
from ddm.runs.config import override
from ddm.runs.recipes import recipes
from metrics.toys import toys

__all__ = ["toys"]

CHANGES = {
    "data": "shapes(count=40)",
    "image_size": 8,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 4,
    "train.steps": 2,
    "every.sample": 0,
    "sample.count": 4,
    "sample.steps": 2,
    "sample.guidance": 1.0,
}
REAL = "shapes(count=40)"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch):
    """Nothing may be sampled: what is wrong is told before."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("pictures were made")

    monkeypatch.setattr("ddm.runs.evaluation.make", fail)


def make_run(path: Path, **changes: object) -> Path:
    settings = CHANGES | {name.replace("__", "."): value for name, value in changes.items()}
    train(override(recipes["shapes"](), settings), path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a folder of pictures, and the same pictures with noise."""
    root = tmp_path_factory.mktemp("sources")
    make_run(root / "one")
    make_run(root / "two", train__seed=1)
    pixels = get_data("shapes(count=60, seed=5)", image_size=8).pixels
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) * 60
    noisy = (pixels + noise).round().clamp(0, 255).to(torch.uint8)
    for name, some in (("clean", pixels), ("noisy", noisy)):
        (root / name).mkdir()
        for number, each in enumerate(some):
            to_pil(each).save(root / name / f"{number:03}.png")
    np.savez(root / "clean.npz", images=pixels.permute(0, 2, 3, 1).numpy())
    return root


def compare(*arguments: object, metrics: str = "kid") -> int:
    toy = ["--features=toy_features", "--images=30", "--image-size=8", "--device=cpu", "--metrics", *metrics.split()]
    return main(["compare", *(str(each) for each in arguments), *toy])


def line(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([each for each in lines if each.startswith("ddm:")]) == 1
    return lines[-1]


def test_a_source_and_its_noisy_copy_differ_and_a_source_and_itself_do_not(
    runs: Path, toys: None, capsys: pytest.CaptureFixture
):
    clean, noisy = f"folder:{runs / 'clean'}", f"folder:{runs / 'noisy'}"
    assert compare(clean, noisy, f"npz:{runs / 'clean.npz'}", f"--reference={REAL}", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    found = {(each["first"], each["second"]): each["p"] for each in facts["differences"]}
    assert found["clean", "noisy"] < 0.001 and found["noisy", "clean.npz"] < 0.001
    assert found["clean", "clean.npz"] == 1


def test_the_table_of_runs(runs: Path, toys: None, tmp_path: Path, capsys: pytest.CaptureFixture):
    before = len(log.read(runs / "one" / "evaluations.jsonl"))
    sources = (runs / "one", runs / "two", f"folder:{runs / 'clean'}")
    assert compare(*sources, "--out", tmp_path / "out", "--seed=3", "--sampler=heun", metrics="mean_gap kid") == 0
    out, err = capsys.readouterr()
    table, differences = out.split("\n| metric")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines() if row.startswith("| ")]
    assert rows[0][:3] == ["source", "mean_gap [toy_features] ↓", "KID [toy_features] ↓"]
    assert [row[0] for row in rows[2:]] == ["one", "two", "clean"]
    costs = [dict(zip(rows[0], row)) for row in rows[2:]]
    assert [row["evaluations"] for row in costs] == ["3", "3", ""], "heun with 2 steps"
    assert float(costs[0]["seconds a picture"]) > 0 and costs[2]["seconds a picture"] == ""
    assert int(costs[0]["parameters"].replace(",", "")) > 1000
    assert "30 against 40 of shapes(count=40), toy_features, protocol" in table
    assert "one, two, clean: mean_gap [toy_features]: a toy" in table, "whose warning it is"
    assert "Holm" in differences and len(re.findall("^[|] (KID|mean_gap) ", differences, re.MULTILINE)) == 6
    assert "comparison.json, grids.png, table.csv, table.md, table.tex" in err
    assert (tmp_path / "out" / "table.md").read_text() == out
    records = log.read(runs / "one" / "evaluations.jsonl")[before:]
    assert [(each["by"], each["metric"], each["evaluations"]) for each in records] == [
        ("compare", "mean_gap", 3),
        ("compare", "kid", 3),
    ]


def test_all_files_say_the_same(runs: Path, toys: None, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "out"
    assert compare(runs / "one", f"folder:{runs / 'clean'}", "--nfe", 3, 6, "--published", "--out", out, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert json.loads((out / "comparison.json").read_text()) == facts
    head, *rows = list(csv.reader((out / "table.csv").read_text().splitlines()))
    values = [float(dict(zip(head, row))["KID [toy_features]"]) for row in rows[:2]]
    assert values == [each["value"] for each in facts["records"]]
    assert sum("published, other protocol" in row[-1] for row in rows) == len(rows) - 2 > 10
    assert (out / "table.tex").read_text().count(r"\midrule") == 2
    assert [(each["source"], each["evaluations"]) for each in facts["nfe"]] == [("one", 3), ("one", 5)], "heun: 2n - 1"
    assert [each["generation"]["steps"] for each in facts["nfe"]] == [2, 3]
    for name in ("grids.png", "nfe.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 400
    text = (out / "table.md").read_text()
    assert text.index("published, other") < text.index("Holm") < text.index("| one    |           3 |")


def test_the_ladder_is_not_on_record(runs: Path, toys: None, capsys: pytest.CaptureFixture):
    before = len(log.read(runs / "two" / "evaluations.jsonl"))
    assert compare(runs / "two", "--nfe", 5, 9) == 0
    assert len(log.read(runs / "two" / "evaluations.jsonl")) == before + 1, "it is not how the run is sampled"


def test_the_same_again_makes_no_picture_twice(runs: Path, toys: None, capsys: pytest.CaptureFixture):
    made = []
    for _ in range(2):
        assert compare(runs / "one", runs / "one", "--json") == 0
        records = json.loads(capsys.readouterr().out)["records"]
        made += [(each["source"], each["images_made"]) for each in records]
    one = str(runs / "one")
    assert made == [(one, 30), (f"{one} (2)", 0), (one, 0), (f"{one} (2)", 0)]


def test_settings_go_to_all_that_can_take_them(runs: Path, toys: None, capsys: pytest.CaptureFixture):
    options = ("--sampler=ddim", "--steps=4", "--weights=raw", "--json")
    assert compare(runs / "one", f"folder:{runs / 'clean'}", *options) == 0
    one, clean = json.loads(capsys.readouterr().out)["records"]
    assert (one["generation"]["sampler"], one["evaluations"], one["weights"]) == ("ddim", 4, "raw")
    assert clean["generation"] == {} and clean["evaluations"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ONE NOTHERE", "is neither a run folder nor a checkpoint"),
        ("ONE folder:NOTHERE", "source:"),
        ("ONE npz:CLEAN --images=61", "images: 61 is not allowed; clean.npz has only 60"),
        ("ONE npz:CLEAN --seed=31", "images: 30 from number 31 on is not allowed; clean.npz has only 60"),
        ("ONE SMALL", "one has pictures of 8x8x3 and small of 16x16x3; allowed: one size"),
        ("ONE OTHER", "reference: one learned from shapes(count=40) and other from shapes(count=30); name one, as in"),
        ("npz:CLEAN --steps=3", "steps: 3 is not allowed: none of these sources can take it"),
        ("npz:CLEAN --nfe 3", "nfe: none of these sources has a network"),
        ("ONE --nfe 0", "nfe: 0 is not allowed; allowed: 1 or more"),
        ("ONE --nfe 3 --sampler=ddim --grid=trailing --nfe 5000", "sample.steps: 5000 is not allowed"),
        ("ONE --nfe 1 --guidance=2", "nfe: 1 is not allowed; allowed: 2 or more"),
        ("ONE --metrics fidd", "evaluate.metrics: 'fidd' is unknown"),
        ("ONE --reference=cifar11", "'cifar11' is unknown"),
        ("ONE --force", "force: all is measured alike without --recorded"),
        ("ONE --recorded --steps=3", "steps: nothing is measured with --recorded"),
        ("ONE --recorded --nfe 3", "nfe: nothing is measured with --recorded"),
        ("ONE --out CLEAN", "is not allowed: File exists; allowed: a folder"),
        ("ONE --images=0", "images: 0 is not allowed"),
        ("", "the following arguments are required: SOURCE"),
    ],
)
def test_bad_requests_are_one_line_before_any_picture(
    runs: Path,
    toys: None,
    no_pictures: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    arguments: str,
    message: str,
):
    if "SMALL" in arguments:
        make_run(tmp_path / "small", image_size=16)
    if "OTHER" in arguments:
        make_run(tmp_path / "other", data="shapes(count=30)")
    capsys.readouterr()
    places = {"ONE": runs / "one", "CLEAN": runs / "clean.npz", "NOTHERE": tmp_path / "nothere"}
    places |= {"SMALL": tmp_path / "small", "OTHER": tmp_path / "other"}
    words = re.sub("|".join(places), lambda found: str(places[found[0]]), arguments).split()
    toy = ["--features=toy_features", "--device=cpu"]
    toy += [] if "--images" in arguments or "--recorded" in arguments else ["--images=30"]
    toy += ["--image-size=8"] if "npz:" in arguments else []
    assert main(["compare", *words, *toy]) == 2
    assert message in line(capsys)


def test_a_reference_that_is_named_settles_what_they_learned(
    runs: Path, toys: None, tmp_path: Path, capsys: pytest.CaptureFixture
):
    other = make_run(tmp_path / "other", data="shapes(count=30)")
    assert compare(runs / "one", other, f"--reference={REAL}") == 0
    assert "30 against 40 of shapes(count=40)" in capsys.readouterr().out


def test_what_runs_have_on_record(
    runs: Path, toys: None, no_pictures: None, tmp_path: Path, capsys: pytest.CaptureFixture
):
    protocol = dict.fromkeys(("reference", "reference_digest", "features_digest", "resize", "pictures"), "x")
    protocol |= {"n_real": 5, "first_seed": 0, "features": "toy_features"}
    for name, value, count in (("a", 3.0, 100), ("b", 9.0, 100), ("c", 1.0, 50)):
        run = make_run(tmp_path / name)
        record = {"metric": "kid", "label": "KID", "value": value, "low": value - 0.1, "high": value + 0.1}
        log.append(
            run / "evaluations.jsonl",
            {**record, "better": "lower", "step": 2, "protocol": protocol | {"n_fake": count}},
        )
    recorded = lambda names, *flags: main(["compare", *(str(tmp_path / name) for name in names), "--recorded", *flags])
    capsys.readouterr()
    assert recorded("ab") == 0
    out, _ = capsys.readouterr()
    assert "| a, step 2 | **3.00** [2.90, 3.10] |" in out and "| < 0.0001 |" in out and "KID: 100 against 5 of x" in out
    assert recorded("abc") == 2
    assert "a, step 2 and c, step 2 were not measured alike: n_fake 100 and 50" in line(capsys)
    assert recorded("abc", "--force") == 0
    out, _ = capsys.readouterr()
    assert re.search(r"[|] c, step 2 [|] +≠ 1.00 \[0.90, 1.10\] [|]", out)
    assert re.search(r"[|] a, step 2 [|] +3.00 \[2.90, 3.10\] [|]", out)
    assert "**" not in out and "p: two-sided" not in out
    assert "≠ KID of c, step 2 and of a, step 2 differ in n_fake 100 and 50." in out
    assert recorded("ab", "--images=50") == 2
    assert "has no such number on record; measure it with ddm evaluate" in line(capsys)
    assert recorded("ac", "--images=100") == 2
    assert main(["compare", "folder:x", "--recorded"]) == 2


def test_raw_and_averaged_weights_on_record_are_not_set_side_by_side(
    tmp_path: Path, toys: None, no_pictures: None, capsys: pytest.CaptureFixture
):
    protocol = dict.fromkeys(("reference", "reference_digest", "features_digest", "resize", "pictures"), "x")
    protocol |= {"n_real": 5, "n_fake": 9, "first_seed": 0, "features": "toy_features"}
    for name, weights in (("a", "ema"), ("b", "raw")):
        run = make_run(tmp_path / name)
        record = {"metric": "kid", "label": "KID", "value": 1.0, "low": 0.9, "high": 1.1, "better": "lower"}
        made = {"step": 2, "weights": weights, "generation": {"sampler": "heun", "steps": 2}, "warnings": ["too few"]}
        log.append(run / "evaluations.jsonl", record | made | {"protocol": protocol})
    both = [str(tmp_path / "a"), str(tmp_path / "b"), "--recorded"]
    capsys.readouterr()
    assert main(["compare", *both]) == 2
    assert "weights: a, step 2 has ema, b, step 2 has raw; measure both" in line(capsys)
    assert main(["compare", *both, "--force"]) == 0
    out, _ = capsys.readouterr()
    assert "| made with" in out and "weights raw, sampler heun, steps 2" in out
    assert "b, step 2, KID: too few." in out


def test_names_tell_sources_apart():
    assert distinct(["a", "b"], ["runs/a", "runs/b"]) == ["a", "b"]
    assert distinct(["a", "a", "b"], ["x/a", "y/a", "b"]) == ["x/a", "y/a", "b"]
    assert distinct(["a", "a", "x (2)"], ["x", "x", "z"]) == ["x", "x (2)", "x (2) (2)"]


SCRIPT = """
import sys
from ddm.cli import main
from ddm.metrics import features, metrics
from metrics.toys import ToyFeatures, mean_gap
features.register(ToyFeatures), metrics.register(mean_gap)
sys.exit(main(sys.argv[1:]))
"""


def test_of_two_processes_one_writes_and_speaks(runs: Path, toys: None, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "script.py").write_text(SCRIPT)
    arguments = [
        "compare",
        runs / "two",
        f"folder:{runs / 'clean'}",
        "--features=toy_features",
        "--metrics",
        "mean_gap",
    ]
    arguments = [str(each) for each in [*arguments, "--images=30", "--image-size=8", "--device=cpu", "--json"]]
    before = len(log.read(runs / "two" / "evaluations.jsonl"))
    path = os.pathsep.join(str(Path(__file__).parent.parent / each) for each in (".", "../src"))
    environment = {**os.environ, "PYTHONPATH": path, "HF_ASSETS_CACHE": str(tmp_path / "two")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, tmp_path / "script.py", *arguments, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert len(log.read(runs / "two" / "evaluations.jsonl")) == before + 1
    assert sorted(each.name for each in (tmp_path / "out").iterdir())[0] == "comparison.json"
    assert done.stderr.count("model   clean") == 1
    assert main(arguments) == 0
    alone = json.loads(capsys.readouterr().out)
    values = [[each["value"] for each in found["records"]] for found in (facts, alone)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
