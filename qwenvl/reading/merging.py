"""Merging of lines that were read in overlapping tiles: what several tiles saw is one line, whole.

A line that two tiles saw is theirs twice: the one that no tile cut off is kept. A line that goes
through the side of a tile was read in parts, which are joined where their words agree. A line that
is cut along its length (by the upper or lower side of a tile) is noise: its neighbour, which
overlaps, has it whole.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from ..tiles import Tile
from ..types import Box, Size
from .order import is_vertical

SAME_AREA = 0.5
"""Share of the smaller of two boxes that lies in the other, from which they may be one line."""

PART = 0.8
"""Share of a much smaller box that lies in another, from which it is a part of that line."""

SAME_ROW = 0.5
"""Share of the height of the lower of two lines that they have in common in one row."""

_FARNESS = 0.6  # what a letter more or fewer than the place says weighs against one that agrees

_BLANK = 0.3  # what an equal blank weighs: there are many

SAME_TEXT = 0.6
"""Share of the letters of the shorter of two readings that the other has in the same order, from
which they are of one line."""

_COMPARED = 200  # letters of two texts at most: the time for that grows with their product

_MARGIN = 3.0  # pixels; the models' boxes are not exact
_LETTER = 1.0  # of a line's height: how far from a tile's side one may end that the side cuts


@dataclass(frozen=True)
class Line:
    """A line in pixels of the picture. ``tiles``: those that saw it, by number. ``cuts``: on which
    of its sides (left, top, right, bottom) a tile may have cut it. ``data``: see ``tasks.ocr``."""

    box: Box
    tiles: frozenset[int]
    cuts: tuple[bool, bool, bool, bool] = (False, False, False, False)
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.box.label

    @property
    def is_broken(self) -> bool:
        """Whether it is cut along its length, so that half of its letters is missing."""
        across = (0, 2) if is_vertical(self.box) else (1, 3)
        return any(self.cuts[side] for side in across)


def line(box: Box, number: int, tile: Tile, size: Size, data: Mapping[str, Any]) -> Line:
    """A line that tile ``number`` has, in pixels of the picture of ``size``."""
    height, width = size
    along, across = max(_MARGIN, _LETTER * min(box.x2 - box.x1, box.y2 - box.y1)), _MARGIN
    x, y = (across, along) if is_vertical(box) else (along, across)
    cuts = (
        tile[0] > 0 and box.x1 <= tile[0] + x,
        tile[1] > 0 and box.y1 <= tile[1] + y,
        tile[2] < width and box.x2 >= tile[2] - x,
        tile[3] < height and box.y2 >= tile[3] - y,
    )
    return Line(box, frozenset([number]), cuts, data)


def merged(lines: Sequence[Line]) -> list[Line]:
    """``lines`` of all tiles, in the order in which they were read, each once."""
    return _without_doubles(_joined(list(lines)))


def _joined(lines: list[Line]) -> list[Line]:
    """With the parts of each line that goes through the side of a tile joined."""
    at = 0
    while at < len(lines):
        # That which has most of it in common, to see where they agree.
        rests = [i for i in _near(lines, at) if _continues(lines[at], lines[i])]
        other = min(rests, key=lambda i: lines[i].box.x1 + lines[i].box.y1, default=None)
        if other is None:
            at += 1
            continue
        whole = _join(lines[at], lines[other])
        first = min(at, other)
        lines = [part for i, part in enumerate(lines) if i not in (at, other)]
        lines.insert(first, whole)
        at = first
    return lines


def _near(lines: Sequence[Line], at: int) -> list[int]:
    """Lines beside the cut end of one, told quickly: most pairs of a page are far apart."""
    box, cuts = lines[at].box, lines[at].cuts
    if not (cuts[2] or cuts[3]):
        return []
    reach = min(box.x2 - box.x1, box.y2 - box.y1)
    right, bottom = box.x2 + reach, box.y2 + reach
    return [
        index
        for index, part in enumerate(lines)
        if (part.cuts[0] or part.cuts[1])
        and box.y1 < part.box.y2
        and part.box.y1 <= bottom
        and part.box.x1 <= right
        and box.x1 < part.box.x2
        and index != at
    ]


def _continues(first: Line, second: Line) -> bool:
    """Whether ``second`` is the rest of ``first``, which the end of a tile cut off."""
    if first.tiles & second.tiles or is_vertical(first.box) != is_vertical(second.box):
        return False
    if first.is_broken or second.is_broken:
        return False
    down = is_vertical(first.box)
    end, start = (3, 1) if down else (2, 0)
    if not (first.cuts[end] and second.cuts[start]):
        return False
    one, two = _turned(first.box, down), _turned(second.box, down)
    thickness = min(one.y2 - one.y1, two.y2 - two.y1)
    common = min(one.y2, two.y2) - max(one.y1, two.y1)
    # In the part that both tiles have, both have the line.
    is_next = one.x1 < two.x1 <= one.x2 + thickness and one.x2 <= two.x2 + _MARGIN
    return is_next and common >= SAME_ROW * thickness


def _turned(box: Box, down: bool) -> Box:
    """With x along the line."""
    return Box(box.y1, box.x1, box.y2, box.x2) if down else box


def _join(first: Line, second: Line) -> Line:
    down = is_vertical(first.box)
    one, two = _turned(first.box, down), _turned(second.box, down)
    shared = max(0.0, one.x2 - two.x1) / (two.x2 - two.x1)
    text = join_texts(first.text, second.text, shared)
    scores = [box.score for box in (first.box, second.box) if box.score is not None]
    box = Box(
        min(first.box.x1, second.box.x1),
        min(first.box.y1, second.box.y1),
        max(first.box.x2, second.box.x2),
        max(first.box.y2, second.box.y2),
        text,
        min(scores, default=None),
    )
    start, end = (1, 3) if down else (0, 2)
    cuts = [a or b for a, b in zip(first.cuts, second.cuts, strict=True)]
    cuts[start], cuts[end] = first.cuts[start], second.cuts[end]
    return Line(box, first.tiles | second.tiles, (*cuts,), {**second.data, **first.data})  # type: ignore[arg-type]


def join_texts(first: str, second: str, shared: float) -> str:
    """The text of a line of which ``first`` is the beginning and ``second`` the end; of the second,
    the share ``shared`` of its length lies over the end of the first.

    How many letters both have is the number near what the place says for which most of these
    agree; it says nothing where the last letter of the first or the first of the second does not,
    since a tile's side may have cut them. What both have is taken from the first up to where they
    agree, and from the second from there on. Where that are very many letters, only those around
    the middle of the place are compared.
    """
    expected = min(round(shared * len(second)), len(first), len(second))
    if expected > _COMPARED:
        return _joined_inside(first, second, expected)
    most = min(len(first), len(second), 2 * expected + 3)
    common = max(range(most + 1), key=lambda count: _agreement(first, second, count, expected))
    if not common:
        is_wide = any(
            unicodedata.east_asian_width(char) in "WF" for char in first[-1:] + second[:1]
        )
        return first + second if is_wide else f"{first.rstrip()} {second.lstrip()}"
    tail, head = first[-common:], second[:common]
    run = SequenceMatcher(None, tail, head, autojunk=False).find_longest_match()
    at = run.a if run.size and run.a == run.b else common // 2
    return first[: len(first) - common + at] + second[at:]


def _joined_inside(first: str, second: str, common: int) -> str:
    """Two texts joined where they agree around the middle of the ``common`` letters of both."""
    start = (common - _COMPARED) // 2
    behind = len(first) - common + start
    one, two = first[behind : behind + _COMPARED], second[start : start + _COMPARED]
    run = SequenceMatcher(None, one, two, autojunk=False).find_longest_match()
    return first[: behind + run.a] + second[start + run.b :]


def _agreement(first: str, second: str, count: int, expected: int) -> float:
    """How well ``count`` letters at the end of ``first`` and the beginning of ``second`` agree."""
    pairs = list(zip(first[len(first) - count :], second[:count], strict=True))
    agreement = -_FARNESS * abs(count - expected)
    for at, (one, two) in enumerate(pairs):
        if one == two:
            agreement += _BLANK if one == " " else 1.0
        elif 0 < at < count - 1:
            agreement -= 1.0
    return agreement


def _without_doubles(lines: Sequence[Line]) -> list[Line]:
    """Of lines that are one, the best, in the place of the first of them."""
    kept: dict[int, Line] = {}
    for index in sorted(range(len(lines)), key=lambda index: _quality(lines[index]), reverse=True):
        one = lines[index]
        same = next((at for at, other in kept.items() if _is_same(one, other)), None)
        if same is None:
            kept[index] = one
        elif index < same:
            kept[index] = kept.pop(same)
    return [kept[index] for index in sorted(kept)]


def _is_same(one: Line, other: Line) -> bool:
    if one.box.y2 <= other.box.y1 or other.box.y2 <= one.box.y1:
        return False
    if one.tiles & other.tiles and not one.is_broken and not other.is_broken:
        return False  # one tile read two lines
    overlap = _overlap(one.box, other.box)
    if overlap < SAME_AREA:
        return False
    small, large = sorted((one, other), key=lambda found: _area(found.box))
    if overlap >= PART and any(small.cuts) and _area(small.box) < SAME_AREA * _area(large.box):
        return True  # however little of it could be read
    if one.is_broken != other.is_broken or any(one.cuts) != any(other.cuts):
        return True  # half of it cannot be read, and a part of it is no other line
    return _similarity(one.text, other.text) >= SAME_TEXT


def _quality(found: Line) -> tuple[bool, bool, float, float]:
    return (
        not found.is_broken, not any(found.cuts), _area(found.box), found.box.score or 0.0
    )  # fmt: skip


def _overlap(one: Box, other: Box) -> float:
    """Area in common, as a share of the smaller box."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min(_area(one), _area(other))


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _similarity(one: str, other: str) -> float:
    """Of long texts that of their beginnings or of their ends, whichever is larger."""
    short, long = sorted(("".join(text.casefold().split()) for text in (one, other)), key=len)
    if len(long) <= _COMPARED:
        return _common_share(short, long)
    return max(
        _common_share(short[:_COMPARED], long[:_COMPARED]),
        _common_share(short[-_COMPARED:], long[-_COMPARED:]),
    )


def _common_share(short: str, long: str) -> float:
    matches = SequenceMatcher(None, short, long, autojunk=False).get_matching_blocks()
    return sum(match.size for match in matches) / max(1, len(short))
