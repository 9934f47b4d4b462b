"""Near-duplicate pictures, by a perceptual hash: the difference hash (dHash).

Source: Neal Krawetz, "Kind of Like That", The Hacker Factor Blog, 21 January 2013: the picture in
grey, shrunk to 9 by 8; each bit says whether a pixel is brighter than its right neighbour. Copies
of a picture that differ in size or compression mostly differ in 0 to 4 of its 64 bits.

The hash knows no colours, which captions name: pictures are near only where their colours are, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

BITS = 64

CELLS = 4
"""Of each side of a picture, of which the mean colours are compared."""

COLOUR_STEP = 16
"""Levels of 256 by which a mean colour may differ in each of its components. Copies in another
size, or compressed strongly, differ in less than 8."""


def dhash(picture: Tensor) -> int:
    """64 bits of a picture, uint8 ``[3, H, W]``. Pictures of one colour have none set."""
    from torch.nn.functional import interpolate

    red, green, blue = picture.float()
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    small = interpolate(grey[None, None], size=(8, 9), mode="area")[0, 0]
    # Steps of less than a level are noise of the arithmetic.
    rises = (small[:, 1:] - small[:, :-1] > 0.5).flatten().tolist()
    return sum(1 << at for at, bit in enumerate(rises) if bit)


def colours(picture: Tensor) -> bytes:
    """Mean colours of ``CELLS`` by ``CELLS`` parts of a picture, uint8 ``[3, H, W]``: a byte for
    each component."""
    from torch.nn.functional import interpolate

    cells = interpolate(picture[None].float(), size=(CELLS, CELLS), mode="area")
    return bytes(cells.round().byte().flatten().tolist())


def are_close(one: bytes, other: bytes) -> bool:
    """Whether pictures have nearly the same ``colours``."""
    return all(abs(a - b) <= COLOUR_STEP for a, b in zip(one, other, strict=True))


class Near(Generic[T]):
    """What was put in by 64-bit hashes, found by one that differs in at most ``distance`` bits.

    A hash is cut into ``distance + 1`` parts; of two that differ in no more bits, one part at least
    is equal, so that only those with an equal part are compared."""

    def __init__(self, distance: int):
        self._distance = distance
        count = distance + 1
        ends = [BITS * at // count for at in range(count + 1)]
        self._parts = list(itertools.pairwise(ends))
        self._found: list[dict[int, list[tuple[int, T]]]] = [{} for _ in self._parts]

    def find(self, bits: int, fits: Callable[[T], bool] = lambda value: True) -> T | None:
        """The nearest that ``fits``; of equally near ones the first."""
        best: tuple[int, T] | None = None
        for table, part in zip(self._found, self._cut(bits), strict=True):
            for other, value in table.get(part, ()):
                apart = (bits ^ other).bit_count()
                is_nearer = apart <= self._distance and (best is None or apart < best[0])
                if is_nearer and fits(value):
                    best = apart, value
        return best[1] if best else None

    def put(self, bits: int, value: T) -> None:
        for table, part in zip(self._found, self._cut(bits), strict=True):
            table.setdefault(part, []).append((bits, value))

    def _cut(self, bits: int) -> list[int]:
        return [bits >> start & ((1 << end - start) - 1) for start, end in self._parts]
