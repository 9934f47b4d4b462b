"""Tables of documents: HTML tables with their spans, and pipe tables of Markdown, as grids of
cells; from those to Markdown and CSV.

The grid is formed as HTML's specification says ("forming a table"), on the tags that ``markup``
accepts; what a reply lacks of closing tags is added as browsers do.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from . import markup

MAX_SPAN = 1000
"""Columns that a cell may span, and a table may have: HTML's own bound on ``colspan``."""

MAX_CELLS = 100_000
"""Of one table, each as often as its span covers; further rows are left out."""

_SPAN = re.compile(r"\b(colspan|rowspan)\s*=\s*[\"']?\s*(\d{1,9})", re.IGNORECASE)
_BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/?table)\b[^<>]*>", re.IGNORECASE)
_CELL_END = re.compile(r"</t[dh]\b[^<>]*>", re.IGNORECASE)  # of tables in cells
_PIPES = re.compile(r"(?<!\\)\|")
_RULE_CELL = re.compile(r"\s*:?-+:?\s*")


@dataclass(frozen=True)
class Table:
    """A table of ``rows``, all of one length. A cell that spans several columns or rows stands in
    each of them. ``headers``: how many of the rows are headings. ``source``: the table as the reply
    has it, in HTML or Markdown."""

    rows: tuple[tuple[str, ...], ...]
    headers: int
    source: str

    def csv(self) -> str:
        """Comma-separated values (RFC 4180), lines ended by a line feed."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows)
        return text.getvalue()

    def markdown(self) -> str:
        """A pipe table. Markdown has one heading row and no spans: of several heading rows the
        first is one, and where there is none, the first row is."""
        heading, *rest = [[_escaped(cell) for cell in row] for row in self.rows]
        lines = [heading, ["---"] * len(heading), *rest]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(document: str) -> list[Table]:
    """The tables in a document of HTML, Markdown or both, in order. Those within cells of others
    are part of these cells' text; a table without a cell is none."""
    found, end = [], 0
    for start, stop in _html_tables(document):
        found += _pipe_tables(document[end:start])
        rows, headers = _grid(document[start:stop])
        if rows:
            found.append(Table(rows, headers, document[start:stop].strip()))
        end = stop
    return found + _pipe_tables(document[end:])


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", "<br>")


def _html_tables(document: str) -> Iterator[tuple[int, int]]:
    """Where each outermost table begins and ends; one that is cut off ends with the document."""
    depth = start = 0
    for tag in markup.tags(document):
        if tag[2].lower() != "table":
            continue
        if not tag[1]:
            start = start if depth else tag.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                yield start, tag.end()
    if depth:
        yield start, len(document)


@dataclass
class _Cell:
    is_heading: bool
    columns: int
    rows: int  # 0: to the end of the table
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """One line for each line of the cell."""
        lines = _CELL_END.sub(" ", _BREAK.sub("\n", "".join(self.parts)))
        words = html.unescape(markup.strip_tags(lines))
        return "\n".join(filter(None, (" ".join(line.split()) for line in words.split("\n"))))


def _grid(table: str) -> tuple[tuple[tuple[str, ...], ...], int]:
    """Rows of the table's cells, spans filled in and short rows filled up with empty cells; how
    many of them are headings."""
    rows = _rows(table)
    grid: list[dict[int, str]] = [{} for _ in rows]
    cells = 0
    for number, row in enumerate(rows):
        if cells > MAX_CELLS:
            grid, rows = grid[:number], rows[:number]
            break
        column = 0
        for cell in row:
            while column in grid[number]:
                column += 1
            text = cell.text
            room = (MAX_CELLS - cells) // cell.columns + 1  # rows that it may fill
            last = number + min(cell.rows or len(rows), room)
            for line in grid[number:last]:
                for at in range(column, min(column + cell.columns, MAX_SPAN)):
                    line.setdefault(at, text)  # overlapping cells: the first one stays
                    cells += 1
            column += cell.columns
    filled = [
        (line, all(cell.is_heading for cell in row))
        for line, row in zip(grid, rows, strict=True)
        if line
    ]
    width = max((max(line) + 1 for line, _ in filled), default=0)
    headers = next((at for at, (_, heads) in enumerate(filled) if not heads), len(filled))
    return tuple(tuple(line.get(at, "") for at in range(width)) for line, _ in filled), headers


def _rows(table: str) -> list[list[_Cell]]:
    """The cells of each row, of tables in these cells none."""
    rows: list[list[_Cell]] = []
    cell: _Cell | None = None
    depth, cursor, in_head = 0, 0, False
    for tag in markup.tags(table):
        name, closes = tag[2].lower(), bool(tag[1])
        if name == "table":
            depth += -1 if closes else 1
        if depth > 1 or (name == "table" and closes and depth == 1):
            continue
        if name not in ("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption"):
            continue
        if cell is not None:
            cell.parts.append(table[cursor : tag.start()])
            cell = None
        cursor = tag.end()
        if closes:
            in_head = in_head and name != "thead"
        elif name in ("thead", "tbody", "tfoot"):
            in_head = name == "thead"
        elif name == "tr":
            rows.append([])
        elif name in ("td", "th"):
            rows = rows or [[]]
            cell = _cell(tag[3], name == "th" or in_head)
            rows[-1].append(cell)
    if cell is not None:
        cell.parts.append(table[cursor:])
    return rows


def _cell(attributes: str, is_heading: bool) -> _Cell:
    spans = {name.lower(): int(value) for name, value in _SPAN.findall(attributes)}
    columns = spans.get("colspan", 1) or 1  # 0 is no span, and a browser takes it for 1
    return _Cell(is_heading, min(columns, MAX_SPAN), min(spans.get("rowspan", 1), MAX_CELLS))


def _pipe_tables(text: str) -> list[Table]:
    """Tables of Markdown: a row, a rule of as many cells, and the rows below it."""
    lines = text.split("\n")
    found, number = [], 1
    while number < len(lines):
        rule = _pipe_row(lines[number])
        heading = _pipe_row(lines[number - 1])
        is_table = (
            "|" in lines[number]
            and len(rule) == len(heading)
            and all(map(_RULE_CELL.fullmatch, rule))
            and not all(map(_RULE_CELL.fullmatch, heading))
        )
        if not is_table:
            number += 1
            continue
        end = number + 1
        while end < len(lines) and "|" in lines[end]:
            end += 1
        rows = [heading, *map(_pipe_row, lines[number + 1 : end])]
        source = "\n".join(lines[number - 1 : end]).strip()
        found.append(Table(tuple(_fitted(row, len(heading)) for row in rows), 1, source))
        number = end + 1
    return found


def _pipe_row(line: str) -> list[str]:
    line = line.strip()
    line = line[1:] if line.startswith("|") else line
    line = line[:-1] if line.endswith("|") and not line.endswith("\\|") else line
    return [_unescaped(cell.strip()) for cell in _PIPES.split(line)]


def _unescaped(cell: str) -> str:
    words = re.sub(r"\\([\\|])", r"\1", _BREAK.sub("\n", cell))
    return "\n".join(part.strip() for part in html.unescape(markup.strip_tags(words)).split("\n"))


def _fitted(row: Sequence[str], width: int) -> tuple[str, ...]:
    return (*row[:width], *[""] * (width - len(row)))
