"""The Compare tab without its page: tables of what is on record, and the training pictures nearest to a sample."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from browser import put_on_record

from ddm import get_data, load
from ddm.commands.studio import comparing, training_set
from ddm.commands.studio.comparing import recorded_table, table_in_html
from ddm.errors import RequestError
from ddm.metrics.published import PUBLISHED
from ddm.runs.model import Model
from ddm.runs.progress import Progress, finish
from ddm.runs.tables import Cell, Column, Table
from pages import Page


@pytest.fixture(scope="module")
def models(runs: list[Path]) -> dict[str, Model]:
    return {run.name: load(run, device="cpu") for run in runs}


@pytest.fixture
def copied(runs: list[Path], tmp_path: Path) -> Model:
    """The first run elsewhere, without its numbers."""
    path = Path(shutil.copytree(runs[0], tmp_path / "copied"))
    (path / "evaluations.jsonl").unlink()
    return load(path, device="cpu")


def values(table: Table, name: str) -> list[object]:
    place = [column.name for column in table.columns].index(name)
    return [row[place].value for row in table.rows]


def test_numbers_come_from_the_run_folders(models: dict[str, Model]):
    table = recorded_table(models, published=False)
    assert values(table, "source") == ["first, step 24", "second, step 24"]
    assert values(table, "FID") == [20.0, 21.0]
    assert table.rows[0][1].mark == "best"
    assert all(isinstance(each, int) and each > 1000 for each in values(table, "parameters"))
    assert not table.below


def test_nothing_is_measured(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *_, **__: pytest.fail("a network was asked"))
    recorded_table(models, published=True)


def test_published_numbers_stand_apart_and_say_so(models: dict[str, Model]):
    table = recorded_table(models, published=True)
    assert len(table.below) == len(PUBLISHED)
    assert all(str(row[-1].value).startswith("published, other protocol") for row in table.below)
    page = Page(table_in_html(table, "Numbers"))
    assert [each.get("class") for each in page.all("tbody")] == ["", "published"]
    assert "Ho et al. 2020" in page.text


def test_what_has_no_numbers_says_how_to_get_them(copied: Model, models: dict[str, Model]):
    some = recorded_table({**models, "new": copied}, published=False)
    assert values(some, "source")[-1] == "new" and values(some, "FID")[-1] is None
    assert "Nothing is on record of new; ddm evaluate measures it." in some.notes
    none = recorded_table({"new": copied}, published=False)
    assert list(none.notes) == [comparing.UNMEASURED]


def test_numbers_of_other_protocols_are_marked_not_refused(copied: Model, models: dict[str, Model]):
    assert copied.run is not None
    put_on_record(copied.run, 3.0, n_fake=77)
    table = recorded_table({**models, "few": copied}, published=False)
    assert table.rows[-1][1].mark == "unequal"
    assert any(note.startswith("≠ FID of few") for note in table.notes)


def test_models_with_nothing_in_common_are_still_shown(copied: Model, models: dict[str, Model]):
    assert copied.run is not None
    put_on_record(copied.run, 0.1, metric="kid", label="KID")
    table = recorded_table({"first": models["first"], "other": copied}, published=False)
    assert [values(table, "FID"), values(table, "KID")] == [[20.0, None], [None, 0.1]]


def test_a_damaged_record_names_no_folder(copied: Model):
    assert copied.run is not None
    (copied.run / "evaluations.jsonl").write_text('{"metric": "fid"}\nnonsense\n{}\n')
    table = recorded_table({"new": copied}, published=False)
    assert str(copied.run) not in table_in_html(table, "Numbers")


def test_a_table_is_for_those_who_do_not_see_it_too():
    cells = [Cell("<b>a & b</b>"), Cell(12.34, 12.0, 12.7, "best"), Cell("words")]
    other = [Cell("c"), Cell(13.0, 12.5, 13.5, "tied"), Cell()]
    third = [Cell("d"), Cell(9.0, 8.0, 10.0, "unequal"), Cell()]
    columns = [Column("source"), Column("FID", "lower"), Column("made with")]
    page = Page(table_in_html(Table(columns, [cells, other, third], notes=["1 < 2"]), "What was measured"))
    (region,) = [each for each in page.all("div") if each.get("role") == "region"]
    assert region["tabindex"] == "0" and region["aria-label"] == "What was measured"
    assert [each["scope"] for each in page.all("th")] == ["col"] * 3 + ["row"] * 3
    assert "<b>a & b</b>" in page.text and not page.all("b"), "names are words, not markup"
    for words in ("FID ↓", "12.34 [12.00, 12.70]", "13.00 [12.50, 13.50] ≈", "≠ 9.0 [8.0, 10.0]", "1 < 2"):
        assert words in page.text
    assert len(page.all("strong")) == 1


def nearest(model: Model, pixels: torch.Tensor) -> list:
    found = finish(training_set.nearest_to(model, pixels))
    assert found is not None
    return found


def test_the_nearest_training_picture_of_a_training_picture_is_itself(models: dict[str, Model]):
    data = get_data("shapes(count=64)", image_size=16)
    found = nearest(models["first"], torch.stack([data.pixels[7], 255 - data.pixels[9], data.pixels[20].flip(-1)]))
    assert [each.place for each in found] == [0, 1, 2], "in the order of the pictures"
    assert (found[0].ratio, found[0].neighbours[0].number, found[0].neighbours[0].levels) == (0, 7, 0)
    assert found[1].ratio > 0.5
    mirrored = models["first"].config.train.flip
    assert (found[2].neighbours[0].number == 20 and found[2].neighbours[0].mirrored) == mirrored


def test_the_search_says_how_far_it_is_and_can_be_left(models: dict[str, Model]):
    work = training_set.nearest_to(models["first"], models["first"].sample(1))
    assert next(work) == Progress("neighbours", 0, 64)
    work.close()


def test_training_pictures_by_number(models: dict[str, Model]):
    data = get_data("shapes(count=64)", image_size=16)
    pixels, label = training_set.training_picture(models["first"], 9)
    assert pixels.equal(data.pixels[9]) and label == data.classes[1]
    for number in (-1, 64):
        with pytest.raises(RequestError, match=f"number: {number} is not allowed; allowed: 0 to 63"):
            training_set.training_picture(models["first"], number)


def with_data(model: Model, data: str) -> Model:
    assert model.config is not None
    return replace(model, config=model.config.model_copy(update={"data": data}))


def test_pictures_that_are_not_at_hand_are_not_asked_for(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("DDM_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("ddm.commands.studio.training_set.get_data", lambda *_, **__: pytest.fail("asked for"))
    for data in ("cifar10", 'hub(id="somebody/something")'):
        with pytest.raises(RequestError, match="the training pictures of first are not on this machine"):
            training_set.training_set(with_data(models["first"], data))


def test_pictures_that_cannot_be_read_name_no_folder(models: dict[str, Model], tmp_path: Path):
    missing = with_data(models["first"], f'folder(path="{tmp_path}/secret")')
    with pytest.raises(RequestError, match="the training pictures of first cannot be read here") as caught:
        training_set.training_set(missing)
    assert "secret" not in str(caught.value)


def test_other_pictures_than_those_of_the_training_are_told_apart(models: dict[str, Model]):
    with pytest.raises(RequestError, match="are no longer those that first learned from"):
        training_set.training_set(with_data(models["first"], "shapes(count=65)"))


def test_what_was_not_trained_has_no_training_pictures(models: dict[str, Model]):
    with pytest.raises(RequestError, match="it has no training pictures; allowed: a run"):
        training_set.training_set(replace(models["first"], config=None))
