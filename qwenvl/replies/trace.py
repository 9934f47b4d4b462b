"""Character spans of items in a reply: where the numbers and the label of each one stand.

Found again in the text by what was read, since broken JSON is read through repairs that move its
characters. An item that is written in a way that cannot be traced has no place; none is guessed.
"""

from __future__ import annotations

import html
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from . import loose_json
from .answer import extract_answer, final_answer
from .bbox import NUMBER, Coordinates, bounding_box, is_plausible, parse_number

Span = tuple[int, int]
"""Start and end (not included) in the characters of the reply."""

# Digits in names ("bbox_2d", "x1") are no numbers.
_NUMBER = re.compile(rf"(?<![A-Za-z_\d.]){NUMBER}")
_TIGHT = re.compile(r"[\s,，、;；:()（）\[\]［］【】]{0,20}")
_CORNERS = 8  # numbers of a quadrilateral
_MAX_GAP = 60  # characters between two numbers of one box: keys, names of corners
_BETWEEN_WORDS = re.compile(r"(?:\s|\\[nrt]|<[^<>]*>)+")
_COLON = re.compile(r"\\?[\"']\s*:")
_MAX_DEPTH = 8  # objects around an item that are searched for its label

# How four numbers x1, y1, x2, y2 may have been written: as they are, with a size, y first, the
# other corner first, as the other diagonal, as a centre with a size. Eight are the corners of a
# quadrilateral, of which the box around it was read.
_WRITTEN: tuple[Callable[[float, float, float, float], Coordinates], ...] = (
    lambda x1, y1, x2, y2: (x1, y1, x2, y2),
    lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1),
    lambda x1, y1, x2, y2: (y1, x1, y2, x2),
    lambda x1, y1, x2, y2: (x2, y2, x1, y1),
    lambda x1, y1, x2, y2: (x1, y2, x2, y1),
    lambda x1, y1, x2, y2: ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
)


@dataclass(frozen=True)
class Traced:
    """The spans of an item's ``numbers`` and of the ``words`` of its label, if it has one."""

    numbers: tuple[Span, ...]
    words: tuple[Span, ...] = ()


def trace(text: str, items: Sequence[tuple[Coordinates, str]]) -> list[Traced | None]:
    """Where each of ``items``, coordinates and label as they were read of the reply ``text`` and in
    their order, stands in it; None where its numbers or its label are not found. What a reply says
    twice is found where it says it first: the other is a copy."""
    answer = final_answer(extract_answer(text))
    numbers = _Numbers(text, max(0, text.rfind(answer)))
    placed = [numbers.find(values) for values, _ in items]
    labels = _Labels(text, [spans for spans in placed if spans])
    found: list[Traced | None] = []
    for spans, (_, label) in zip(placed, items, strict=True):
        words = labels.find(label, spans) if spans and label.strip() else ()
        is_whole = bool(spans) and (bool(words) or not label.strip())
        found.append(Traced(spans, words) if is_whole else None)
    return found


class _Numbers:
    """The numbers in a text, each given to one item. ``start``: where the answer begins; what
    stands before it comes last."""

    def __init__(self, text: str, start: int):
        found = [(number, parse_number(number[0])) for number in _NUMBER.finditer(text)]
        found = [(number, value) for number, value in found if is_plausible(value)]
        self._spans = [number.span() for number, _ in found]
        self._values = [value for _, value in found]
        gaps = [
            text[end:start]
            for (_, end), (start, _) in zip(self._spans, self._spans[1:], strict=False)
        ]
        self._is_tight = [_TIGHT.fullmatch(gap) is not None for gap in gaps]
        self._is_near = [len(gap) <= _MAX_GAP for gap in gaps]
        self._cursor = bisect_left(self._spans, (start, 0))
        self._used: set[int] = set()
        self._windows: dict[int, dict[Coordinates, list[int]]] = {}

    def find(self, values: Coordinates) -> tuple[Span, ...]:
        """The spans of the next ``values`` that no item has yet; empty where there are none."""
        written = [(len(values), values)]
        if len(values) == 4:
            written = [(4, form(*values)) for form in _WRITTEN] + [(_CORNERS, values)]
        for length, numbers in written:
            windows = self._of_length(length).get(numbers, [])
            if (start := self._first(windows, length)) is not None:
                windows.remove(start)
                self._cursor = start + length
                self._used.update(range(start, self._cursor))
                return tuple(self._spans[start : self._cursor])
        return ()

    def _of_length(self, length: int) -> dict[Coordinates, list[int]]:
        """Where runs of ``length`` numbers begin, by their values; ``_CORNERS``, by their box."""
        if length not in self._windows:
            windows: dict[Coordinates, list[int]] = {}
            for start in range(len(self._values) - length + 1 if length else 0):
                if all(self._is_near[start : start + length - 1]):
                    key = tuple(self._values[start : start + length])
                    if length == _CORNERS:
                        key = bounding_box(list(zip(key[0::2], key[1::2], strict=True)))
                    windows.setdefault(key, []).append(start)
            self._windows[length] = windows
        return self._windows[length]

    def _first(self, windows: Sequence[int], length: int) -> int | None:
        """Behind the last item rather than before it; with nothing but punctuation between the
        numbers rather than with words."""
        behind = bisect_left(windows, self._cursor)
        for part in (range(behind, len(windows)), range(behind)):
            loose = None
            for start in map(windows.__getitem__, part):
                if not self._used.isdisjoint(range(start, start + length)):
                    continue
                if all(self._is_tight[start : start + length - 1]):
                    return start
                loose = start if loose is None else loose
            if loose is not None:
                return loose
        return None


