"""Output of the command line: results on stdout as text or JSON lines, messages on stderr."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ..notes import NotesOfRun
from ..types import Result
from ..unicode import well_formed

_notes = NotesOfRun()


def begin() -> None:
    """Before a command. The streams are UTF-8 whatever the console's encoding; text that could not
    be printed is made well-formed."""
    _notes.clear()
    codecs.register_error("well_formed", _well_formed)
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "well_formed"),
        (sys.stderr, "well_formed"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _well_formed(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return well_formed(error.object[error.start : error.end]).encode(), error.end


def discard_pipes() -> None:
    """Points closed pipes at the null device: Python would try to flush them again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_message(text: str) -> None:
    """To stderr, where there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr)


def print_error(error: str, name: str = "", *paths: str) -> None:
    """To stderr, why there is no answer about the input ``name``, which is said unless ``error``
    begins with that: its name, or one of its ``paths``."""
    is_named = not name or error.startswith(paths or (name,))
    print_message(f"error: {error}" if is_named else f"error: {name}: {error}")


def print_notes(notes: Iterable[str], about: str = "") -> None:
    """Notes beside an answer, ``about`` which input, as messages; one on the whole run once."""
    for note in _notes.new(notes):
        print_message(f"note: {about}: {note}" if about else f"note: {note}")


def print_result(text: str) -> None:
    """To stdout at once and in one piece, so that a stop leaves whole lines."""
    print(f"{text}\n", end="", flush=True)


def print_piece(text: str) -> None:
    """To stdout at once, a part of a line."""
    print(text, end="", flush=True)


def print_json(row: Mapping[str, Any]) -> None:
    print_result(json.dumps(row, ensure_ascii=False, allow_nan=False))


def as_row(result: Result, more: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--json`` tells of an answer about images, ``more`` besides."""
    row = {
        **as_json(result),
        "thinking": result.thinking,
        "finish_reason": result.finish_reason,
        **more,
    }
    return {**row, "error": result.error} if result.error else row


def as_json(result: Result) -> dict[str, Any]:
    """``boxes`` and ``points`` in pixels of the original picture, ``text``, ``data`` and ``notes``
    (see ``types.Result``). ``score`` is null unless one was computed. Where log-probabilities were
    asked for: ``reply``, and ``tokens`` as ``[start, end, logprob]`` in its characters."""
    tokens = [[token.start, token.end, token.logprob] for token in result.tokens]
    return {
        "boxes": [
            {
                "x": box.x1,
                "y": box.y1,
                "width": box.x2 - box.x1,
                "height": box.y2 - box.y1,
                "label": box.label,
                "score": box.score,
            }
            for box in result.boxes
        ],
        "points": [
            {"x": point.x, "y": point.y, "label": point.label, "score": point.score}
            for point in result.points
        ],
        "text": result.text,
        "data": result.data,
        "notes": list(result.notes),
        **({"reply": result.reply, "tokens": tokens} if tokens else {}),
    }
