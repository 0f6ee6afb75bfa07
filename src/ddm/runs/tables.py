"""One table, three ways to write it: Markdown for people, CSV for programs, LaTeX for papers."""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Mark = Literal["", "best", "tied", "unequal"]
DECIMALS = 8
"""At most so many are shown."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # after the end of a row it would begin an option
    "∞": r"$\infty$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "≥": r"$\geq$",
    "−": r"$-$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "\n": " ",
}
_ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}


@dataclass(frozen=True)
class Column:
    """A heading, and whether what stands below is better lower or higher."""

    name: str
    better: Literal["lower", "higher"] | None = None

    @property
    def heading(self) -> str:
        """``FID ↓``."""
        return self.name + _ARROWS[self.better]


@dataclass(frozen=True)
class Cell:
    """What stands at one place of a table.

    Args:
        value: a number, words, or None for nothing.
        low: lower end of the number's 95 % interval.
        high: its upper end.
        mark: ``best`` of its column, ``tied`` with the best, or ``unequal``: not to be compared with the others.
    """

    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    mark: Mark = ""

    @property
    def words(self) -> str:
        """The value for people: as many digits as its interval supports."""
        if self.value is None or isinstance(self.value, str):
            return self.value or ""
        if isinstance(self.value, int):
            return f"{self.value / 1e6:.1f} M" if self.value >= 1_000_000 else f"{self.value:,}"
        return self._number(self.value)

    @property
    def interval(self) -> str:
        """``[12.1, 12.5]``, or nothing."""
        return "" if self.low is None or self.high is None else f"[{self._number(self.low)}, {self._number(self.high)}]"

    def _number(self, value: float) -> str:
        half = 0.0 if self.low is None or self.high is None else (self.high - self.low) / 2
        if not 0 < half < math.inf or not math.isfinite(value):
            return f"{value:.4g}"
        shown = f"{value:.{min(max(1 - math.floor(math.log10(half)), 0), DECIMALS)}f}"
        return shown.lstrip("-") if float(shown) == 0 else shown


Row = Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """Rows under headings.

    Args:
        columns: the headings.
        rows: as many cells as columns each.
        below: more rows, under a rule.
        notes: sentences under the table.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    below: Sequence[Row] = ()
    notes: Sequence[str] = ()

    def numeric(self, number: int) -> bool:
        """Whether a column holds nothing but numbers."""
        return not any(isinstance(row[number].value, str) for row in (*self.rows, *self.below))


def markdown(table: Table) -> str:
    """The table as GitHub shows it, lined up so that it can be read as it stands; the best is bold."""
    lines = [[_plain(column.heading) for column in table.columns], *([_shown(cell) for cell in r] for r in table.rows)]
    if table.below:
        lines += [["---"] * len(table.columns), *([_shown(cell) for cell in row] for row in table.below)]
    widths = [max(3, *(len(line[number]) for line in lines)) for number in range(len(table.columns))]
    rule = ["-" * (width - 1) + ":" if table.numeric(number) else "-" * width for number, width in enumerate(widths)]
    lines.insert(1, rule)
    text = "\n".join(f"| {' | '.join(_aligned(table, line, widths))} |" for line in lines)
    return text + "".join(f"\n\n{_plain(note)}" for note in table.notes) + "\n"


def _aligned(table: Table, line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for number, (word, width) in enumerate(zip(line, widths)):
        yield word.rjust(width) if table.numeric(number) else word.ljust(width)


def _shown(cell: Cell) -> str:
    words = _plain(cell.words)
    value = {"best": f"**{words}**", "unequal": f"≠ {words}"}.get(cell.mark, words)
    return " ".join(part for part in (value, cell.interval, "≈" if cell.mark == "tied" else "") if part)


def _plain(text: str) -> str:
    """Text that means nothing to Markdown: an underscore does where it is not inside a word, < before a letter."""
    text = re.sub(r"([\\`*|]|<(?=[A-Za-z/!?]))", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def to_csv(table: Table) -> str:
    """The table for programs: numbers in full, a column each for the ends of an interval and for the mark."""
    cells = [*table.rows, *table.below]
    wide = [any(row[number].low is not None for row in cells) for number in range(len(table.columns))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads = (
        [c.name, *([f"{c.name} {end}" for end in ("low", "high", "mark")] if w else [])]
        for c, w in zip(table.columns, wide)
    )
    writer.writerow([name for names in heads for name in names])
    for row in cells:
        values = ([c.value, *([c.low, c.high, c.mark] if w else [])] for c, w in zip(row, wide))
        writer.writerow([value for each in values for value in each])
    return file.getvalue()


def latex(table: Table) -> str:
    """The table for a paper that uses the package booktabs; the best is bold."""
    align = "".join("r" if table.numeric(number) else "l" for number in range(len(table.columns)))
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [_latex_row(escape(column.heading) for column in table.columns), r"\midrule"]
    lines += [_latex_row(map(_latex_cell, row)) for row in table.rows]
    if table.below:
        lines += [r"\midrule", *(_latex_row(map(_latex_cell, row)) for row in table.below)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {escape(note)}\par}}" for note in table.notes]
    return "\n".join(["% \\usepackage{booktabs}", *lines]) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    words = escape(cell.words)
    value = {"best": rf"\textbf{{{words}}}", "unequal": rf"$\neq$ {words}"}.get(cell.mark, words)
    interval = rf"{{\scriptsize {escape(cell.interval)}}}" if cell.interval else ""
    return " ".join(part for part in (value, interval, r"$\approx$" if cell.mark == "tied" else "") if part)


def escape(text: str) -> str:
    """Text that means nothing to LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in text)
