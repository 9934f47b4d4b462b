"""Found items of several grounding replies: moved to the picture's pixels, and joined to one
result."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..tiles import Tile, to_picture
from ..types import Box, Cuboid, Point, Result, Token


@dataclass(frozen=True)
class Found:
    """One box or point, in the picture or in space.

    ``entry`` and ``data``: what it is in the result's ``text`` and ``data``. ``tile``: the part of
    the picture that the model was shown, in the picture's pixels; ``query``: what was looked for.
    """

    shape: Box | Point | Cuboid
    entry: Mapping[str, Any]
    data: Mapping[str, Any]
    tile: Tile
    query: str = ""

    def tagged(self) -> Found:
        """With the query, last in both of its forms."""
        named = {"query": self.query}
        return dataclasses.replace(self, entry={**self.entry, **named}, data={**self.data, **named})


def found_in(result: Result, tile: Tile, query: str = "") -> list[Found]:
    """What a reply about ``tile`` holds, in pixels of the picture."""
    if result.cuboids:  # these are of the whole picture
        pairs = zip(result.cuboids, json.loads(result.text), result.data, strict=True)
        return [Found(shape, entry, data, tile, query) for shape, entry, data in pairs]
    shapes: Sequence[Box | Point] = result.boxes or result.points
    entries = json.loads(result.text) if shapes else []
    return [
        Found(to_picture(shape, tile), _moved(entry, tile), _moved(data, tile), tile, query)
        for shape, entry, data in zip(shapes, entries, result.data if shapes else [], strict=True)
    ]


def _moved(entry: Mapping[str, Any], tile: Tile) -> dict[str, Any]:
    return {
        name: [number + tile[index % 2] for index, number in enumerate(value)]
        if name in ("bbox_2d", "point_2d")
        else value
        for name, value in entry.items()
    }


@dataclass(frozen=True)
class CountedResult(Result):
    """A result of several requests. ``counts``: how many were found, by query; without those that
    were not answered."""

    counts: Mapping[str, int] = field(default_factory=dict)


def joined(
    found: Mapping[str, Sequence[Found]],
    queries: int,
    replies: Sequence[Result],
    notes: Sequence[str] = (),
) -> Result:
    """One result of what was ``found``, by query, with what else there is to tell of the
    ``replies`` behind it. Where there were several ``queries``, each item has its own.

    Where all of these failed, the first of them; where some did, a note says so.
    """
    failed = [reply for reply in replies if reply.error]
    if failed and len(failed) == len(replies):
        return failed[0]
    if failed:
        notes = (
            *notes,
            f"{len(failed)} of {len(replies)} replies about this picture are missing or could not "
            f"be read. {failed[0].error}",
        )
    reasons = [reply.finish_reason for reply in replies if not reply.error]
    items = [item if queries == 1 else item.tagged() for own in found.values() for item in own]
    shapes = [item.shape for item in items]
    return CountedResult(
        json.dumps([item.entry for item in items], ensure_ascii=False),
        boxes=tuple(filter(None, map(_box, shapes))),
        cuboids=tuple(shape for shape in shapes if isinstance(shape, Cuboid)),
        points=tuple(shape for shape in shapes if isinstance(shape, Point)),
        data=[dict(item.data) for item in items],
        thinking="\n\n".join(filter(None, (reply.thinking for reply in replies))),
        finish_reason=next((reason for reason in reasons if reason != "stop"), "stop"),
        notes=tuple(dict.fromkeys([*(note for reply in replies for note in reply.notes), *notes])),
        reply="\n".join(reply.reply for reply in replies),
        tokens=tuple(_tokens(replies)),
        counts={query: len(own) for query, own in found.items()},
    )


def _box(shape: Box | Point | Cuboid) -> Box | None:
    if isinstance(shape, Cuboid):
        return shape.box
    return shape if isinstance(shape, Box) else None


def _tokens(replies: Sequence[Result]) -> Iterator[Token]:
    """Those of all replies, at their places in the joined one."""
    offset = 0
    for reply in replies:
        for token in reply.tokens:
            yield dataclasses.replace(token, start=token.start + offset, end=token.end + offset)
        offset += len(reply.reply) + 1
