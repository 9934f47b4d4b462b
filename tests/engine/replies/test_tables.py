"""Tables: spans are filled in as browsers lay them out; Markdown and CSV say the same."""

from __future__ import annotations

import csv
import html
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.replies.tables import MAX_CELLS, MAX_SPAN, tables

SPANS = """Before
<table border="1"><caption>Sales</caption>
<thead><tr><th rowspan="2">City</th><th colspan="2">Year</th></tr>
<tr><th>2025</th><th>2026</th></tr></thead>
<tbody><tr><td>Köln &amp; Bonn</td><td>1<br>2</td><td><b>3</b></td></tr>
<tr><td>Rome</td><td colspan=2>none</td></tr></tbody></table> after"""


def rows(document: str) -> list[list[list[str]]]:
    return [[list(row) for row in table.rows] for table in tables(document)]


def test_spans_are_filled_in():
    (table,) = tables(SPANS)
    assert [list(row) for row in table.rows] == [
        ["City", "Year", "Year"],
        ["City", "2025", "2026"],
        ["Köln & Bonn", "1\n2", "3"],
        ["Rome", "none", "none"],
    ]
    assert table.headers == 2
    assert table.source.startswith("<table border") and table.source.endswith("</table>")
    assert table.markdown() == (
        "| City | Year | Year |\n| --- | --- | --- |\n| City | 2025 | 2026 |\n"
        "| Köln & Bonn | 1<br>2 | 3 |\n| Rome | none | none |\n"
    )
    assert table.csv() == 'City,Year,Year\nCity,2025,2026\nKöln & Bonn,"1\n2",3\nRome,none,none\n'


CASES = {
    "no closing tags": ("<table><tr><td>a<td>b<tr><td>c", [[["a", "b"], ["c", ""]]]),
    "no rows": ("<table><td>a</td><td>b</td></table>", [[["a", "b"]]]),
    "cut off": ("<table><tr><td>a</td><td>b", [[["a", "b"]]]),
    "a row's span that goes beyond the table": (
        "<table><tr><td rowspan=9>a</td><td>b</td></tr><tr><td>c</td></tr></table>",
        [[["a", "b"], ["a", "c"]]],
    ),
    "rowspan 0 goes to the end": (
        "<table><tr><td rowspan=0>a<td>b<tr><td>c<tr><td>d</table>",
        [[["a", "b"], ["a", "c"], ["a", "d"]]],
    ),
    "cells go around what spans": (
        '<table><tr><td>1</td><td rowspan="2">2</td><td>3</td></tr><tr><td>4</td><td>5</td></tr>'
        "</table>",
        [[["1", "2", "3"], ["4", "2", "5"]]],
    ),
    "overlapping spans": (
        "<table><tr><td>a<td rowspan=2>b<tr><td colspan=2>c</table>",
        [[["a", "b"], ["c", "b"]]],
    ),
    "a table in a cell": (
        "<table><tr><td>a<table><tr><td>in</td></tr></table></td><td>b</td></tr></table>",
        [[["a\nin", "b"]]],
    ),
    "no cells": ("<table></table><table><tr></tr></table>", []),
    "words that are no tags": (
        "<table><tr><td>x<y</td><td>List<String></td></tr></table>", [[["x<y", "List<String>"]]],
    ),
    "pipes": (
        "Text\n\n| a | b |\n|:--|--:|\n| 1 | x \\| y |\n| 2 |\n\nmore | words",
        [[["a", "b"], ["1", "x | y"], ["2", ""]]],
    ),
    "pipes without outer ones": ("a | b\n--- | ---\n1 | 2\n", [[["a", "b"], ["1", "2"]]]),
    "one column of pipes": ("| a |\n| --- |\n| 1 |", [[["a"], ["1"]]]),
    "a rule below words is no table": ("Title\n---\nwords\n\n|---|---|\n|---|---|", []),
    "both kinds, in order": (
        "| a |\n|---|\n| 1 |\n<table><tr><td>2</table>\n\n| b |\n|---|\n| 3 |",
        [[["a"], ["1"]], [["2"]], [["b"], ["3"]]],
    ),
    "none": ("words | and words\n", []),
}  # fmt: skip


@pytest.mark.parametrize(("document", "expected"), CASES.values(), ids=CASES)
def test_tables(document, expected):
    assert rows(document) == expected


@st.composite
def grids(draw: st.DrawFn) -> tuple[str, list[list[str]]]:
    """A table of random spans that leave no gap, and what each place of it must say."""
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    owner = [[""] * width for _ in range(height)]
    written: list[list[str]] = [[] for _ in range(height)]
    for y in range(height):
        for x in range(width):
            if owner[y][x]:
                continue
            free = next((w for w in range(1, width - x) if owner[y][x + w]), width - x)
            across, down = draw(st.integers(1, free)), draw(st.integers(1, height - y))
            name = f"{y}.{x}"
            for line in owner[y : y + down]:
                line[x : x + across] = [name] * across
            spans = f' colspan="{across}"' * (across > 1) + f" rowspan='{down}'" * (down > 1)
            written[y].append(f"<td{spans}>{name}</td>")
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in written)
    return f"<table>{body}</table>", owner


@given(grids())
def test_any_spans_without_gaps_give_each_place_its_cell(made):
    document, expected = made
    assert rows(document) == [expected]


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8).map(
    lambda text: " ".join(text.replace("<", "").replace("&", "").split())
)


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(TEXT, min_size=n, max_size=n), min_size=2)
    )
)
def test_csv_and_markdown_hold_every_cell(cells):

    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in cells
    )
    (table,) = tables(f"<table>{body}</table>")
    assert [list(row) for row in table.rows] == cells
    assert list(csv.reader(io.StringIO(table.csv()))) == cells
    # A heading of dashes alone would be a rule.
    if any(set(cell) - set(":-") for cell in cells[0]):
        assert rows(table.markdown()) == [cells]


def test_a_table_that_would_fill_the_memory_is_bounded():
    row = f"<tr><td colspan={10**9} rowspan={10**9}>x</td></tr>"
    (table,) = tables(f"<table>{row * 2000}</table>")
    assert len(table.rows[0]) == MAX_SPAN
    assert len(table.rows) * len(table.rows[0]) <= 2 * MAX_CELLS + MAX_SPAN
