"""The engine behind ddm evaluate: oracles are pictures and a metric whose answers are known."""

import json
import os
from pathlib import Path

import pytest
import torch

from ddm.data import get_data
from ddm.errors import DdmError, RequestError
from ddm.runs.config import Evaluation
from ddm.runs.evaluation import Evaluated, Evaluator, check
from ddm.runs.pictures import Kept, make
from ddm.runs.progress import Progress, finish
from ddm.storage import cache_folder
from ddm.training import Team
from metrics.toys import ToyGenerator, mean_gap, toys

__all__ = ["toys"]

SETTINGS = Evaluation(metrics=("mean_gap",), features="toy_features", images=230)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


@pytest.fixture
def evaluator(toys: None) -> Evaluator:
    return Evaluator(SETTINGS, get_data("shapes(count=700)", image_size=8), team=Team("cpu"))


def evaluate(evaluator: Evaluator, generator: ToyGenerator, identity: str | None = "model", **options) -> Evaluated:
    found = finish(evaluator.evaluate(generator, identity=identity, **options))
    assert found is not None
    return found


def test_the_number_is_the_metrics_own(evaluator: Evaluator):
    generator = ToyGenerator(level=0.2)
    found = evaluate(evaluator, generator)
    assert generator.made == list(range(230)), "every seed once, in order"
    assert found.fake.pixels.shape == (230, 3, 8, 8) and len(found.real) == 700
    assert found.measurements["mean_gap"].value == mean_gap(found.real, found.fake).value > 1
    assert torch.equal(found.fake.pixels, ToyGenerator(level=0.2).generate(range(230)))


def test_the_protocol_says_how(evaluator: Evaluator):
    protocol = evaluate(evaluator, ToyGenerator(), seed=5).protocol
    assert (protocol.n_real, protocol.n_fake, protocol.first_seed) == (700, 230, 5)
    assert (protocol.reference, protocol.features) == ("shapes(count=700)", "toy_features")
    assert protocol.reference_digest == get_data("shapes(count=700)", image_size=8).digest
    assert (protocol.pictures, protocol.resize) == ("8x8x3", "none")


def test_progress_reaches_every_end(evaluator: Evaluator):
    seen: list[Progress] = []
    finish(evaluator.evaluate(ToyGenerator(), identity=None), seen.append)
    assert list(dict.fromkeys(each.what for each in seen)) == ["reference", "pictures", "features", "mean_gap"]
    for what, total in (("reference", 700), ("pictures", 230), ("features", 230)):
        assert [each for each in seen if each.what == what][-1] == Progress(what, total, total)


def test_a_killed_evaluation_goes_on_where_it_was(evaluator: Evaluator):
    killed = ToyGenerator(dies_after=200)
    with pytest.raises(KeyboardInterrupt):
        evaluate(evaluator, killed)
    assert len(killed.made) == 200
    again = ToyGenerator()
    found = evaluate(evaluator, again)
    assert again.made == list(range(200, 230)) and found.made == 30
    assert torch.equal(found.fake.pixels, ToyGenerator().generate(range(230)))
    third = ToyGenerator()
    assert evaluate(evaluator, third).made == 0 and third.made == []


@pytest.mark.parametrize("change", ["identity", "settings", "shape", "code"])
def test_kept_pictures_are_those_of_the_very_model(evaluator: Evaluator, change: str, monkeypatch: pytest.MonkeyPatch):
    evaluate(evaluator, ToyGenerator())
    other = ToyGenerator(level=0.1 if change == "settings" else 0.0)
    if change == "code":
        monkeypatch.setattr("ddm.runs.pictures.code_digest", lambda: "other")
    if change == "shape":
        other.shape = (3, 8, 16)
    evaluate(evaluator, other, identity="another" if change == "identity" else "model")
    assert len(other.made) == 230


