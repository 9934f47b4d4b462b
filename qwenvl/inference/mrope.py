"""M-RoPE positions: each picture is a plane of height and width, each video a block of time, height
and width, in which its own sound counts time too, and text goes on behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from ..media.spans import Kind, Span, with_sounds
from ..types import Hearing, Watching

_ROUNDING = 1e-4  # of units: times are sums of fractions


@dataclass(frozen=True)
class PositionRule:
    """How a model counts positions. ``token_ids``: what stands for a picture, a video and a sound
    in its prompts; ``merge_size`` patches a side become one token. ``times``: see ``Watching``;
    ``per_second``: units of time a second. ``pairs_marks``: see ``Hearing``."""

    token_ids: Mapping[Kind, int]
    merge_size: int
    times: Literal["text", "steps", "seconds", "fractions"] = "text"
    per_second: float = 0.0
    pairs_marks: bool = False

    @classmethod
    def of(
        cls,
        model_config: Any,
        token_ids: Mapping[Kind, int],
        merge_size: int,
        watching: Watching | None,
        hearing: Hearing | None = None,
    ) -> PositionRule:
        """Of a family's ``watching`` and ``hearing``, with what a loaded model's config says of
        it."""
        if watching is None:
            return cls(token_ids, merge_size)
        named = reduce(
            lambda at, name: getattr(at, name, None), watching.unit.split("."), model_config
        )
        per_second, pairs = named or watching.per_second, bool(hearing and hearing.pairs_marks)
        return cls(token_ids, merge_size, watching.times, per_second, pairs)

    @property
    def dtype(self) -> torch.dtype:
        """Of positions."""
        return torch.float32 if self.times == "fractions" else torch.long

    def step_times(self, span: Span, first: float | None = None) -> list[float]:
        """How much time has gone by at each step of a video, in positions, from ``first`` on (in
        seconds; None: from its first frame)."""
        first = span.steps[0][0] if first is None else first
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
    its length. The makers' training code, ``rope2d.py`` of ``qwen-vl-finetune``, release 4 and vLLM
    do what the paper says.)
    """
    parts: list[Tensor] = []
    position, start, highest = 0.0, 0, 0.0
    for first, block, extent in _blocks(ids, spans, rule):
        parts.append(_text_positions(position, first - start))
        position += first - start
        parts.append(block + position)
        highest = max(highest, position + float(block.max()) + 1)
        position += extent
        start = first + block.shape[1]
    parts.append(_text_positions(position, len(ids) - start))
    return torch.cat(parts, 1).to(rule.dtype), max(position + len(ids) - start, highest)


def _blocks(
    ids: Sequence[int], spans: Sequence[Span], rule: PositionRule
) -> Iterator[tuple[int, Tensor, float]]:
    """For each run of tokens that do not count as text does where it begins, their positions ``[3,
    N]`` from 0, and that of the token behind them."""
    at = 0
    tokens = list(ids)
    for span, sound in with_sounds(spans):
        if span.kind == "audio":  # its tokens count on as text does
            at = tokens.index(rule.token_ids["audio"], at) + span.tokens
            continue
        shown = _vision_positions(span, rule, first=0.0 if sound else None)
        if sound:
            at = min(tokens.index(rule.token_ids[kind], at) for kind in ("video", "audio"))
            joint = tokens[at : at + span.tokens + sound.tokens]
            yield _joint_block(at, joint, shown, rule)
            at += len(joint)
            continue
        for run in span.runs:
            at = tokens.index(rule.token_ids[span.kind], at)
            yield at, shown, float(shown.max()) + 1
            at += run


def _vision_positions(span: Span, rule: PositionRule, first: float | None) -> Tensor:
    """Of a picture, of a step whose time is told, or of a video, ``[3, N]`` from 0."""
    height, width = (side // rule.merge_size for side in span.grid[1:])
    is_block = span.kind == "video" and not span.is_told
    times = rule.step_times(span, first) if is_block else [0.0]
    block = torch.zeros(3, len(times), height, width)
    block[0] = torch.tensor(times)[:, None, None]
    block[1] = torch.arange(height)[:, None]
    block[2] = torch.arange(width)
    return block.flatten(1)


def _joint_block(
    at: int, tokens: Sequence[int], shown: Tensor, rule: PositionRule
) -> tuple[int, Tensor, float]:
    """As ``_blocks``, of a video with its sound, whose ``tokens`` begin at ``at``. Text goes on
    behind the last of them, as in the makers' code, be the frames higher than that or not."""
    is_heard = torch.tensor(tokens) == rule.token_ids["audio"]
    block = torch.zeros(3, len(tokens))
    block[:, is_heard] = torch.arange(int(is_heard.sum())).float()
    block[:, ~is_heard] = shown
    end = float(block[:, -1].max()) + 1
    if not rule.pairs_marks:
        return at, block, end
    marks = torch.zeros(3, 2)
    return at - 2, torch.cat([marks, block + 1, marks + end + 1], 1), end + 2


def _text_positions(position: float, length: int) -> Tensor:
    return (torch.arange(length) + position).expand(3, -1)
