"""Figures of documents: the regions that a page's Markdown or HTML names as pictures, and links in
their place once they are cut out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ..types import Box
from . import markup
from .bbox import parse_numbers

KINDS = frozenset(
    ("image", "img", "figure", "picture", "photo", "photograph", "chart", "diagram", "graph",
     "graphic", "illustration", "drawing", "map", "plot", "logo", "seal", "signature")
)  # fmt: skip
"""What documents call a region without text of its own: the words of box comments, and the classes,
labels and names of elements."""

_COMMENT = re.compile(r"<!--\s*([A-Za-z]+)[^<>()]{0,40}\(([^<>()]{1,100})\)\s*-->")
OLMOCR = re.compile(
    r"!\[([^\]\n]{0,500})\]\(page_(\d{1,6})_(\d{1,6})_(\d{1,6})_(\d{1,6})(?:\.\w{1,4})?\)"
)
"""A figure as olmOCR's prompt asks for it: description, then x, y, width and height."""

_SOURCE = re.compile(r"\s?\bsrc\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+)", re.IGNORECASE)


@dataclass(frozen=True)
class _Place:
    """Where a document names a figure: the characters that a link takes the place of, and how."""

    start: int
    end: int
    box: Box
    link: Callable[[str], str]


def linked(document: str, address: Callable[[int], str]) -> tuple[str, list[Box]]:
    """``document``, with boxes in pixels as ``tasks.ocr`` gives it, with a picture in the place of
    each figure; the figures' boxes, labelled by kind or description, in order. ``address(n)`` is
    that of the n-th picture's file, from 0. What names no region stays as it is."""
    parts: list[str] = []
    boxes: list[Box] = []
    end = 0
    for place in sorted(_places(document), key=lambda place: place.start):
        if place.start < end:
            continue  # a figure in a figure
        parts += [document[end : place.start], place.link(address(len(boxes)))]
        boxes.append(place.box)
        end = place.end
    return "".join(parts) + document[end:], boxes


def _places(document: str) -> Iterator[_Place]:
    for found in _COMMENT.finditer(document):
        kind = found[1].lower()
        if kind in KINDS and (box := _box(parse_numbers(found[2]), kind)):
            yield _Place(*found.span(), box, partial(_markdown, kind))
    for found in OLMOCR.finditer(document):
        left, top, width, height = (float(found[group]) for group in range(2, 6))
        if box := _box((left, top, left + width, top + height), found[1]):
            yield _Place(*found.span(), box, partial(_markdown, found[1]))
    yield from _elements(document)


def _elements(document: str) -> Iterator[_Place]:
    """An ``img`` gets the file as its source; another element one in it, its own if it has one."""
    if "data-bbox" not in document:
        return
    tags = list(markup.tags(document))
    for number, tag in enumerate(tags):
        block = None if tag[1] else markup.block_of(tag)
        if block is None or not ({block.kind.lower(), block.tag} & KINDS):
            continue
        box = _box(block.box, block.kind.lower())
        if box is None:
            continue
        after = tags[number + 1] if number + 1 < len(tags) else None
        if block.tag == "img":
            yield _Place(*tag.span(), box, partial(_with_source, tag[0]))
        elif after is not None and after[2].lower() == "img" and not after[1]:
            before = document[tag.start() : after.start()]
            yield _Place(tag.start(), after.end(), box, partial(_with_source, after[0], before))
        else:
            yield _Place(*tag.span(), box, partial(_with_source, "<img>", tag[0]))


def _markdown(alt: str, link: str) -> str:
    return f"![{alt}]({link})"


def _with_source(img: str, *before_and_link: str) -> str:
    """An ``img`` tag with the link, the last argument, as its source; a text before it."""
    *before, link = before_and_link
    name = img[: len("<img")]
    return "".join([*before, f'{name} src="{link}"', _SOURCE.sub("", img[len(name) :])])


def _box(values: tuple[float, ...], label: str) -> Box | None:
    if len(values) != 4:
        return None
    x1, y1, x2, y2 = values
    return Box(x1, y1, x2, y2, label) if x1 < x2 and y1 < y2 else None
