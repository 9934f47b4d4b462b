"""Reads what a model wrote: splits off thought, finds places in any of the known shapes.

Numbers stay in the model's own space here; ``coordinates`` maps them. Known shapes, all with
prose around, repeated or cut off: JSON of every kind (``loose_json``, ``items``); ``<ref>…</ref>
<box>``, ``<|object_ref_start|>…<|box_start|>``, ``<point>``, bare ``(x1,y1),(x2,y2)`` and
``(x1,y1,x2,y2)`` (``tags``); HTML with ``data-bbox`` and tables (``markup``); sides and corners
by name (``words``); bare lists of numbers. A cut-off number never becomes a place.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from ..errors import UnreadableReply
from ..unicode import well_formed
from . import items, loose_json, markup, prose, tags
from .absence import says_none
from .bbox import CORNER_NAMES, corner_name, enclosing, in_order, is_absent
from .items import Item, Want

__all__ = [
    "STILL_THINKING",
    "Item",
    "Want",
    "answer_of",
    "find_items",
    "has_lines",
    "is_absent",
    "read_items",
    "says_none",
    "split_thinking",
    "strip_fence",
]

STILL_THINKING = "The model was still thinking when its answer had to end. Raise max_new_tokens."

_OPEN, _CLOSE = "<think>", "</think>"
# What ends an answer, or begins another turn. A model whose settings lack one of them runs on.
_END = re.compile(
    r"<\|(?:im_end|endoftext|end_of_text|eot_id|user)\|>|</s>(?=\s|\Z)"
    r"|<\|im_start\|>(?=\s*(?:user|assistant|system|tool)\b|\s*\Z)"
)
_OTHER_TURN = re.compile(r"\n[ \t]{0,8}(?:Human|User|user)[ \t]{0,8}[:\n]")
_TURN = re.compile(r"(?:\s*<\|(?:im_start|endoftext|im_end)\|>)*(?:assistant\s*\n)?\s*")
_ANSWER = re.compile(r"(?<![\"'`\w])<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_QUOTES = "\"'`"

_LONG_FOR_NOTHING = 20_000  # characters; a list of what is not there is shorter

# Structure as Chinese input methods write it, one character for one, so that places in the text
# stay the same. Quoted strings are left alone: they are labels.
_FULL_WIDTH = "，、：【】［］｛｝（）＂．－＋０１２３４５６７８９\u3000\u00a0"
_ASCII = str.maketrans(_FULL_WIDTH, ',,:[][]{}()".-+0123456789  ')
_STRUCTURE = re.compile(rf"\"[^\"\n]*\"|“([^“”\n]*)”|[{_FULL_WIDTH}]+")


def split_thinking(text: str, inside: bool = False) -> tuple[str, str]:
    """Thought and answer. ``inside``: the prompt already opened the thought.

    Only a thought that leads the text is one, and only once: an answer may speak of the tags. An
    empty thought in front of it does not count. A thought that never ends has an empty answer.
    """
    thinking = ""
    for _ in range(2):  # the empty one that a prompt opened, and the model's own
        if thinking or not (inside or text.lstrip().startswith(_OPEN)):
            break
        thought, _, text = text.lstrip().removeprefix(_OPEN).partition(_CLOSE)
        thinking, inside = thought.strip(), False
    return thinking, text.strip()


def answer_of(text: str) -> str:
    """The answer alone: without thought, without the tags of ``<answer>`` around the whole of it,
    and without what a model that ran on past its end wrote of another turn."""
    text = well_formed(text)
    opening = _TURN.match(text)
    text = text[opening.end() if opening and "<|im_start|>" in opening[0] else 0 :]
    answer = split_thinking(text)[1]
    answer = answer[: _end_of(answer)].strip()
    inner = answer.removeprefix("<answer>").removesuffix("</answer>")
    is_whole = answer.startswith("<answer>") and "answer>" not in inner
    return inner.strip() if is_whole else answer


def _end_of(answer: str) -> int:
    """Where ``answer`` ends and another turn begins. A token that a text speaks of, in quotes or
    amid a sentence, ends nothing."""
    for found in _END.finditer(answer):
        before, after = answer[found.start() - 1 : found.start()], answer[found.end() :][:2]
        is_quoted = before in _QUOTES or (after[:1] and after[:1] in _QUOTES)
        is_amid = before == " " and re.match(r"[ ,.;:)]\S", after)
        if not before or not (is_quoted or is_amid):
            return found.start()
    return len(answer)


def strip_fence(text: str) -> str:
    """``text`` without the Markdown fence around the whole of it, if there is one.

    Fences inside it stay; so does a text of several fences side by side.
    """
    text = text.strip()
    opening, _, body = text.partition("\n")
    if not opening.startswith("```") or "`" in opening[3:]:
        return text
    body = body.rstrip()
    inner = body.removesuffix("```")
    first = next((line.strip() for line in inner.split("\n") if line.startswith("```")), "")
    return text if first == "```" else inner.strip("\n")


def read_items(
    text: str,
    want: Want = "boxes",
    asked: Sequence[str] = (),
    lost: list[str] | None = None,
) -> list[Item]:
    """What ``text`` marks, in its order; an empty list if it says that there is nothing.

    What is said twice counts once: a model that falls into a loop repeats itself.

    ``want``: what was asked for; it decides ``(1,2),(3,4)``, one box or two points. For boxes
    each item has a ``box``, for points a ``point`` or a ``box``; for lines a ``box``, or words
    without one. ``asked``: the names that were looked for (see ``absence.says_none``). ``lost``
    is filled with the labels of things beside these whose place is of another kind or broken.
    Raises ``UnreadableReply`` for anything else.
    """
    whole = answer_of(text)
    for answer in dict.fromkeys((_last_word(whole), whole)):
        # What follows the answer shows that its last number is whole.
        ending = "\n" if not text.rstrip(" ").endswith(answer[-1:] or " ") else ""
        found = find_items(answer + ending, want)
        usable = [item for item in map(_somewhere, found) if _is_usable(item, want)]
        usable = list({(i.box, i.point, i.label, i.text): i for i in usable}.values())
        if lost is not None:
            lost[:] = [item.label for item in found if _is_lost(item, want)]
        if usable or (found and all(map(_is_nowhere, found))):
            return usable
        if not found and _denies(answer, want, asked):
            return []
    raise UnreadableReply(_complaint(text, answer, found, want), text)


def _is_lost(item: Item, want: Want) -> bool:
    """Whether an item says where something is, in a way that cannot be used."""
    if _is_usable(item, want) or _is_nowhere(item):
        return False
    return bool(item.box or item.point) or items.is_broken(item)


def _last_word(answer: str) -> str:
    """``answer`` from where it comes to the point: what is in its last ``<answer>``, before a turn
    of somebody else, or behind a thought that began untold."""
    if tagged := _ANSWER.findall(answer):
        return str(tagged[-1]).strip()
    if turn := _OTHER_TURN.search(answer):
        answer = answer[: turn.start()]
    before, closed, after = answer.rpartition(_CLOSE)
    # In JSON the tag is a part of some text.
    is_thought = closed and not loose_json.is_inside(answer, len(before))
    return after.strip() if is_thought else answer


def _is_nowhere(item: Item) -> bool:
    place = item.box or item.point
    return place is not None and is_absent(place)


def _somewhere(item: Item) -> Item:
    """``item`` without a place that says "nowhere"; words that were read there stay."""
    return dataclasses.replace(item, box=None, point=None) if _is_nowhere(item) else item


def _is_usable(item: Item, want: Want) -> bool:
    if want == "points":
        return bool(item.box or item.point)
    return bool(item.box or (want == "lines" and not item.point and item.text))


def _denies(answer: str, want: Want, asked: Sequence[str]) -> bool:
    # In an answer that was cut off, what would have followed may be a place. Brackets of all kinds
    # are counted together: "[0, 1000)" is whole.
    if sum(map(answer.count, "[{(")) > sum(map(answer.count, "]})")):
        return False
    # Words, where lines of text were asked for, may be that text.
    if want != "lines" and says_none(answer, asked):
        return True
    return len(answer) < _LONG_FOR_NOTHING and items.are_empty(loose_json.values(answer))


def find_items(answer: str, want: Want = "boxes") -> list[Item]:
    """Everything that ``answer`` (without thought) marks with numbers; never raises."""
    answer = tags.with_right_brackets(answer)
    texts = [answer]
    if not answer.isascii():
        texts = [*dict.fromkeys((answer, _STRUCTURE.sub(_to_ascii, answer)))]
    found = next((found for text in texts for found in _readings(text, want) if found), [])
    if order := prose.order_of(answer):
        found = [dataclasses.replace(i, box=i.box and in_order(i.box, order)) for i in found]
    if want == "lines":
        return found
    return [dataclasses.replace(item, label=prose.clean_label(item.label)) for item in found]


def has_lines(answer: str) -> bool:
    """Whether ``answer`` is a list of lines of text with their boxes, and no text by itself."""
    if "<|box_start|>" in answer or ("<ref>" in answer and "<box>" in answer):
        return True
    return any(
        item.box and items.is_named(item)
        for item in items.from_objects(loose_json.values(answer), "lines")
    )


def _readings(text: str, want: Want) -> Iterator[list[Item]]:
    """One reading for each shape, from the plainest statement of a place to the vaguest."""
    values = loose_json.values(text)
    yield items.from_objects(values, want)
    if inner := items.wrapped(values):
        yield find_items(inner, want)
    # A label in an object that was read may look like a place.
    rest = _without_objects(text, values)
    yield _from_blocks(rest)
    yield items.from_tables(rest)
    rest = tags.in_usual_form(rest)
    runs = tags.runs(rest)
    clear = [run for run in runs if run.tag or (want != "points" and len(run.places) > 1)]
    yield _from_runs(clear, want, rest)
    yield [Item(point=place, label=label) for label, place in tags.points(rest)]
    yield items.from_assignments(rest)
    yield items.from_bare_lists(values, text, want)
    yield _from_runs(runs, want, rest)


def _without_objects(text: str, values: Sequence[loose_json.Value]) -> str:
    """``text`` with blanks in place of the objects that were read in it."""
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


def _complaint(text: str, answer: str, found: Sequence[Item], want: Want) -> str:
    if not answer:
        return (
            STILL_THINKING
            if text.strip()
            else "The model answered nothing. Ask in other words, or try a larger model."
        )
    excerpt = answer if len(answer) <= 200 else answer[:150] + " … " + answer[-50:]
    if any(item.point for item in found):
        return (
            f"The model gave points where {want} were asked for. Ask for points, or in other "
            f"words. It wrote: {excerpt}"
        )
    if found:
        return f"The model gave 3-D boxes where {want} in the picture were asked for: {excerpt}"
    return (
        f"The model's reply holds no {want} that can be read, nor does it say that there are none. "
        f"If it was cut off, raise max_new_tokens; else ask in other words. It wrote: {excerpt}"
    )


def _from_runs(runs: Sequence[tags.Run], want: Want, text: str) -> list[Item]:
    found: list[Item] = []
    for run in runs:
        if _is_no_place(run, text):
            continue
        places, pairs = run.places, bool(run.tag) or want != "points"
        if run.tag == "quad":
            if len(places) == 4:
                found.append(Item(box=enclosing(places), label=run.label))
        elif len(places) > 1 and pairs:
            corners = zip(places[0::2], places[1::2], strict=False)
            found += [Item(box=(*first, *second), label=run.label) for first, second in corners]
        elif not (run.cut and pairs):
            found += [Item(point=place, label=run.label) for place in places]
    return found


def _is_no_place(run: tags.Run, text: str) -> bool:
    """Whether it is one corner of a box, or numbers that a sentence tells of something else."""
    if tags.tag_before(text, run.start):
        return False
    numbers = tuple(number for place in run.places[:2] for number in place)
    is_corner = corner_name(run.label) in CORNER_NAMES or (
        len(run.places) == 1 and prose.goes_on_with_a_size(text, run.end)
    )
    return is_corner or prose.is_talk(text, run.start, numbers)


def _from_blocks(text: str) -> list[Item]:
    return [
        Item(
            box=block.box,
            label=block.label,
            data={"tag": block.tag, "kind": block.kind, "text": block.text, "html": block.html},
        )
        for block in markup.blocks(text)
    ]
