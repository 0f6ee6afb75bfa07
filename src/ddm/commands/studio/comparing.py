"""What the Compare tab does, without the page: tables of what is on record, and what is close to a picture."""

import html
from collections.abc import Mapping
from dataclasses import replace

from ddm.errors import DdmError, RequestError
from ddm.runs.comparison import Compared, all_differences, comparison_table
from ddm.runs.cost import parameters_of
from ddm.runs.model import Model
from ddm.runs.recorded import Recorded, compare_recorded, read_recorded
from ddm.runs.tables import Cell, Row, Table

UNMEASURED = "No model here has numbers on record. Measure one with: ddm evaluate RUN"


def recorded_table(models: Mapping[str, Model], *, published: bool) -> Table:
    """What the runs of these models have in their evaluations.jsonl; nothing is measured.

    Args:
        models: by the names of the page.
        published: add what papers say, under a rule.
    """
    found, without = _on_record(models)
    sources, notes = _compared(found)
    sources = [replace(each, parameters=parameters_of(models[name].generator)) for name, each in zip(found, sources)]
    sources += [Compared(name, {}, parameters=parameters_of(models[name].generator)) for name in without]
    if not found:
        notes.append(UNMEASURED)
    elif without:
        notes.append(f"Nothing is on record of {', '.join(without)}; ddm evaluate measures it.")
    return comparison_table(sources, all_differences(sources), published=published, notes=notes)


def _on_record(models: Mapping[str, Model]) -> tuple[dict[str, Recorded], list[str]]:
    """The records of each model, and the models without."""
    found: dict[str, Recorded] = {}
    for name, model in models.items():
        if model.run is None:
            continue
        try:
            records = read_recorded(model.run).records
        except DdmError:  # its message names a folder, which is nobody's business
            continue
        step = next(iter(records.values())).get("step")
        found[name] = Recorded(f"{name}, step {step}", records)
    return found, [name for name in models if name not in found]


def _compared(found: Mapping[str, Recorded]) -> tuple[list[Compared], list[str]]:
    """The numbers, those of unequal protocols marked; each for itself where no two runs have one number in common."""
    try:
        return compare_recorded(list(found.values()), force=True)
    except RequestError:
        alone = [compare_recorded([each], force=True) for each in found.values()]
        return [source for sources, _ in alone for source in sources], [note for _, notes in alone for note in notes]


def table_in_html(table: Table, caption: str) -> str:
    """A table for a page: published rows in a body of their own, the best number bold."""
    heads = "".join(f'<th scope="col">{html.escape(column.heading)}</th>' for column in table.columns)
    bodies = [("", table.rows), ("published", table.below)]
    rows = "".join(
        f'<tbody class="{kind}">{"".join(_row(table, row) for row in rows)}</tbody>' for kind, rows in bodies if rows
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    words = html.escape(caption)
    return (
        f'<div class="numbers" tabindex="0" role="region" aria-label="{words}"><table><caption>{words}</caption>'
        f"<thead><tr>{heads}</tr></thead>{rows}</table></div>" + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _row(table: Table, row: Row) -> str:
    first, *others = row
    cells = "".join(
        f'<td class="{"number" if table.numeric(place) else "words"}">{_shown(cell)}</td>'
        for place, cell in enumerate(others, 1)
    )
    return f'<tr><th scope="row">{_shown(first)}</th>{cells}</tr>'


def _shown(cell: Cell) -> str:
    words = html.escape(cell.words)
    value = {"best": f"<strong>{words}</strong>", "unequal": f"≠ {words}"}.get(cell.mark, words)
    interval = f"<small>{html.escape(cell.interval)}</small>" if cell.interval else ""
    return " ".join(part for part in (value, interval, "≈" if cell.mark == "tied" else "") if part)
