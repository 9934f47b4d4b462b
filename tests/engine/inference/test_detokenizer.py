"""Detokenizer: streamed pieces of text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.inference.detokenizer import Detokenizer


@given(st.text(max_size=60))
def test_pieces_add_up_to_the_text_and_hold_no_half_characters(text: str) -> None:
    data = list(text.encode())
    detokenizer = Detokenizer(lambda ids: bytes(ids).decode(errors="replace"))
    pieces = [detokenizer.append(data[:end]) for end in range(1, len(data) + 1)]
    assert "".join(pieces) == text or "\ufffd" in text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text
