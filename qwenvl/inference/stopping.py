"""Stopping: whether a row is finished, by end tokens, token limits and repetition."""

from __future__ import annotations

from .repetition import loop_start
from .sequence import Row

_LOOP_CHECK_INTERVAL = 16  # tokens


def append_token(row: Row, token: int, logprob: float | None = None) -> None:
    """Appends a generated ``token`` to ``row``, and sets its ``finish_reason`` where that finishes
    it. An end token is not appended."""
    if token in row.eos_ids:
        row.finish_reason, row.end_ids = "stop", (token,)
        return
    row.output_ids.append(token)
    row.output_logprobs.append(logprob)
    if row.thinking:
        row.thought_length += 1
        if _ends_with(row, row.think_end_ids):
            row.thinking = False
    elif row.remaining <= 0:
        row.finish_reason = "length"
    if row.finish_reason is None and len(row.output_ids) % _LOOP_CHECK_INTERVAL == 0:
        _check_repetition(row)


def _ends_with(row: Row, tail: tuple[int, ...]) -> bool:
    return bool(tail) and tuple(row.output_ids[-len(tail) :]) == tail


def _check_repetition(row: Row) -> None:
    """Cuts an answer that is in a loop, so that one turn of it stays."""
    cut = loop_start(row.output_ids, row.decode)
    if cut is None:
        return
    if row.thinking:
        # The thought is closed, not the row: the answer may still be sound.
        row.thought_repeats = True
    else:
        end = max(cut, row.thought_length)
        del row.output_ids[end:], row.output_logprobs[end:]
        row.finish_reason = "repetition"
