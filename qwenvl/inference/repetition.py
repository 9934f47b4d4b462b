"""Loops: an answer that says the same again and again until its tokens are used up.

Pages hold runs too: blank rows of a table, dots that lead to a page's number, boxes to tick. What
tells them apart is that a loop never ends, so the question is how long to wait. As long as a page
can go on: some hundred lines where the text comes in lines, more tokens for rows and blanks than
for words, and less for words without an end of a line, which no page repeats for long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

_LONGEST = 1024  # tokens of a turn that is looked for
_TURNS = 6  # equal turns that a loop has at least
_TOKENS = 768  # ... and tokens
_LINES = 128  # ... and lines, a page having less ...
_WORDS = 2048  # ... but no more tokens than these where the lines hold words,
_ROWS = 10_240  # ... and these where they are rows of a table, or mostly blanks

_ROW_END = re.compile(r"</tr>")
_LINE_END = re.compile(r"(?:(?:\n|</(?:li|p|div)>|<br\s*/?>|\\\\)[ \t]*)+")
_CELL = re.compile(r"</?t[dhr]\b|[|\t&]")
_MARKUP = re.compile(r"<[^<>]*>|&\w+;|\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
# The same box or place again is no second thing.
_PLACE = re.compile(r"bbox|point_2d|<\|?box|<point")


def loop_start(ids: Sequence[int], decode: Decode | None = None) -> int | None:
    """Where a loop at the end of ``ids`` should be cut so that one turn of it stays, or None.
    ``decode`` gives the text of tokens; without it, what kind of text repeats is guessed from how
    many of its tokens differ."""
    period = _period(ids)
    if period is None:
        return None
    start = _run(ids, period)
    if len(ids) - start < _allowance(ids[len(ids) - period :], decode):
        return None
    return start + period


def _period(ids: Sequence[int]) -> int | None:
    """The shortest turn whose repetition the end of ``ids`` is, as far as loops go at least."""
    length = len(ids)
    for period in range(1, min(_LONGEST, length // _TURNS) + 1):
        if ids[-1] != ids[-1 - period]:
            continue
        needed = max(_TOKENS, _TURNS * period)
        if needed <= length and ids[length - needed + period :] == ids[length - needed : -period]:
            return period
    return None


def _run(ids: Sequence[int], period: int) -> int:
    """Where the repetition begins that ``ids`` ends with."""
    place = len(ids) - 1
    while place >= period and ids[place] == ids[place - period]:
        place -= 1
    return place + 1 - period


def _allowance(turn: Sequence[int], decode: Decode | None) -> int:
    """Tokens that repetitions of ``turn`` may go on for."""
    if decode is None:
        variety = len(set(turn)) / len(turn)  # rows say little with many tokens
        lines, blank = int(variety <= 1 / 2), variety <= 1 / 4
    else:
        lines, blank = _read(decode([*turn, *turn]))  # a turn begins anywhere, even amid a tag
    if not lines:
        return _TOKENS
    return min(_LINES * len(turn) // lines, _ROWS if blank else _WORDS)


def _read(twice: str) -> tuple[int, bool]:
    """Of the text of a turn, written twice: its lines (0 where it is no part of a page that is
    laid out in lines), and whether they are rows of a table or mostly blanks."""
    if _PLACE.search(twice):
        return 0, False
    ends = _ROW_END.findall(twice) or _LINE_END.findall(twice)
    bare = _MARKUP.sub("", twice)
    letters = sum(map(len, _WORD.findall(bare)))
    return (len(ends) + 1) // 2, bool(_CELL.search(twice)) or 4 * letters <= len(bare)
