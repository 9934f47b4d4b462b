"""Stopping: end tokens, token limits and repetition. No model needed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.inference.repetition import loop_start
from qwen_vl_suite.qwenvl.inference.sequence import Row
from qwen_vl_suite.qwenvl.inference.stopping import append_token
from qwen_vl_suite.qwenvl.types import Sampling

EOS, CLOSE = 0, (8, 9)


def row(thinking: bool = False, index: int = 0, **sampling) -> Row:
    return Row(index, Sampling(**sampling), [1, 2], frozenset({EOS}), CLOSE, thinking)


def append(subject: Row, *tokens: int) -> Row:
    for token in tokens:
        if subject.finish_reason is None:
            append_token(subject, token)
    return subject


def test_an_end_token_finishes_the_row_and_is_not_part_of_its_output() -> None:
    subject = append(row(), 3, EOS)
    assert (subject.output_ids, subject.finish_reason) == ([3], "stop")


def test_max_new_tokens_is_exact() -> None:
    subject = append(row(max_new_tokens=3), 3, 4, 5, 6)
    assert (subject.output_ids, subject.finish_reason) == ([3, 4, 5], "length")


def test_a_closed_thought_leaves_the_whole_limit_to_the_answer() -> None:
    subject = append(row(thinking=True, max_new_tokens=2, max_thinking_tokens=9), 5, *CLOSE, 6, 7)
    assert (subject.output_ids[subject.thought_length :], subject.finish_reason) == (
        [6, 7],
        "length",
    )


def test_a_loop_is_cut_to_one_turn_with_finish_reason_repetition() -> None:
    turn = list(range(1, 8))
    subject = append(row(max_new_tokens=10_000), 15, 16, *turn * 200)
    assert subject.finish_reason == "repetition"
    assert subject.output_ids == [15, 16, *turn]


@given(
    head=st.lists(st.integers(0, 3), max_size=40),
    turn=st.lists(st.integers(0, 9), min_size=1, max_size=40),
)
def test_any_exact_loop_is_detected(head: list[int], turn: list[int]) -> None:
    turns = max(128, 800 // len(turn) + 1)  # as many as of any kind of turn
    cut = loop_start([*head, *turn * turns])
    assert cut is not None and cut <= len(head) + len(turn)


NO_LOOPS = {
    "short": [5] * 700,
    "few turns": list(range(200)) * 5,
    "counting": list(range(500)),
    "looped before, went on": [5] * 3000 + list(range(20)),
}


@pytest.mark.parametrize("case", NO_LOOPS, ids=str)
def test_other_repetition_is_no_loop(case: str) -> None:
    assert loop_start(NO_LOOPS[case]) is None


_PIECE = re.compile(
    r"[^\r\n\w]?[^\W\d_]+|\d| ?[^\s\w]+[\r\n]*| ?_+[\r\n]*|\s*[\r\n]+|\s+", re.UNICODE
)


class Tokenizer:
    """Splits text about as Qwen's tokenizers do: words, single digits, runs of signs."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def encode(self, text: str) -> list[int]:
        pieces = [
            piece[at : at + 16] for piece in _PIECE.findall(text) for at in range(0, len(piece), 16)
        ]
        assert "".join(pieces) == text
        self._pieces += sorted(set(pieces) - set(self._pieces))
        numbers = {piece: number for number, piece in enumerate(self._pieces, 100)}
        return [numbers[piece] for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[number - 100] for number in ids)


def generate(
    head: str, *parts: str, with_text: bool = True, limit: int = 20_000
) -> tuple[Row, str]:
    """A row that generates ``head`` and ``parts`` until it is finished, and its text."""
    tokenizer = Tokenizer()
    ids = tokenizer.encode(head + "".join(parts))
    subject = Row(0, Sampling(max_new_tokens=limit), [1], frozenset({EOS}))
    if with_text:
        subject.decode = tokenizer.decode
    append(subject, *ids)
    return subject, tokenizer.decode(subject.output_ids)


def _row(kind: str, cells: Sequence[str]) -> str:
    if kind == "html":
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    if kind == "html in lines":
        return "<tr>\n" + "".join(f"  <td>{cell}</td>\n" for cell in cells) + "</tr>\n"
    if kind == "latex":
        return " & ".join(cells) + " \\\\\n"
    if kind == "markdown":
        return "| " + " | ".join(cells) + " |\n"
    return {"csv": ",", "tsv": "\t"}[kind].join(cells) + "\n"


