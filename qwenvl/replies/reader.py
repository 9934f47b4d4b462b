"""Reply reader: the labelled boxes, points or text lines in a reply, whatever form it has.

Forms, all with prose around them, repeated or cut off: JSON of every kind (``loose_json``,
``items``); ``<ref>…</ref><box>``, ``<|object_ref_start|>…<|box_start|>``, ``<point>``, bare
``(x1,y1),(x2,y2)`` and ``(x1,y1,x2,y2)`` (``tags``); HTML with ``data-bbox`` and tables
(``markup``); named sides and corners (``prose``); bare lists of numbers. A number that was cut
off never becomes a coordinate.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from ..errors import UnreadableReply
from . import items, loose_json, markup, prose, tags
from .absence import says_none
from .answer import STILL_THINKING, extract_answer, final_answer
from .bbox import CORNER_KEYS, bounding_box, corner_key, is_null, to_xyxy
from .items import Expected, Item

_MAX_EMPTY_LENGTH = 20_000  # characters; a list of things that are absent is shorter

# Full-width punctuation, as Chinese input methods write it, one character for one, so that
# positions in the text stay the same. Quoted strings are labels and stay as they are.
_FULL_WIDTH = "，、：【】［］｛｝（）＂．－＋０１２３４５６７８９\u3000\u00a0"
_ASCII = str.maketrans(_FULL_WIDTH, ',,:[][]{}()".-+0123456789  ')
_PUNCTUATION = re.compile(rf"\"[^\"\n]*\"|“([^“”\n]*)”|[{_FULL_WIDTH}]+")


def read_items(
    text: str,
    expected: Expected = "boxes",
    names: Sequence[str] = (),
    unusable: list[str] | None = None,
) -> list[Item]:
    """The items of a reply, in its order; an empty list if it says that there are none.

    Duplicates count once: a model that falls into a loop repeats itself.

    ``expected``: what was asked for; it decides whether ``(1,2),(3,4)`` is one box or two points.
    For boxes each item has a ``box``, for points a ``point`` or a ``box``; for lines a ``box``, or
    text without one. ``names``: what was looked for (see ``says_none``). ``unusable`` is filled
    with the labels of items whose coordinates are broken or of another kind, where others are
    usable. Raises ``UnreadableReply`` if there is nothing else.
    """
    whole = extract_answer(text)
    for answer in dict.fromkeys((final_answer(whole), whole)):
        # Anything after the answer shows that its last number is complete.
        ending = "\n" if not text.rstrip(" ").endswith(answer[-1:] or " ") else ""
        found = find_items(answer + ending, expected)
        usable = [item for item in map(_without_null, found) if _is_usable(item, expected)]
        usable = list({(i.box, i.point, i.box_3d, i.label, i.text): i for i in usable}.values())
        if unusable is not None:
            unusable[:] = [item.label for item in found if _is_unusable(item, expected)]
        if usable or (found and all(map(_has_null, found))):
            return usable
        if not found and _is_none(answer, expected, names):
            return []
    raise UnreadableReply(_complaint(text, answer, found, expected), text)


def _is_unusable(item: Item, expected: Expected) -> bool:
    """Whether an item has coordinates, but broken ones or of another kind."""
    if _is_usable(item, expected) or _has_null(item):
        return False
    if expected == "boxes_3d" and any(map(items.is_box_3d_key, item.data)):
        return True
    return bool(item.box or item.point) or items.has_broken_coordinates(item)


def _has_null(item: Item) -> bool:
    values = item.box or item.point
    return values is not None and is_null(values)


def _without_null(item: Item) -> Item:
    """``item`` without placeholder coordinates; its text stays."""
    return dataclasses.replace(item, box=None, point=None) if _has_null(item) else item


def _is_usable(item: Item, expected: Expected) -> bool:
    if expected == "points":
        return bool(item.box or item.point)
    if expected == "boxes_3d":
        return item.box_3d is not None
    return bool(item.box or (expected == "lines" and not item.point and item.text))


def _is_none(answer: str, expected: Expected, names: Sequence[str]) -> bool:
    """Whether ``answer``, which holds no items, says that there are none."""
    # If it was cut off, a box might have followed. All kinds of brackets are counted together:
    # "[0, 1000)" is complete.
    if sum(map(answer.count, "[{(")) > sum(map(answer.count, "]})")):
        return False
    # If lines of text were asked for, a sentence may be that text.
    if expected != "lines" and says_none(answer, names):
        return True
    return len(answer) < _MAX_EMPTY_LENGTH and items.are_empty(loose_json.values(answer))


def find_items(answer: str, expected: Expected = "boxes") -> list[Item]:
    """Every item with coordinates in ``answer`` (without thinking); never raises."""
    answer = tags.fix_brackets(answer)
    texts = [answer]
    if not answer.isascii():
        texts = [*dict.fromkeys((answer, _PUNCTUATION.sub(_to_ascii, answer)))]
    found = next((found for text in texts for found in _readings(text, expected) if found), [])
    if order := prose.coordinate_order(answer):
        found = [dataclasses.replace(i, box=i.box and to_xyxy(i.box, order)) for i in found]
    if expected == "lines":
        return found
    return [dataclasses.replace(item, label=prose.strip_markdown(item.label)) for item in found]


def has_text_lines(answer: str) -> bool:
    """Whether ``answer`` is a list of text lines with their boxes rather than plain text."""
    if "<|box_start|>" in answer or ("<ref>" in answer and "<box>" in answer):
        return True
    return any(
        item.box and items.has_label(item)
        for item in items.from_objects(loose_json.values(answer), "lines")
    )


def _readings(text: str, expected: Expected) -> Iterator[list[Item]]:
    """The items in each of the known forms, from the most explicit form to the vaguest."""
    values = loose_json.values(text)
    yield items.from_objects(values, expected)
    if inner := items.wrapped_answer(values):
        yield find_items(inner, expected)
    # A label within an object that was read may look like coordinates.
    rest = _without_objects(text, values)
    yield _from_blocks(rest)
    yield items.from_tables(rest)
    rest = tags.normalise_tags(rest)
    runs = tags.point_runs(rest)
    clear = [run for run in runs if run.tag or (expected != "points" and len(run.points) > 1)]
    yield _from_runs(clear, expected, rest)
    yield [Item(point=point, label=label) for label, point in tags.point_tags(rest)]
    yield items.from_assignments(rest)
    yield items.from_bare_lists(values, text, expected)
    yield _from_runs(runs, expected, rest)


def _without_objects(text: str, values: Sequence[loose_json.Value]) -> str:
    """``text`` with blanks in place of the JSON objects that were read in it."""
    parts, end = [], 0
    for value in values:
        holds_objects = isinstance(value.value, dict) or (
            isinstance(value.value, list) and any(isinstance(v, dict) for v in value.value)
        )
        if holds_objects and value.start >= end:
            parts += [text[end : value.start], " " * (value.end - value.start)]
            end = value.end
    return "".join(parts) + text[end:]


def _to_ascii(found: re.Match[str]) -> str:
    if found[1] is not None:
        return f'"{found[1]}"'
    return found[0] if found[0].startswith('"') else found[0].translate(_ASCII)


def _complaint(text: str, answer: str, found: Sequence[Item], expected: Expected) -> str:
    if not answer:
        return (
            STILL_THINKING
            if text.strip()
            else "The model answered nothing. Ask in other words, or try a larger model."
        )
    wanted = "3-D boxes" if expected == "boxes_3d" else expected
    excerpt = answer if len(answer) <= 200 else answer[:150] + " … " + answer[-50:]
    if any(item.point for item in found):
        return (
            f"The model gave points where {wanted} were asked for. Ask for points, or in other "
            f"words. It wrote: {excerpt}"
        )
    if found and expected == "boxes_3d":
        return f"The model gave no 3-D boxes of nine numbers, as were asked for: {excerpt}"
    if any(items.is_box_3d_key(key) for item in found for key in item.data):
        return f"The model gave 3-D boxes where {expected} in the picture were asked for: {excerpt}"
    if found:
        return (
            f"The model gave {wanted} whose numbers are broken. Ask again with another seed, or in "
            f"other words. It wrote: {excerpt}"
        )
    return (
        f"The model's reply holds no {wanted} that can be read, nor does it say that there are "
        "none. If it was cut off, raise max_new_tokens; else ask in other words. It wrote: "
        f"{excerpt}"
    )


def _from_runs(runs: Sequence[tags.PointRun], expected: Expected, text: str) -> list[Item]:
    found: list[Item] = []
    for run in runs:
        if _is_something_else(run, text):
            continue
        points, are_corners = run.points, bool(run.tag) or expected != "points"
        if run.tag == "quad":
            if len(points) == 4:
                found.append(Item(box=bounding_box(points), label=run.label))
        elif len(points) > 1 and are_corners:
            corners = zip(points[0::2], points[1::2], strict=False)
            found += [Item(box=(*first, *second), label=run.label) for first, second in corners]
        elif not (run.cut and are_corners):
            found += [Item(point=point, label=run.label) for point in points]
    return found


def _is_something_else(run: tags.PointRun, text: str) -> bool:
    """Whether a run is a single corner of a box, or numbers that are no coordinates at all."""
    if tags.tag_before(text, run.start):
        return False
    numbers = tuple(number for point in run.points[:2] for number in point)
    is_corner = corner_key(run.label) in CORNER_KEYS or (
        len(run.points) == 1 and prose.size_follows(text, run.end)
    )
    return is_corner or prose.are_other_numbers(text, run.start, numbers)


def _from_blocks(text: str) -> list[Item]:
    return [
        Item(
            box=block.box,
            label=block.label,
            data={"tag": block.tag, "kind": block.kind, "text": block.text, "html": block.html},
        )
        for block in markup.blocks(text)
    ]
