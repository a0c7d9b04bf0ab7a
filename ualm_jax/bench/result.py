"""What a part of `ualm bench` hands back: rows for JSON, a table for people, bars for a picture."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table: its heading, and how it shows a row; "" where the row has nothing for it."""

    heading: str
    cell: Callable[[Row], str]


@dataclasses.dataclass(frozen=True)
class Bars:
    """One panel of the picture: a bar for every label."""

    title: str
    values: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """title: what was run, in a line. rows: plain values, ready for JSON, in SI units (seconds, bytes).

    notes: formulas, floors and whatever the reader of a figure must know. bars: one panel of the picture each.
    again: runs the work of ours once more and waits for it; what `--profile` traces. None if there is nothing to trace.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    bars: Sequence[Bars] = ()
    again: Callable[[], object] | None = None

    def table(self) -> str:
        """The rows as a Markdown table whose columns line up; it can be pasted into a document as it is."""
        cells = [[column.heading for column in self.columns]]
        cells += [[column.cell(row) for column in self.columns] for row in self.rows]
        return markdown(cells)


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table of rows of cells, of which the first row is the headings."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |"
             for line in cells]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def text(key: str, heading: str) -> Column:
    """A column that shows `row[key]` as it is."""
    return Column(heading, lambda row: str(row.get(key, "")))


def number(key: str, heading: str, form: str = ",.0f", scale: float = 1.0) -> Column:
    """A column of numbers, `row[key] * scale` in the format `form`."""
    return Column(heading, lambda row: "" if row.get(key) is None else format(row[key] * scale, form))


def seconds(key: str, heading: str) -> Column:
    """A column for what `Timing.to_mapping` made: median (min to max), in a unit that suits the median."""

    def cell(row: Row) -> str:
        if row.get(key) is None:
            return ""
        timing = row[key]
        unit, scale = ("s", 1.0) if timing["median"] >= 1 else ("ms", 1e3)
        digits = max(0, 2 - math.floor(math.log10(timing["median"] * scale)))
        return "{:.{d}f} ({:.{d}f} to {:.{d}f}) {}".format(
            *(timing[name] * scale for name in ("median", "min", "max")), unit, d=digits
        )

    return Column(heading, cell)
