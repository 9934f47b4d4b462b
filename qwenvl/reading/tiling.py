"""Tile reading: OCR of large pages in overlapping tiles, as lines of the whole page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import coordinates
from ..backends.base import Backend
from ..errors import BadOption
from ..media.pixel_bounds import PixelBounds
from ..query import Query, Steps
from ..replies import scores as scoring
from ..tiles import Tile, tiles, to_picture
from ..types import Result, Task
from .merging import Line, line, merged
from .order import reading_order

OFF, AUTO = "off", "auto"

SIDE = 1288
"""Side of a tile in pixels by default: as large as pages are read best."""

LEAST_SIDE, MOST_SIDE = 256, 8192

OVERLAP = 0.15
"""Share of a tile's side that it has in common with the next: more than the height of a line."""

OUTPUTS = ("plain", "lines")
"""Output formats of OCR that can be put together from tiles: those without the page's structure."""

_AUTO_FROM = (
    2  # times a tile's side: shrunk to it, such a page's letters would have half their size
)


@dataclass(frozen=True, eq=False)
class TileReading:
    """How pages are read in tiles of ``side`` pixels: those whose longer side is over ``largest``;
    smaller ones in one request as asked. ``lines``: the task that each tile is asked. ``bounds``:
    pixel bounds of tiles, which are shown as they are."""

    side: int
    largest: int
    lines: Task
    bounds: PixelBounds = (None, None)

    def steps(self, backend: Backend, query: Query) -> Steps:
        """The ``Method`` of a query whose task is one of ``OUTPUTS``."""
        height, width = query.size
        if max(height, width) <= self.largest:
            (result,) = yield [dataclasses.replace(query, method=None)]
            return result
        places = tiles((height, width), self.side, round(OVERLAP * self.side))
        replies = yield [self._query(query, place) for place in places]
        found = [
            line(to_picture(box, place), number, place, (height, width), data)
            for number, (place, reply) in enumerate(zip(places, replies, strict=True))
            for box, data in zip(reply.boxes, reply.data or (), strict=False)
            if not reply.error
        ]
        return _result(_in_reading_order(merged(found), places), replies)

    def _query(self, query: Query, place: Tile) -> Query:
        x1, y1, x2, y2 = place
        min_pixels, max_pixels = self.bounds
        sampling = query.sampling
        if sampling and sampling.max_new_tokens == query.task.max_new_tokens:  # nobody chose it
            sampling = dataclasses.replace(sampling, max_new_tokens=self.lines.max_new_tokens)
        return dataclasses.replace(
            query,
            task=self.lines,
            picture=query.picture[:, y1:y2, x1:x2],  # type: ignore[index]
            sampling=sampling,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            method=None,
        )


def tile_reading(
    choice: str | int,
    output: str,
    lines: Callable[[], Task],
    bounds: PixelBounds = (None, None),
) -> TileReading | None:
    """How pages are to be read: ``off`` (None), ``auto``, in tiles where one request would show
    the page at less than half its size, or a tile's side in pixels. ``output``: see ``tasks.ocr``.
    ``lines()`` gives the task that each tile is asked. Raises ``BadOption``."""
    text = str(choice).strip().lower()
    if text in (OFF, ""):
        return None
    if output not in OUTPUTS:
        raise BadOption(
            f"Tiles are put together line by line, which {output} has not. Choose the output plain "
            "or lines, or read pages whole."
        )
    if text == AUTO:
        return TileReading(SIDE, _AUTO_FROM * SIDE, lines(), bounds)
    if not text.isascii() or not text.isdigit() or not LEAST_SIDE <= int(text) <= MOST_SIDE:
        raise BadOption(
            f"tiles is {choice!r}; use off, auto, or a tile's side of {LEAST_SIDE} to {MOST_SIDE} "
            "pixels."
        )
    return TileReading(int(text), int(text), lines(), bounds)


def _in_reading_order(lines: Sequence[Line], places: Sequence[Tile]) -> Sequence[Line]:
    """One column of tiles keeps the model's own order; several have their columns mixed up."""
    if len({place[0] for place in places}) == 1:
        return lines
    return [lines[index] for index in reading_order([found.box for found in lines])]


def _result(lines: Sequence[Line], replies: Sequence[Result]) -> Result:
    failed = [reply for reply in replies if reply.error]
    if len(failed) == len(replies):
        return failed[0]
    notes = [note for reply in replies for note in reply.notes]
    if failed:
        notes.append(
            f"{len(failed)} of {len(replies)} tiles of this page are missing or could not be read. "
            f"{failed[0].error}"
        )
    unplaced = [_without_place(reply) for reply in replies]
    if count := sum(map(len, unplaced)):
        notes.append(
            f"Lines that came without a place: {count}. They stand behind the others of their "
            "tile; what two tiles saw may stand there twice."
        )
    reasons = [reply.finish_reason for reply in replies if not reply.error]
    return Result(
        "\n".join(_texts(lines, unplaced)),
        boxes=tuple(found.box for found in lines),
        data=[
            {
                **found.data,
                "bbox_2d": list(coordinates.integer_box(found.box)),
                "text": found.text,
                **scoring.entry(found.box.score),
            }
            for found in lines
        ],
        thinking="\n\n".join(filter(None, (reply.thinking for reply in replies))),
        finish_reason=next((reason for reason in reasons if reason != "stop"), "stop"),
        notes=tuple(dict.fromkeys(notes)),
        reply="\n".join(reply.reply for reply in replies),
    )


def _without_place(reply: Result) -> list[str]:
    """The lines of a tile's text that have no box."""
    if reply.error or not reply.text:
        return []
    placed = iter([row for box in reply.boxes for row in box.label.split("\n")])
    expected = next(placed, None)
    found = []
    for row in reply.text.split("\n"):
        if row == expected:
            expected = next(placed, None)
        else:
            found.append(row)
    return found


def _texts(lines: Sequence[Line], unplaced: Sequence[Sequence[str]]) -> list[str]:
    """The text of ``lines``, with the ``unplaced`` ones of each tile behind the last that it saw;
    where it has none, behind those of the tile before."""
    last = {tile: index for index, found in enumerate(lines) for tile in found.tiles}
    behind: dict[int, list[str]] = {}
    at = -1
    for tile, rows in enumerate(unplaced):
        at = last.get(tile, at)
        behind.setdefault(at, []).extend(rows)
    placed = [
        text for index, one in enumerate(lines) for text in (one.text, *behind.get(index, ()))
    ]
    return [*behind.get(-1, ()), *placed]
