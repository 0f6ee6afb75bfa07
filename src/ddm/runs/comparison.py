"""Several sources side by side: their numbers, what they cost, and the tables that say so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ddm.metrics import Measurement
from ddm.metrics.published import PUBLISHED
from ddm.metrics.significance import ASSUMED, LEVEL, Difference, differences, marks
from ddm.runs.tables import Cell, Column, Mark, Table

PUBLISHED_FID = "FID, published"
"""The column of numbers that nobody measured as we measure ours."""

MEANING: dict[Mark, str] = {
    "best": "The best number of a column is bold; intervals are of 95 %.",
    "tied": f"≈ after a number: not significantly different from the best (corrected p ≥ {LEVEL}).",
    "unequal": "≠ before a number: measured under another protocol than the first source's; do not compare them.",
}


@dataclass(frozen=True, eq=False)
class Compared:
    """One source and its numbers.

    Args:
        name: no other source has it.
        measurements: by their labels, e.g. ``FID``.
        parameters: of the network; None where there is none.
        evaluations: of the network for one picture.
        seconds: that a picture took; None where none was made.
        pixels: the first pictures, uint8 ``[n, c, h, w]``.
        unequal: labels of the numbers that were measured under another protocol than the first source's.
        made: how its pictures were made, in a few words.
    """

    name: str
    measurements: Mapping[str, Measurement]
    parameters: int | None = None
    evaluations: int | None = None
    seconds: float | None = None
    pixels: Tensor | None = field(default=None, repr=False)
    unequal: frozenset[str] = frozenset()
    made: str = ""


def labels(sources: Sequence[Compared]) -> list[str]:
    """What was measured of any source, in the order in which it was asked for."""
    return list(dict.fromkeys(label for source in sources for label in source.measurements))


def comparable(sources: Sequence[Compared], label: str) -> dict[str, Measurement]:
    """The numbers of one metric by source; none where they are not all of one protocol."""
    if any(label in source.unequal for source in sources):
        return {}
    found = {source.name: source.measurements[label] for source in sources if label in source.measurements}
    return {name: each for name, each in found.items() if math.isfinite(each.value)}


def all_differences(sources: Sequence[Compared]) -> list[Difference]:
    """The differences of all pairs in all metrics that are of one protocol throughout."""
    return [each for label in labels(sources) for each in differences(label, comparable(sources, label))]


def comparison_table(
    sources: Sequence[Compared], found: Sequence[Difference], *, published: bool = False, notes: Sequence[str] = ()
) -> Table:
    """One row a source, one column a metric; the best is marked, and so is what does not differ from it.

    Args:
        sources: what was measured.
        found: their differences.
        published: add what papers say, under a rule and in a column of its own.
        notes: sentences under the table.
    """
    names = labels(sources)
    marked = {label: _marks(sources, label, found) for label in names}
    costs = _costs(sources)
    if published:
        costs.setdefault("evaluations", [None] * len(sources))
    columns = [Column("source"), *(_column(sources, label) for label in names), *map(Column, costs)]
    rows = [
        [
            Cell(source.name),
            *(_cell(source, label, marked[label]) for label in names),
            *(Cell(values[number]) for values in costs.values()),
        ]
        for number, source in enumerate(sources)
    ]
    used = {mark for each in marked.values() for mark in each.values()}
    notes = [*(text for mark, text in MEANING.items() if mark in used), *notes]
    if not published:
        return Table(columns, rows, notes=notes)
    columns += [Column(PUBLISHED_FID), Column("from")]
    told = ["measured here" if source.measurements else "not measured" for source in sources]
    rows = [[*row, Cell(), Cell(each)] for row, each in zip(rows, told)]
    return Table(columns, rows, _published_rows(columns), [*notes, "Published numbers are of CIFAR-10."])


def difference_table(found: Sequence[Difference]) -> Table:
    """One row a metric and pair, and what its p takes for granted."""
    columns = [Column("metric"), Column("A - B"), Column("difference"), Column("p")]
    rows = [
        [
            Cell(each.metric),
            Cell(f"{each.first} - {each.second}"),
            Cell(each.value, each.low, each.high),
            Cell(f"{each.p:.4f}" if each.p >= 0.0001 else "< 0.0001"),
        ]
        for each in found
    ]
    return Table(columns, rows, notes=[ASSUMED])


def ladder_table(ladder: Mapping[str, Sequence[Compared]]) -> Table:
    """One row a source and number of evaluations."""
    rungs = [each for ladder_of_one in ladder.values() for each in ladder_of_one]
    names = labels(rungs)
    columns = [Column("source"), Column("evaluations"), *(_column(rungs, label) for label in names)]
    rows = [[Cell(each.name), Cell(each.evaluations), *(_cell(each, label, {}) for label in names)] for each in rungs]
    return Table(columns, rows)


def _column(sources: Sequence[Compared], label: str) -> Column:
    return Column(label, next(each.measurements[label].better for each in sources if label in each.measurements))


def _cell(source: Compared, label: str, marked: Mapping[str, Mark]) -> Cell:
    found = source.measurements.get(label)
    return Cell() if found is None else Cell(found.value, found.low, found.high, marked.get(source.name, ""))


def _costs(sources: Sequence[Compared]) -> dict[str, list[float | str | None]]:
    """Columns of which at least one source has something to say."""
    costs: dict[str, list[float | str | None]] = {
        "parameters": [each.parameters for each in sources],
        "evaluations": [each.evaluations for each in sources],
        "seconds a picture": [each.seconds for each in sources],
        "made with": [each.made or None for each in sources],
    }
    return {name: values for name, values in costs.items() if any(value is not None for value in values)}


def _marks(sources: Sequence[Compared], label: str, found: Sequence[Difference]) -> Mapping[str, Mark]:
    if any(label in source.unequal for source in sources):
        return {source.name: "unequal" for source in sources if label in source.unequal}
    return marks(comparable(sources, label), [each for each in found if each.metric == label])


def _published_rows(columns: Sequence[Column]) -> list[list[Cell]]:
    rows = []
    for each in PUBLISHED:
        cells = {
            "source": Cell(each.model),
            "evaluations": Cell(each.evaluations),
            PUBLISHED_FID: Cell(each.value),
            "from": Cell(f"published, other protocol: {each.source}; {each.protocol}"),
        }
        rows.append([cells.get(column.name, Cell()) for column in columns])
    return rows