def test_without_an_identity_nothing_is_kept(evaluator: Evaluator):
    evaluate(evaluator, ToyGenerator(), identity=None)
    assert not list(cache_folder("pictures").rglob("*.safetensors"))
    assert len(list(cache_folder("features").rglob("*.safetensors"))) == 2, "the reference alone"


def test_features_are_made_once(evaluator: Evaluator):
    evaluate(evaluator, ToyGenerator())
    assert evaluator.extractor.seen == 700 + 230
    evaluate(evaluator, ToyGenerator())
    assert evaluator.extractor.seen == 930
    fresh = Evaluator(SETTINGS, get_data("shapes(count=700)", image_size=8), team=Team("cpu"))
    evaluate(fresh, ToyGenerator())
    assert fresh.extractor.seen == 0


def test_a_kept_file_cut_in_half_is_made_again_with_a_word(toys: None):
    said: list[str] = []
    evaluator = Evaluator(SETTINGS, get_data("shapes(count=700)", image_size=8), team=Team("cpu"), say=said.append)
    before = evaluate(evaluator, ToyGenerator())
    for kind in ("pictures", "features"):
        for path in cache_folder(kind).rglob("*.safetensors"):
            os.truncate(path, path.stat().st_size // 2)
    evaluator = Evaluator(SETTINGS, get_data("shapes(count=700)", image_size=8), team=Team("cpu"), say=said.append)
    after = evaluate(evaluator, ToyGenerator())
    assert len(said) == 3 + 3 and all("is damaged and is made again" in each for each in said)
    assert after.measurements == before.measurements and after.made == 230


def test_the_reference_is_never_mirrored_or_shuffled(evaluator: Evaluator):
    data = get_data("shapes(count=700)", image_size=8)
    found = evaluate(evaluator, ToyGenerator())
    assert torch.equal(found.real.pixels, data.pixels)
    assert found.real.labels is not None and torch.equal(found.real.labels, data.labels)


def test_labels_go_with_the_pictures(evaluator: Evaluator):
    found = evaluate(evaluator, ToyGenerator(classes=4), identity=None, seed=3)
    assert found.fake.labels is not None and found.fake.labels[:6].tolist() == [3, 0, 1, 2, 3, 0]
    assert evaluate(evaluator, ToyGenerator(), identity=None).fake.labels is None


def test_labels_are_matched_by_name(evaluator: Evaluator):
    names = evaluator.reference.classes
    turned = finish(evaluator.evaluate(ToyGenerator(classes=4), identity=None, classes=names[::-1]))
    assert turned is not None and turned.fake.labels is not None
    assert turned.fake.labels[:4].tolist() == [len(names) - 1 - label for label in range(4)]
    other = finish(evaluator.evaluate(ToyGenerator(classes=4), identity=None, classes=("cat", "dog", "cow", "hen")))
    assert other is not None and other.fake.labels is None


def test_pictures_that_are_there_already_are_not_kept(evaluator: Evaluator):
    found = evaluate(evaluator, ToyGenerator(limit=300))
    assert found.made == 0 and not list(cache_folder("pictures").rglob("*.safetensors"))


def test_stored_pictures_are_taken_from_all_over(evaluator: Evaluator):
    generator = ToyGenerator(limit=3000)
    evaluate(evaluator, generator)
    assert len(set(generator.made)) == 230 and max(generator.made) > 2700 and min(generator.made) < 300


def test_a_metric_without_a_number_takes_no_other_along(toys: None):
    settings = SETTINGS.model_copy(update={"metrics": ("mean_gap", "fid_infinity"), "images": 20})
    evaluator = Evaluator(settings, get_data("shapes(count=700)", image_size=8), team=Team("cpu"))
    found = evaluate(evaluator, ToyGenerator())
    assert set(found.measurements) == {"mean_gap"} and len(found.records()) == 1
    assert "20 are too few" in found.failed["fid_infinity"]
    alone = settings.model_copy(update={"metrics": ("fid_infinity",)})
    with pytest.raises(DdmError, match="20 are too few"):
        evaluate(Evaluator(alone, evaluator.reference, team=Team("cpu")), ToyGenerator())


def test_missing_labels_are_told_before_pictures_are_made(toys: None):
    settings = SETTINGS.model_copy(update={"metrics": ("mean_gap", "class_kid")})
    evaluator = Evaluator(settings, get_data("shapes(count=700)", image_size=8), team=Team("cpu"))
    generator = ToyGenerator()
    with pytest.raises(RequestError, match="class_kid needs labels; the generator has none"):
        evaluate(evaluator, generator)
    assert generator.made == []


def test_records_are_plain_and_complete(evaluator: Evaluator):
    found = evaluate(evaluator, ToyGenerator(level=0.2))
    (record,) = found.records(model="m", step=3)
    assert json.loads(json.dumps(record)) == record
    assert record["metric"] == "mean_gap" and record["label"] == "mean_gap [toy_features]" and record["step"] == 3
    assert record["low"] < record["value"] < record["high"] and record["warnings"] == ["a toy"]
    assert record["protocol_digest"] == found.protocol.digest
    assert record["images_made"] == 230 and record["images_per_second"] > 0
    (again,) = evaluate(evaluator, ToyGenerator(level=0.2)).records()
    assert again["images_made"] == 0 and again["images_per_second"] is None, "no speed of pictures that were not made"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ()}, "evaluate.metrics: none is not allowed"),
        ({"metrics": ("fidd",)}, "evaluate.metrics: 'fidd' is unknown"),
        ({"metrics": ("kid(pictures=1)",)}, "pictures must be greater than or equal to 2"),
        ({"features": "inseption"}, "evaluate.features: 'inseption' is unknown .did you mean 'inception'"),
    ],
)
def test_bad_requests_are_one_line(settings: dict, message: str):
    with pytest.raises(RequestError, match=message):
        check(Evaluation().model_copy(update=settings))


