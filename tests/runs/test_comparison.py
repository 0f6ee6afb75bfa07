"""The tables of a comparison, what is on record, and the two pictures."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ddm.errors import RequestError
from ddm.metrics import Measurement
from ddm.metrics.intervals import around
from ddm.metrics.protocols import Protocol
from ddm.metrics.published import PUBLISHED
from ddm.runs import log
from ddm.runs.comparison import (
    PUBLISHED_FID,
    Compared,
    all_differences,
    comparison_table,
    difference_table,
    ladder_table,
)
from ddm.runs.config import Config
from ddm.runs.folder import dump_config
from ddm.runs.recorded import Recorded, compare_recorded, read_recorded
from ddm.runs.side_by_side import draw_side_by_side
from ddm.runs.tables import Table, markdown
from ddm.runs.tradeoff import draw_tradeoff

PROTOCOL = Protocol("cifar10", "abc", 50_000, 10_000, 0, "inception", "def", "none", "32x32x3")


def measurement(value: float, error: float = 0.1, **options) -> Measurement:
    return Measurement(value, *around(value, error), **options)


def compared(name: str, fid: float, recall: float = 0.5, **options) -> Compared:
    numbers = {"FID": measurement(fid), "recall": measurement(recall, 0.01, better="higher")}
    return Compared(name, numbers, **options)


def column(table: Table, name: str) -> list:
    number = [each.name for each in table.columns].index(name)
    return [row[number] for row in table.rows]


def test_one_row_a_source_and_one_column_a_metric():
    sources = [compared("a", 3.0, 0.6, parameters=5, evaluations=35, seconds=0.2), compared("b", 2.0, 0.4)]
    table = comparison_table(sources, all_differences(sources))
    assert [each.heading for each in table.columns] == [
        "source",
        "FID ↓",
        "recall ↑",
        "parameters",
        "evaluations",
        "seconds a picture",
    ]
    assert [(cell.value, cell.mark) for cell in column(table, "FID")] == [(3.0, ""), (2.0, "best")]
    assert [cell.mark for cell in column(table, "recall")] == ["best", ""]
    assert [cell.value for cell in column(table, "evaluations")] == [35, None]
    assert table.rows[0][1].low == pytest.approx(3 - 0.196)


def test_costs_of_which_nothing_is_known_have_no_column():
    table = comparison_table([compared("a", 1)], [])
    assert [each.name for each in table.columns] == ["source", "FID", "recall"]
    assert not table.notes, "one source alone is not the best of anything"


def test_a_number_that_one_source_lacks_is_left_empty():
    sources = [compared("a", 1), Compared("b", {"FID": measurement(9)}), compared("c", 1.1)]
    found = all_differences(sources)
    assert len([each for each in found if each.metric == "recall"]) == 1
    assert column(comparison_table(sources, found), "recall")[1].value is None


def test_published_numbers_stand_apart():
    sources = [compared("a", 3.0), compared("b", 99.0)]
    table = comparison_table(sources, all_differences(sources), published=True)
    assert len(table.below) == len(PUBLISHED) and len(table.rows) == 2
    names = [each.name for each in table.columns]
    for row, published in zip(table.below, PUBLISHED):
        cells = dict(zip(names, row))
        filled = {name for name, cell in cells.items() if cell.value is not None}
        assert filled <= {"source", "evaluations", PUBLISHED_FID, "from"}, "no column of ours"
        assert cells[PUBLISHED_FID].value == published.value and published.source in cells["from"].value
        assert cells["from"].value.startswith("published, other protocol: ")
        assert not any(cell.mark or cell.low is not None for cell in row), "no rank and no interval"
    assert [cell.value for cell in column(table, PUBLISHED_FID)] == [None, None]
    assert [cell.mark for cell in column(table, "FID")] == ["best", ""], "though papers have lower numbers"
    _, *rows = markdown(table).partition("| ---  ")[2].splitlines()
    assert len([line for line in rows if "published, other" in line]) == len(PUBLISHED)
    assert not any("**" in line for line in rows if line.startswith("|"))
    assert not any("published" in each.first + each.second for each in all_differences(sources))


def test_the_second_table_says_what_it_takes_for_granted():
    sources = [compared("a", 3.0), compared("b", 3.2), compared("c", 30)]
    table = difference_table(all_differences(sources))
    assert len(table.rows) == 2 * 3
    first = [cell.value for cell in table.rows[0]]
    assert first[:3] == ["FID", "a - b", pytest.approx(-0.2)] and 0.1 < float(first[3]) < 0.2
    assert table.rows[1][3].value == "< 0.0001"
    (note,) = table.notes
    for word in ("Holm", "independent", "reference as given", "equal seeds"):
        assert word in note


def test_a_source_and_itself_do_not_differ():
    sources = [compared("a", 3.0), compared("a (2)", 3.0)]
    found = all_differences(sources)
    assert [(each.value, each.p) for each in found] == [(0, 1), (0, 1)]
    assert [cell.mark for cell in column(comparison_table(sources, found), "FID")] == ["best", "best"]


def test_numbers_of_another_protocol_are_marked_and_take_no_part():
    sources = [compared("a", 3.0), compared("b", 1.0, unequal=frozenset({"FID"})), compared("c", 4.0)]
    found = all_differences(sources)
    assert {each.metric for each in found} == {"recall"}
    table = comparison_table(sources, found)
    assert [cell.mark for cell in column(table, "FID")] == ["", "unequal", ""]
    assert any(note.startswith("≠ before a number") for note in table.notes)
    assert "≠ 1.00" in markdown(table)


def test_a_number_that_is_none_is_never_the_best():
    sources = [compared("a", float("nan")), compared("b", 5.0), compared("c", 6.0)]
    table = comparison_table(sources, all_differences(sources))
    assert [cell.mark for cell in column(table, "FID")] == ["", "best", ""]


def record(metric: str = "fid", value: float = 3.0, *, step: int = 9, **protocol) -> dict:
    own = asdict(PROTOCOL) | protocol
    named = "FID" if own["features"] == "inception" else f"FD [{own['features']}]"
    shared = {"step": step, "weights": "ema", "protocol": own, "label": named if metric == "fid" else metric}
    return {"metric": metric, "value": value, "low": value - 1, "high": value + 1, "better": "lower", **shared}


def run_with(path: Path, *records: dict) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(dump_config(Config()))
    for each in records:
        log.append(path / "evaluations.jsonl", each)
    return path


def test_the_latest_records_of_one_model_are_read(tmp_path: Path):
    old = [record(value=8, step=3), record("kid", 7, step=3)]
    new = [record(value=5), record(value=4), record("recall", 0.5)]
    found = read_recorded(run_with(tmp_path / "a", *old, *new))
    assert found.name == "a, step 9", "and nothing of step 3"
    assert {label: each["value"] for label, each in found.records.items()} == {"FID": 4, "recall": 0.5}


def test_records_are_chosen_by_what_is_asked_for(tmp_path: Path):
    run = run_with(
        tmp_path / "a", record(value=1), record(value=2, features="efficientnet"), record(value=3, n_fake=100)
    )
    values = {"features": "efficientnet", "images": 10_000, "metrics": ["fid"]}
    assert read_recorded(run, **values).records["FD [efficientnet]"]["value"] == 2
    assert read_recorded(run, images=100).records["FID"]["value"] == 3
    with pytest.raises(RequestError, match="has no such number on record; measure it with ddm evaluate"):
        read_recorded(run, metrics=["kid"])


def test_equal_protocols_are_compared():
    runs = [Recorded("a", {"FID": record(value=3)}), Recorded("b", {"FID": record(value=9, reference="parquet")})]
    sources, notes = compare_recorded(runs)
    assert [each.measurements["FID"].value for each in sources] == [3, 9]
    assert [cell.mark for cell in column(comparison_table(sources, all_differences(sources)), "FID")] == ["best", ""]
    assert notes == [f"FID: {PROTOCOL.name}."]


def test_unequal_protocols_are_refused_or_marked():
    few = record(value=9, n_fake=500)
    runs = [Recorded("a", {"FID": record()}), Recorded("b", {"FID": few}), Recorded("c", {"FID": record()})]
    with pytest.raises(RequestError, match="a and b were not measured alike: n_fake 10000 and 500"):
        compare_recorded(runs)
    sources, notes = compare_recorded(runs, force=True)
    assert [sorted(each.unequal) for each in sources] == [[], ["FID"], []]
    assert notes[1:] == ["≠ FID of b and of a differ in n_fake 10000 and 500."]
    assert all_differences(sources) == []


def test_runs_without_a_common_number_are_refused():
    runs = [Recorded("a", {"FID": record()}), Recorded("b", {"FD [x]": record(features="x")})]
    with pytest.raises(RequestError, match=r"no number is on record of two runs: a has FID; b has FD \[x\]"):
        compare_recorded(runs)


def coloured(count: int, level: int, *, channels: int = 3) -> Tensor:
    """Pictures whose colour tells their number and their source."""
    pixels = torch.full((count, channels, 8, 8), level, dtype=torch.uint8)
    pixels[:, 0] = torch.arange(count, dtype=torch.uint8)[:, None, None] * 5
    return pixels


def of_level(sheet: np.ndarray, level: int) -> np.ndarray:
    """Where pictures of a source are; letters are gray, and these are not."""
    return (sheet[..., 1] == level) & (sheet[..., 2] == level) & (sheet[..., 0] != level)


def drawn(path: Path, pictures: dict[str, Tensor], **captions: str) -> np.ndarray:
    draw_side_by_side(pictures, dict.fromkeys(pictures, "") | captions, path, title="how")
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_same_place_of_every_block_is_the_same_seed(tmp_path: Path):
    levels = {"a": 91, "b": 141, "c": 191}
    sheet = drawn(tmp_path / "x" / "grids.png", {name: coloured(40, level) for name, level in levels.items()})
    places = []
    for level in levels.values():
        rows, columns = np.nonzero(of_level(sheet, level))
        block = sheet[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1, 0]
        places.append(block)
        # Pictures of one size on a lattice, one narrow gap between two: the reds of the first 36 seeds in order.
        pitch, side = block.shape[0] / 6, int((block[0] == block[0, 0]).argmin())
        centres = (np.arange(6) * (block.shape[0] - side) / 5 + side / 2).astype(int)
        assert block[np.ix_(centres, centres)].flatten().tolist() == [5 * seed for seed in range(36)]
        assert side >= pitch * 0.8
    assert all(np.array_equal(block, places[0]) for block in places)


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3), (6, 3), (7, 4), (9, 3)])
def test_blocks_fill_their_rows(tmp_path: Path, count: int, wanted: int):
    sheet = drawn(tmp_path / "grids.png", {str(number): coloured(4, 77) for number in range(count)})
    first = np.nonzero(of_level(sheet, 77).any(1))[0].min()
    inside = of_level(sheet, 77)[first].astype(int)
    starts = np.nonzero(np.diff(inside, prepend=0) == 1)[0]
    assert len(starts) == 2 * wanted, "two pictures side by side in each block of the first row"


def test_names_are_drawn_and_never_run_into_each_other(tmp_path: Path):
    plain = drawn(tmp_path / "1.png", {"a": coloured(36, 91), "b": coloured(36, 91)})
    long = drawn(tmp_path / "2.png", {"a" * 200: coloured(36, 91), "b": coloured(36, 91)})
    rows, columns = np.nonzero(of_level(plain, 91))
    middle = plain.shape[1] // 2
    gap = slice(columns[columns < middle].max() + 1, columns[columns > middle].min())
    assert gap.stop - gap.start > 20
    assert (plain[: rows.min()] < 128).any(), "a name stands above"
    dark = np.nonzero((plain[: rows.min()] < 128).any((0, 2)))[0]
    assert 0 <= dark.min() - columns.min() <= 2, "where the pictures begin"
    assert (plain[: rows.min(), gap] == 255).all() and (long[: rows.min(), gap] == 255).all()
    assert not np.array_equal(plain, long)


def test_gray_transparent_and_few_pictures_have_their_block_too(tmp_path: Path):
    clear = coloured(3, 80, channels=4)
    clear[:, 3] = 0
    sheet = drawn(tmp_path / "grids.png", {"gray": coloured(3, 0, channels=1), "clear": clear}, gray="FID 3\n35 steps")
    assert sheet.shape[2] == 3 and not of_level(sheet, 80).any()


@pytest.mark.parametrize(("side", "largest"), [(8, 400), (32, 400), (64, 400), (256, 800), (512, 800), (2000, 2000)])
def test_blocks_of_large_pictures_stay_within_the_screen(tmp_path: Path, side: int, largest: int):
    pixels = torch.zeros(36, 1, side, side, dtype=torch.uint8)
    sheet = drawn(tmp_path / "grids.png", {"a": pixels})
    assert largest / 2 <= (sheet == 0).all(-1).any(0).sum() <= largest


def test_quality_against_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    values = {5: 40.0, 10: 12.0, 35: 4.0}
    rungs = [compared("a", value, evaluations=count) for count, value in values.items()]
    ladder = {"a": rungs[::-1], "b": [compared("b", 9.0, evaluations=10)]}
    draw_tradeoff(ladder, [compared("test set", 3.0)], "FID", tmp_path / "x" / "nfe.png", title="how")
    (axes,) = figures[0].axes
    line, single, flat = axes.lines
    assert line.get_xydata().tolist() == [[5, 40], [10, 12], [35, 4]]
    assert single.get_xydata().tolist() == [[10, 9]] and list(flat.get_ydata()) == [3, 3]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [each.get_text() for each in axes.get_xticklabels()] == ["5", "10", "35"]
    shade = axes.collections[0].get_paths()[0].vertices
    assert {round(float(y), 3) for x, y in shade if x == 35} == {round(4 - 0.196, 3), round(4 + 0.196, 3)}
    assert [each.get_text() for each in axes.get_legend().get_texts()] == ["a", "b", "test set"]
    draw_tradeoff({"a": [compared("a", 0.05, evaluations=3)]}, [], "FID", tmp_path / "negative.png", title="how")
    assert figures[1].axes[0].get_yscale() == "linear", "an interval reaches below 0"
    rows = ladder_table(ladder).rows
    assert [(row[0].value, row[1].value, row[2].value) for row in rows][-1] == ("b", 10, 9.0)
