"""M-RoPE positions: each image is a plane of height and width, text goes on behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..media.spans import Span


def rope_positions(
    ids: Sequence[int], image_token_id: int, spans: Sequence[Span], merge_size: int
) -> tuple[Tensor, int]:
    """Positions ``[3, L]`` (time, height, width) of the tokens ``ids``, and that of the next one.

    ``spans``: of the prompt's images, in order; ``merge_size`` patches a side become one token.
    Multimodal rotary positions as in Qwen2-VL (Wang et al. 2024, section 2.1), the same in all
    later families for still images: a text token has the same number on all three axes, one more
    than the largest before it; an image's tokens keep one time, and count rows and columns from
    there.
    """
    parts: list[Tensor] = []
    position, start = 0, 0
    for span in spans:
        _, rows, columns = span.grid
        first = next(index for index in range(start, len(ids)) if ids[index] == image_token_id)
        parts.append(_text_positions(position, first - start))
        position += first - start
        height, width = rows // merge_size, columns // merge_size
        plane = torch.zeros(3, height, width, dtype=torch.long)
        plane[1] = torch.arange(height)[:, None]
        plane[2] = torch.arange(width)
        parts.append(plane.flatten(1) + position)
        position += max(height, width)
        start = first + span.tokens
    parts.append(_text_positions(position, len(ids) - start))
    return torch.cat(parts, 1), position + len(ids) - start


def has_axes(config: Any) -> bool:
    """Whether a model with transformers' ``config`` takes positions on three axes. One that reads
    text only takes the first of them, unless its language model is that of one that sees."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    return hasattr(config, "vision_config") or "mrope_section" in rope


def _text_positions(position: int, length: int) -> Tensor:
    return torch.arange(position, position + length).expand(3, -1)