def test_too_few_pictures_are_told_before_work(evaluator: Evaluator):
    few = ToyGenerator(limit=100)
    with pytest.raises(RequestError, match="images: 230 is not allowed; there are only 100"):
        evaluate(evaluator, few)
    assert few.made == []


def test_leaving_ends_the_work_at_once(evaluator: Evaluator):
    generator, calls = ToyGenerator(), iter([False, False, False, True])
    assert finish(evaluator.evaluate(generator, identity=None), leave=lambda: next(calls)) is None
    assert len(generator.made) < 230


def test_a_failure_on_one_process_is_raised():
    def fail() -> None:
        raise DdmError("pictures of seeds 3 are not finite")

    with pytest.raises(DdmError, match="seeds 3"):
        Team("cpu").together(fail)


def test_parts_cover_everything_once_gathered():
    team = Team("cpu")
    for processes in (1, 2, 3, 8):
        team.count, whole = processes, []
        for team.rank in range(processes):
            whole += team.part(10)
        assert whole[:10] == list(range(10))
        assert len(whole) % processes == 0


def test_pictures_do_not_depend_on_the_batch():
    made = [
        finish(make(ToyGenerator(), range(7, 30), team=Team("cpu"), batch=batch, kept=None)) for batch in (1, 5, 64)
    ]
    pixels = [each[0] for each in made if each is not None]
    assert len(pixels) == 3 and all(torch.equal(each, pixels[0]) for each in pixels)


def test_kept_pictures_survive_only_whole(tmp_path: Path):
    said: list[str] = []
    kept = Kept("model", ToyGenerator(), "cpu", said.append)
    kept.write(range(3), ToyGenerator().generate(range(3)))
    found = kept.read(range(3))
    assert found is not None and torch.equal(found, ToyGenerator().generate(range(3)))
    (path,) = kept.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert kept.read(range(3)) is None and len(said) == 1
