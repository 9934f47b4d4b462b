"""Repetition detection: whether an answer is in a loop that would go on until its token limit.

Pages have runs too: blank table rows, leader dots, check boxes. A loop differs in that it never
ends, so the question is how long to wait: as long as a page can go on. That is some hundred lines
where the text comes in lines, more tokens for rows and blanks than for words, and fewer for words
without a line's end, which no page repeats for long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

_MAX_PERIOD = 1024  # tokens of a turn that is looked for
_MIN_TURNS = 6  # equal turns that a loop has at least
_MIN_TOKENS = 768  # ... and tokens
_MIN_LINES = 128  # ... and lines, a page having fewer ...
_MAX_WORD_TOKENS = 2048  # ... but no more tokens than these where the lines hold words,
_MAX_ROW_TOKENS = 10_240  # ... and these where they are table rows, or mostly blanks

_ROW_END = re.compile(r"</tr>")
_LINE_END = re.compile(r"(?:(?:\n|</(?:li|p|div)>|<br\s*/?>|\\\\)[ \t]*)+")
_CELL = re.compile(r"</?t[dhr]\b|[|\t&]")
_MARKUP = re.compile(r"<[^<>]*>|&\w+;|\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
# The same box or point twice is never meant as two things.
_COORDINATES = re.compile(r"bbox|point_2d|<\|?box|<point")


def loop_start(ids: Sequence[int], decode: Decode | None = None) -> int | None:
    """The index to cut ``ids`` at so that one turn of the loop at their end stays; None where there
    is no loop. ``decode`` gives the text of tokens; without it, the kind of text that repeats is
    guessed from how many of its tokens differ."""
    period = _period(ids)
    if period is None:
        return None
    start = _repetition_start(ids, period)
    if len(ids) - start < _allowance(ids[len(ids) - period :], decode):
        return None
    return start + period


# Blanks in pieces of a few: a run that is one piece would never repeat.
_WORD_PIECE = re.compile(r" ?[^\W\d_]{1,8}|\d|[^\S ]{1,4}| {1,16}|.", re.DOTALL)


def text_loop_start(text: str) -> int | None:
    """As ``loop_start``, of ``text`` whose tokens are not known: the character to cut it at. Words
    with the blank before them, digits and other characters stand for tokens."""
    pieces = _WORD_PIECE.findall(text)[:-1]  # the last one may still grow
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(piece, len(numbers)) for piece in pieces]
    known = list(numbers)
    start = loop_start(ids, lambda turn: "".join(known[number] for number in turn))
    return None if start is None else sum(map(len, pieces[:start]))


def _period(ids: Sequence[int]) -> int | None:
    """The shortest turn that the end of ``ids`` repeats often enough for a loop."""
    length = len(ids)
    for period in range(1, min(_MAX_PERIOD, length // _MIN_TURNS) + 1):
        if ids[-1] != ids[-1 - period]:
            continue
        needed = max(_MIN_TOKENS, _MIN_TURNS * period)
        if needed <= length and ids[length - needed + period :] == ids[length - needed : -period]:
            return period
    return None


def _repetition_start(ids: Sequence[int], period: int) -> int:
    """Where the repetition begins that ``ids`` ends with."""
    index = len(ids) - 1
    while index >= period and ids[index] == ids[index - period]:
        index -= 1
    return index + 1 - period


def _allowance(turn: Sequence[int], decode: Decode | None) -> int:
    """Tokens that repetitions of ``turn`` may go on for."""
    if decode is None:
        variety = len(set(turn)) / len(turn)  # blank rows spend many tokens on few distinct ones
        lines, blank = int(variety <= 1 / 2), variety <= 1 / 4
    else:
        lines, blank = _layout(decode([*turn, *turn]))  # a turn may begin inside a tag
    if not lines:
        return _MIN_TOKENS
    return min(_MIN_LINES * len(turn) // lines, _MAX_ROW_TOKENS if blank else _MAX_WORD_TOKENS)


def _layout(doubled: str) -> tuple[int, bool]:
    """Of a turn's text, given twice in a row: its lines (0 where it is not page text laid out in
    lines), and whether they are table rows or mostly blanks."""
    if _COORDINATES.search(doubled):
        return 0, False
    ends = _ROW_END.findall(doubled) or _LINE_END.findall(doubled)
    bare = _MARKUP.sub("", doubled)
    letters = sum(map(len, _WORD.findall(bare)))
    return (len(ends) + 1) // 2, bool(_CELL.search(doubled)) or 4 * letters <= len(bare)