class _Labels:
    """The labels beside the numbers of items, which stand at ``placed``."""

    def __init__(self, text: str, placed: Sequence[tuple[Span, ...]]):
        self._text = text
        self._starts = sorted(spans[0][0] for spans in placed)
        self._ends = sorted(spans[-1][1] for spans in placed)
        self._objects = loose_json.object_spans(text)
        self._used: set[Span] = set()
        self._matches = lru_cache(maxsize=512)(self._search)

    def find(self, label: str, numbers: Sequence[Span]) -> tuple[Span, ...]:
        """The spans of the words of ``label``; empty where they are not found."""
        for start, end, from_end in self._regions(numbers[0][0], numbers[-1][1]):
            found = self._matches(label, start, end)
            if from_end:
                found = found[::-1]
            if found:
                _, span = min(found, key=lambda match: (match[0], match[1] in self._used))
                self._used.add(span)
                return tuple(_words(self._text, span))
        return ()

    def _regions(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Where the label of numbers at ``start`` to ``end`` may stand, the likeliest first, and
        whether from the end of that region."""
        if around := list(self._around(start)):
            yield from ((*region, False) for region in around)
            return
        before, behind = self._neighbours(start, end)
        tag = self._text.rfind("<", 0, start)
        if tag > self._text.rfind(">", 0, start):  # numbers of attributes: <p data-bbox="…">label
            inside = self._text.find(">", end)
            yield tag, self._neighbours(start, max(inside, end))[1], False
        else:
            line = self._text.rfind("\n", before, start) + 1
            line_end = self._text.find("\n", end, behind)
            yield max(before, line), start, True
            yield end, line_end if line_end >= 0 else behind, False
        yield before, start, True
        yield 0, start, True  # one label for several

    def _neighbours(self, start: int, end: int) -> Span:
        """Where the numbers of the item before end, and where those of the next one begin."""
        before, behind = bisect_right(self._ends, start), bisect_left(self._starts, end)
        return (
            self._ends[before - 1] if before else 0,
            self._starts[behind] if behind < len(self._starts) else len(self._text),
        )

    def _around(self, position: int) -> Iterator[Span]:
        """The objects around ``position``, from the inside."""
        at = bisect_left(self._objects, (position, 0, -1)) - 1
        found = 0
        while at >= 0 and found < _MAX_DEPTH:
            start, end, at = self._objects[at]
            if end > position:
                found += 1
                yield start, end

    def _search(self, label: str, start: int, end: int) -> list[tuple[int, Span]]:
        """Where ``label`` stands, and in what manner: 0 a value in quotes, 1 a key, 2 bare."""
        found = []
        for match in _pattern(label).finditer(self._text, start, end):
            before, behind = self._text[: match.start()][-1:], self._text[match.end() :][:2]
            is_quoted = before in ('"', "'") and behind.removeprefix("\\")[:1] == before
            is_key = is_quoted and _COLON.match(self._text, match.end())
            found.append((1 if is_key else 0 if is_quoted else 2, match.span()))
        return found


@lru_cache(maxsize=512)
def _pattern(label: str) -> re.Pattern[str]:
    """``label`` as it may stand in a reply: plain, escaped as in JSON or HTML, its words on lines
    of their own or with tags between."""
    spellings = (
        label,
        json.dumps(label, ensure_ascii=False)[1:-1],
        json.dumps(label)[1:-1],
        html.escape(label, quote=False),
    )
    gap = _BETWEEN_WORDS.pattern
    bodies = [gap.join(map(re.escape, spelling.split())) for spelling in dict.fromkeys(spellings)]
    first, last = label.strip()[0], label.strip()[-1]
    left = r"(?<![A-Za-z0-9_])" if first.isascii() and first.isalnum() else ""
    right = r"(?![A-Za-z0-9_])" if last.isascii() and last.isalnum() else ""
    return re.compile(f"{left}(?:{'|'.join(bodies)}){right}")


def _words(text: str, span: Span) -> Iterator[Span]:
    """The parts of ``span`` between blanks and tags."""
    start, end = span
    for gap in _BETWEEN_WORDS.finditer(text, start, end):
        if gap.start() > start:  # LaTeX such as \nabla begins like one
            yield start, gap.start()
        start = gap.end()
    if end > start:
        yield start, end
