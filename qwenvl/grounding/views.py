"""Views of a picture: its parts that the model is shown, each by itself and enlarged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..backends.base import Backend
from ..errors import BadOption
from ..query import Query
from ..tiles import Tile, tiles
from ..types import Size
from .regions import Region

OVERLAP = 0.25
"""Share of a tile's side that it has in common with the next."""

MIN_TILE = 64
MAX_VIEWS = 400
"""Of one picture; more is a mistake rather than a wish."""

LEAST_TOKENS = 1024
"""Image tokens that the model is to see of a part of a picture at least: parts are enlarged, which
is what makes small things findable. As many as the makers advise for grounding."""


def views(size: Size, regions: Sequence[Region] | None, tile: int, only_tiles: bool) -> list[Tile]:
    """The parts of a picture of ``size`` that are shown, each once: its ``regions`` (None: all of
    it) where they lie in it, and the tiles of each with sides of ``tile`` pixels (0: none).
    ``only_tiles``: where there are tiles, the region as a whole is left out. Raises ``BadOption``
    for too many."""
    height, width = size
    if regions is None:
        areas = [(0, 0, width, height)]
    else:
        shown = (region.shown(size) for region in regions)
        areas = [area for area in shown if area[0] < area[2] and area[1] < area[3]]
    found = list(
        dict.fromkeys(view for area in areas for view in _views_of(area, tile, only_tiles))
    )
    if len(found) > MAX_VIEWS:
        raise BadOption(
            f"A picture of {width}x{height} would be shown in {len(found)} parts; at most "
            f"{MAX_VIEWS} are asked about. Use larger tiles than {tile} px, or fewer regions."
        )
    return found


def _views_of(area: Tile, tile: int, only_tiles: bool) -> list[Tile]:
    if not tile:
        return [area]
    x, y, right, bottom = area
    cut = tiles((bottom - y, right - x), tile, round(tile * OVERLAP))
    parts = [(x + x1, y + y1, x + x2, y + y2) for x1, y1, x2, y2 in cut]
    return parts if only_tiles else [area, *parts]


def query_about(view: Tile, query: Query, backend: Backend) -> Query:
    """A query, in one request, about a part of its picture alone, which the model sees enlarged."""
    picture = query.picture
    x1, y1, x2, y2 = view
    if (y2 - y1, x2 - x1) == tuple(picture.shape[-2:]):  # type: ignore[union-attr]
        return dataclasses.replace(query, method=None)
    most = query.max_pixels or backend.max_pixels
    least = LEAST_TOKENS * backend.family.patch_factor**2
    least = max(query.min_pixels or 0, min(least, most) if most else least)
    part = picture[:, y1:y2, x1:x2]  # type: ignore[index]
    return dataclasses.replace(query, picture=part, min_pixels=least, method=None)
