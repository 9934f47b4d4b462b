"""M-RoPE positions: each picture is a plane of height and width, each video a block of time, height
and width, and text goes on behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from ..media.spans import Kind, Span
from ..types import Watching

_ROUNDING = 1e-4  # of units: times are sums of fractions


@dataclass(frozen=True)
class PositionRule:
    """How a model counts positions. ``token_ids``: what stands for a picture, a video and a sound
    in its prompts; ``merge_size`` patches a side become one token. ``times``: see ``Watching``;
    ``per_second``: units of time a second."""

    token_ids: Mapping[Kind, int]
    merge_size: int
    times: Literal["text", "steps", "seconds", "fractions"] = "text"
    per_second: float = 0.0

    @classmethod
    def of(
        cls,
        model_config: Any,
        token_ids: Mapping[Kind, int],
        merge_size: int,
        watching: Watching | None,
    ) -> PositionRule:
        """Of a family's ``watching``, with what a loaded model's config says of it."""
        if watching is None:
            return cls(token_ids, merge_size)
        named = reduce(
            lambda at, name: getattr(at, name, None), watching.unit.split("."), model_config
        )
        return cls(token_ids, merge_size, watching.times, named or watching.per_second)

    @property
    def dtype(self) -> torch.dtype:
        """Of positions."""
        return torch.float32 if self.times == "fractions" else torch.long

    def step_times(self, span: Span) -> list[float]:
        """How much time has gone by at each step of a video, in positions."""
        first = span.steps[0][0]
        if self.times == "steps":
            return [float(step) for step in range(len(span.steps))]
        passed = [(start - first) * self.per_second for start, _ in span.steps]
        return passed if self.times == "fractions" else [int(at + _ROUNDING) for at in passed]


def has_axes(config: Any) -> bool:
    """Whether a model with transformers' ``config`` takes positions on three axes. One that reads
    text only takes the first of them, unless its language model is that of one that sees."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    return hasattr(config, "vision_config") or "mrope_section" in rope


def rope_positions(
    ids: Sequence[int], spans: Sequence[Span], rule: PositionRule
) -> tuple[Tensor, float]:
    """Positions ``[3, L]`` (time, height, width) of the tokens ``ids``, and that of the next one.

    ``spans``: of the prompt's media, in order. Multimodal rotary positions as in Qwen2-VL (Wang et
    al. 2024, section 2.1): a text token has the same number on all three axes, one more than the
    largest before it; a picture's tokens keep one time, and count rows and columns from there; a
    video's also count time, in the way of its family. Whole numbers, but for a video in
    ``fractions``. (transformers 5 lets text behind a video go on at its height or width, whatever
    its length; the models were trained, and are served by vLLM, with what the paper says.)
    """
    parts: list[Tensor] = []
    position, start = 0.0, 0
    for first, block in _blocks(ids, spans, rule):
        parts.append(_text_positions(position, first - start))
        position += first - start
        parts.append(block.flatten(1) + position)
        position += float(block.max()) + 1
        start = first + block[0].numel()
    parts.append(_text_positions(position, len(ids) - start))
    return torch.cat(parts, 1).to(rule.dtype), position + len(ids) - start


def _blocks(
    ids: Sequence[int], spans: Sequence[Span], rule: PositionRule
) -> Iterator[tuple[int, Tensor]]:
    """For each run of a medium's tokens where it begins, and its positions ``[3, time, height,
    width]`` from 0."""
    at = 0
    tokens = list(ids)
    for span in spans:
        if span.kind == "audio":  # its tokens count on as text does
            continue
        height, width = (side // rule.merge_size for side in span.grid[1:])
        is_block = span.kind == "video" and not span.is_told
        times = rule.step_times(span) if is_block else [0.0]
        block = torch.zeros(3, len(times), height, width)
        block[0] = torch.tensor(times)[:, None, None]
        block[1] = torch.arange(height)[:, None]
        block[2] = torch.arange(width)
        for run in span.runs:
            at = tokens.index(rule.token_ids[span.kind], at)
            yield at, block
            at += run


def _text_positions(position: float, length: int) -> Tensor:
    return (torch.arange(length) + position).expand(3, -1)
