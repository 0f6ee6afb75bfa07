"""Oracles: a Markdown parser, the csv module, and a small reader of LaTeX that knows nothing of the writer."""

import csv
import re

import pytest
from markdown_it import MarkdownIt

from ddm.runs.tables import Cell, Column, Table, escape, latex, markdown, to_csv

NASTY = r"run_1 & 50% of $x^2 {a} #3 ~b \ <c> |d| [e] *f* `g` _h_"
TABLE = Table(
    columns=[Column("source"), Column("FID", "lower"), Column("recall", "higher"), Column("parameters")],
    rows=[
        [Cell("a"), Cell(12.345, 12.1, 12.6, "best"), Cell(0.5, 0.4, 0.6, "tied"), Cell(35_700_000)],
        [Cell(NASTY), Cell(20.25, 19.0, 21.5), Cell(), Cell(1234)],
    ],
    below=[[Cell("paper"), Cell(), Cell(), Cell()]],
    notes=["≠ says what_differs: 5 %."],
)


def html_cells(text: str) -> list[list[str]]:
    html = MarkdownIt("commonmark").enable("table").render(text)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def test_markdown_is_a_table_to_others():
    head, first, second, rule, below = html_cells(markdown(TABLE))
    assert head == ["source", "FID ↓", "recall ↑", "parameters"]
    assert first == ["a", "<strong>12.35</strong> [12.10, 12.60]", "0.50 [0.40, 0.60] ≈", "35.7 M"]
    shown = second[0].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    assert shown == NASTY and second[1:] == ["20.2 [19.0, 21.5]", "", "1,234"]
    assert rule == ["---"] * 4 and below == ["paper", "", "", ""]


def test_markdown_reads_well_as_it_stands():
    text = markdown(TABLE)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert text.endswith("\n\n≠ says what_differs: 5 %.\n")


def test_csv_gives_every_number_back():
    head, first, second, below = list(csv.reader(to_csv(TABLE).splitlines()))
    assert head[:5] == ["source", "FID", "FID low", "FID high", "FID mark"] and head[-1] == "parameters"
    found = dict(zip(head, first))
    assert (float(found["FID"]), float(found["FID low"]), float(found["FID high"])) == (12.345, 12.1, 12.6)
    assert (found["FID mark"], found["recall mark"], int(found["parameters"])) == ("best", "tied", 35_700_000)
    assert second[0] == NASTY and len(second) == len(below) == len(head) and below[1:] == [""] * 9


def read_latex(text: str) -> str:
    """What LaTeX would print of escaped text; fails on a special letter that is not escaped."""
    names = {
        "textbackslash": "\\",
        "textasciitilde": "~",
        "textasciicircum": "^",
        "textless": "<",
        "textgreater": ">",
        "textbar": "|",
    }
    printed = ""
    pattern = r"\\(?P<name>[a-z]+)\{\}|\\(?P<sign>[{}$&#%_])|\{\[\}|(?P<plain>[^\\{}$&#%_~^])"
    while text:
        match = re.match(pattern, text)
        assert match, f"unescaped: {text[:20]!r}"
        named, sign, plain = match["name"], match["sign"], match["plain"]
        printed += names[named] if named else sign or plain or "["
        text = text[match.end() :]
    return printed


def test_latex_prints_what_was_meant():
    assert read_latex(escape(NASTY)) == NASTY
    with pytest.raises(AssertionError, match="unescaped"):
        read_latex("50 %")
    assert escape("a ≈ b ≠ c ∞") == r"a $\approx$ b $\neq$ c $\infty$"


def test_latex_is_a_booktabs_table():
    text = latex(TABLE)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [3, 3, 3, 3]
    assert [line for line in body.splitlines() if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\midrule"]
    assert (
        r"\begin{tabular}{lrrr}" in text
        and r"\textbf{12.35}" in text
        and r"0.50 {\scriptsize {[}0.40, 0.60]} $\approx$" in text
    )
    assert text.count("{") == text.count("}") and r"5 \%." in text and r"$\downarrow$" in rows[0]


@pytest.mark.parametrize(
    ("cell", "words", "interval"),
    [
        (Cell(12.3456, 12.10, 12.59), "12.35", "[12.10, 12.59]"),
        (Cell(0.0123456, 0.0120, 0.0127), "0.01235", "[0.01200, 0.01270]"),
        (Cell(1234.5, 1100.0, 1400.0), "1234", "[1100, 1400]"),
        (Cell(-0.001, -0.4, 0.4), "0.00", "[-0.40, 0.40]"),
        (Cell(3.0, 3.0, 3.0), "3", "[3, 3]"),
        (Cell(float("nan"), 1.0, 2.0), "nan", "[1.00, 2.00]"),
        (Cell(0.25), "0.25", ""),
        (Cell(999), "999", ""),
        (Cell("words"), "words", ""),
        (Cell(), "", ""),
    ],
)
def test_as_many_digits_as_the_interval_supports(cell: Cell, words: str, interval: str):
    assert (cell.words, cell.interval) == (words, interval)


def test_unequal_is_loud():
    table = Table([Column("source"), Column("FID")], [[Cell("a"), Cell(3.0, 2.0, 4.0, "unequal")]])
    assert "| ≠ 3.0 [2.0, 4.0] |" in markdown(table)
    assert r"$\neq$ 3.0" in latex(table) and ",unequal" in to_csv(table)
