"""Reads what a model wrote: splits off thought, finds places in any of the known shapes.

Numbers stay in the model's own space here; ``coordinates`` maps them. Known shapes, all with
prose around, repeated or cut off: JSON of every kind (``loose_json``); ``<ref>…</ref><box>`` and
``<|object_ref_start|>…<|box_start|>``, bare ``(x1,y1),(x2,y2)`` and ``(x1,y1,x2,y2)``,
``<points x1= y1=>`` and HTML with ``data-bbox`` (``markup``); bare lists of numbers. A cut-off
number never becomes a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..errors import UnreadableReply
from . import items, loose_json, markup
from .absence import says_none
from .items import Item, Want
from .places import enclosing

__all__ = [
    "STILL_THINKING",
    "Item",
    "Want",
    "answer_of",
    "find_items",
    "read_items",
    "says_none",
    "split_thinking",
    "strip_fence",
]

STILL_THINKING = "The model was still thinking when its answer had to end. Raise max_new_tokens."

_THINK = re.compile(r"(</?think>)")
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")

# Structure as Chinese input methods write it, one character for one, so that places in the text
# stay the same. Quoted strings are left alone: they are labels.
_FULL_WIDTH = dict(
    zip(
        "，、：【】［］｛｝（）＂．－＋０１２３４５６７８９\u3000\u00a0",
        ',,:[][]{}()".-+0123456789  ',
        strict=True,
    )
)
_STRUCTURE = re.compile(rf"\"[^\"\n]*\"|“([^“”\n]*)”|[{''.join(_FULL_WIDTH)}]")


def split_thinking(text: str, inside: bool = False) -> tuple[str, str]:
    """Thought and answer. ``inside``: the prompt already opened the thought.

    A reply whose first tag is ``</think>`` began inside as well. A thought that never ends has an
    empty answer.
    """
    parts = _THINK.split(text)
    inside = inside or (len(parts) > 1 and parts[1] == "</think>")
    sides: tuple[list[str], list[str]] = ([], [])
    for part in parts:
        if part in ("<think>", "</think>"):
            inside = part == "<think>"
        else:
            sides[0 if inside else 1].append(part)
    thinking, answer = ("".join(side) for side in sides)
    return thinking.strip(), answer.strip()


def answer_of(text: str) -> str:
    """The answer alone: without thought, and without end-of-turn tokens that were not skipped."""
    answer = split_thinking(text)[1]
    while answer.endswith(_END_TOKENS):
        answer = answer[: answer.rindex("<|")].rstrip()
    return answer


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


def read_items(text: str, want: Want = "boxes", asked: Sequence[str] = ()) -> list[Item]:
    """What ``text`` marks, in its order; an empty list if it says that there is nothing.

    What is said twice counts once: a model that falls into a loop repeats itself.

    ``want``: what was asked for; it decides ``(1,2),(3,4)``, one box or two points. For boxes
    each item has a ``box``, for points a ``point`` or a ``box``; for lines a ``box``, or words
    without one. ``asked``: the names that were looked for (see ``absence.says_none``). Raises
    ``UnreadableReply`` for anything else.
    """
    answer = answer_of(text)
    found = find_items(answer, want)
    usable = [item for item in found if _is_usable(item, want)]
    usable = list({(i.box, i.point, i.label, i.text): i for i in usable}.values())
    if not usable and (found or not _denies(answer, want, asked)):
        raise UnreadableReply(_complaint(text, answer, found, want), text)
    return usable


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
    in_words = want != "lines" and says_none(answer, asked)
    return in_words or items.are_empty(loose_json.values(answer))


def find_items(answer: str, want: Want = "boxes") -> list[Item]:
    """Everything that ``answer`` (without thought) marks with numbers; never raises."""
    texts = dict.fromkeys((answer, _STRUCTURE.sub(_to_ascii, answer)))
    return next((found for text in texts for found in _readings(text, want) if found), [])


def _readings(text: str, want: Want) -> Iterator[list[Item]]:
    """One reading for each shape, from the plainest statement of a place to the vaguest."""
    values = loose_json.values(text)
    yield items.from_objects(values, want)
    yield _from_blocks(text)
    runs = markup.runs(text)
    clear = [run for run in runs if run.tag or (want != "points" and len(run.places) > 1)]
    yield _from_runs(clear, want)
    yield [Item(point=place, label=label) for label, place in markup.points(text)]
    yield items.from_bare_lists(values, text, want)
    yield _from_runs(runs, want)


def _to_ascii(found: re.Match[str]) -> str:
    if found[1] is not None:
        return f'"{found[1]}"'
    return _FULL_WIDTH.get(found[0], found[0])


def _complaint(text: str, answer: str, found: Sequence[Item], want: Want) -> str:
    if not answer:
        return (
            STILL_THINKING
            if text.strip()
            else "The model answered nothing. Try another seed, or a larger model."
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


def _from_runs(runs: Sequence[markup.Run], want: Want) -> list[Item]:
    found: list[Item] = []
    for run in runs:
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


def _from_blocks(text: str) -> list[Item]:
    return [
        Item(
            box=block.box,
            label=block.label,
            data={"tag": block.tag, "kind": block.kind, "text": block.text, "html": block.html},
        )
        for block in markup.blocks(text)
    ]
