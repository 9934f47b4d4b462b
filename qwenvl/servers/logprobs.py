"""Log-probabilities of servers: those of an answer's tokens, at their places in its text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..types import Token

_SPECIAL = re.compile(rb"<\|[^|<>]*\|>")

UNKNOWN_ID = -1
"""The id of a token of which a server tells only text and log-probability."""


def place_tokens(entries: Sequence[Mapping[str, Any]], text: str) -> tuple[Token, ...]:
    """The tokens of ``text``, an answer, among ``entries``, all that were generated, in the
    protocol's form: ``token``, its ``bytes`` where it is part of a character, and ``logprob``.
    Thoughts before the answer and special tokens behind it are left out; none where the entries do
    not make up the text."""
    answer = text.encode("utf-8", "surrogatepass")
    pieces = [_bytes(entry) for entry in entries]
    # Servers leave special tokens out of the text, but not always out of these.
    pieces = [b"" if _SPECIAL.fullmatch(p) and p not in answer else p for p in pieces]
    whole = b"".join(pieces)
    offset = whole.rfind(answer) if answer else -1
    if offset < 0:
        return ()
    # Byte offsets in the answer to characters; a token that is part of one has the whole of it.
    starts = _character_starts(text)
    found, at = [], -offset
    for entry, piece in zip(entries, pieces, strict=True):
        begins, ends = max(at, 0), min(at + len(piece), len(answer))
        if begins < ends:
            place = starts[begins], starts[ends - 1] + 1
            found.append(Token(UNKNOWN_ID, *place, log_probability(entry.get("logprob"))))
        at += len(piece)
    return tuple(found)


def log_probability(value: Any) -> float | None:
    """As a server tells it; None where that is no finite number."""
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _bytes(entry: Mapping[str, Any]) -> bytes:
    given = entry.get("bytes")
    if isinstance(given, list) and all(isinstance(b, int) and 0 <= b < 256 for b in given):
        return bytes(given)
    token = entry.get("token")
    return token.encode("utf-8", "surrogatepass") if isinstance(token, str) else b""


def _character_starts(text: str) -> list[int]:
    """For each byte of ``text`` in UTF-8, the index of its character."""
    return [
        index
        for index, character in enumerate(text)
        for _ in character.encode("utf-8", "surrogatepass")
    ]