CELLS = {
    "blank": "",
    "dash": "-",
    "zero": "0",
    "amount": "0.00",
    "not available": "N/A",
    "word": "Delivered",
    "box": "☐",
    "space": "&nbsp;",
}
END = "\nTotal 8.00, to be paid by 1 May. Signed: A. Person\n"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", ["html", "html in lines", "markdown", "latex", "csv", "tsv"])
def test_equal_table_rows_are_no_loop(kind: str, cell: str) -> None:
    for columns in (1, 4, 10):
        for rows in (7, 13, 80):
            body = _row(kind, [CELLS[cell]] * columns)
            head = _row(kind, ["Item"] * columns) + _row(kind, ["Paper"] * columns)
            subject, text = generate(head, body * rows, END)
            assert (subject.finish_reason, text[-len(END) :]) == (None, END), (columns, rows)


RUNS = {
    "dots": "Chapter one " + "." * 300 + " 12\n",
    "dots apart": "Chapter one " + ". " * 150 + "12\n",
    "pages of dots": "".join(f"Chapter {n} " + "." * 80 + f" {n}\n" for n in range(60)),
    "underscores": "Name: ______________ Date: ________\n" * 40,
    "a line of blanks": ("_" * 120 + "\n") * 60,
    "escaped underscores": "\\_" * 120 + "\n",
    "boxes to tick": "- [ ] Yes  - [ ] No\n" * 80,
    "boxes alone": "☐ " * 200,
    "bullets": "- \n" * 80,
    "numbers": "0 0 0 0 0 0\n" * 80,
    "zeros": "0 " * 300,
    "a word a line": "No\n" * 100,
    "labels": "A. Person\n12 High Street\nOldtown 12345\n\n" * 30,
    "a line written as punishment": "I will not talk in class.\n" * 100,
    "line breaks": "<br>" * 100,
    "rules": "\\hline\n" * 50,
    "statements": "    pass\n" * 80,
    "a song": "na na na na hey hey\n" * 24,
}


@pytest.mark.parametrize("case", RUNS)
def test_runs_that_pages_have_are_no_loop(case: str) -> None:
    subject, text = generate("Form 12\n", RUNS[case], END)
    assert (subject.finish_reason, text) == (None, f"Form 12\n{RUNS[case]}{END}")


_PARAGRAPH = " ".join(f"{word}ly" for word in "abcdefghijklmnopqrstuvwxyz" * 8) + ". "
LOOPS = {
    # what repeats: the most tokens until it is cut
    "a word": ("very ", 800),
    "a digit": ("3", 800),
    "a sentence": ("The cat sits on the mat. ", 800),
    "a sentence in Chinese": ("图片中有一只猫坐在桌子上。", 800),
    "a sentence in lines": ("- The quick brown fox jumps over the dog.\n", 1600),
    "a paragraph": (_PARAGRAPH, 1700),
    "a box": ('{"bbox_2d": [512, 340, 530, 352], "label": "apple"},\n', 800),
    "a place": ('{"point_2d": [512, 340], "label": "apple"},\n', 800),
    "boxes in turns": (
        "".join(f'{{"bbox_2d": [{n}, 340, 530, 352], "label": "a"}},\n' for n in range(10, 30)),
        5500,
    ),
    "blocks of a page": ('<div data-bbox="1 2 3 4"><p>Same words</p></div>\n', 800),
    "cells": ("<td></td>", 800),
    "blank rows": ("<tr><td></td><td></td><td></td></tr>", 3000),
    "rows of dashes": ("| - | - | - | - |\n", 1600),
    "rows of words": ("<tr><td>Delivered</td><td>EUR</td><td>0.00</td></tr>", 4500),
    "lines of a program": ("    x = x + 1\n", 1200),
    "spaces": ("&nbsp;", 800),
}


@pytest.mark.parametrize("case", LOOPS)
def test_loops_are_cut_to_one_turn_within_few_tokens(case: str) -> None:
    turn, most = LOOPS[case]
    head = "On this page: "
    subject, text = generate(head, turn * (2 + 40_000 // len(turn)))
    assert subject.finish_reason == "repetition"
    assert text.startswith(head + turn[:-1]) and len(text) <= len(head) + 2 * len(turn) + 8
    tokenizer = Tokenizer()
    ids = tokenizer.encode(head + turn * (2 + 40_000 // len(turn)))
    detected = [
        loop_start(ids[:length], tokenizer.decode) is not None for length in range(0, most, 16)
    ]
    assert any(detected), "it goes on for longer"


@pytest.mark.parametrize("case", ["a sentence", "a box", "blank rows", "rows of dashes", "cells"])
def test_loops_are_cut_without_a_detokenizer(case: str) -> None:
    turn, _ = LOOPS[case]
    subject, _ = generate("On this page: ", turn * 3000, with_text=False, limit=4096)
    assert subject.finish_reason == "repetition"


@pytest.mark.parametrize("columns", [1, 4, 10])
def test_blank_rows_are_no_loop_without_a_detokenizer(columns: int) -> None:
    body = _row("html", [""] * columns) * 40
    subject, text = generate("<table>", body, END, with_text=False)
    assert (subject.finish_reason, text[-len(END) :]) == (None, END)
