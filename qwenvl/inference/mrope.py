"""Where tokens stand for the rotary embedding: pictures are planes, text goes on behind them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rope_positions(
    ids: Sequence[int], image_token_id: int, grids: Sequence[tuple[int, int, int]], merge: int
) -> tuple[Tensor, int]:
    """Positions ``[3, L]`` (time, height, width) of the tokens ``ids``, and that of the next one.

    ``grids``: time, height and width in patches of each picture of the prompt, in order; ``merge``
    patches a side become one token. Multimodal rotary positions as in Qwen2-VL (Wang et al. 2024,
    section 2.1), alike in all later families for still pictures: a text token has the same number
    on all three axes, one more than the largest before it; a picture's tokens keep one time, and
    count rows and columns from there.
    """
    parts: list[Tensor] = []
    position, start = 0, 0
    for _, rows, columns in grids:
        first = next(place for place in range(start, len(ids)) if ids[place] == image_token_id)
        parts.append(_text(position, first - start))
        position += first - start
        height, width = rows // merge, columns // merge
        plane = torch.zeros(3, height, width, dtype=torch.long)
        plane[1] = torch.arange(height)[:, None]
        plane[2] = torch.arange(width)
        parts.append(plane.flatten(1) + position)
        position += max(height, width)
        start = first + height * width
    parts.append(_text(position, len(ids) - start))
    return torch.cat(parts, 1), position + len(ids) - start


def _text(position: int, length: int) -> Tensor:
    return torch.arange(position, position + length).expand(3, -1)
