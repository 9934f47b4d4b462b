"""Interleaving of a video with its own sound: in which order their tokens stand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

from ..types import Hearing
from .spans import Kind, Span

_ROUNDING = 1e-4  # of tokens: times are sums of fractions


def interleaved(shown: Span, heard: Span, hearing: Hearing) -> Iterator[tuple[Kind, int]]:
    """Stretches of tokens of the video ``shown`` and of its sound ``heard``: kind and length, which
    may be 0, in the order of the official processors (``use_audio_in_video``)."""
    times = [start * hearing.per_second for start, _ in shown.steps]
    step = shown.tokens // len(times)
    if hearing.interleaved:
        yield from _by_chunks(times, step, heard.tokens, hearing)
    else:
        yield from _by_steps(times, step, heard.tokens)


def _by_chunks(
    times: Sequence[float], step: int, sounds: int, hearing: Hearing
) -> Iterator[tuple[Kind, int]]:
    """Some seconds of the video before the same seconds of its sound: Qwen2.5-Omni."""
    chunk = int(hearing.per_second * hearing.interleaved)
    videos = _chunks([time for time in times for _ in range(step)], chunk)
    for seen, listened in zip_longest(videos, _chunks(range(sounds), chunk), fillvalue=0):
        yield "video", seen
        yield "audio", listened


def _chunks(times: Sequence[float], length: int) -> list[int]:
    """How many of the tokens at ``times`` are in each chunk. As the official code counts: a chunk
    that is passed over whole ends behind the first token that comes later."""
    ends = [0]
    for number, time in enumerate(times):
        if time + _ROUNDING >= len(ends) * length:
            ends.append(number)
    ends.append(len(times))
    return [end - start for start, end in pairwise(ends)]


def _by_steps(times: Sequence[float], step: int, sounds: int) -> Iterator[tuple[Kind, int]]:
    """Each step before what is heard from then on: Qwen3-Omni."""
    placed = 0
    for time in times:
        before = min(sounds, max(placed, math.ceil(time - _ROUNDING)))
        yield "audio", before - placed
        yield "video", step
        placed = before
    yield "audio", sounds - placed
