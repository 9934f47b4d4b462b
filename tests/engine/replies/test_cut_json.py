"""Cut JSON: what is whole stays, what is not goes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.replies.cut_json import whole, whole_part

CUT = [
    ('{"a": 1, "b": [{"x": 1, "y": 2}, {"x": 3, ', {"a": 1, "b": [{"x": 1, "y": 2}]}),
    ('{"a": {"b": "whole", "c": "cu', {"a": {"b": "whole"}}),
    ('{"a": 84', {}),
    ('{"a": 84, "b"', {"a": 84}),
    ('{"a": 84, "b":', {"a": 84}),
    ('{"a": "x"', {"a": "x"}),
    ("[1, 2, 3", [1, 2]),
    ("[1, 2, -", [1, 2]),
    ("[true, fal", [True]),
    ("[[1, 2], [3, ", [[1, 2]]),
    ('["a\\', []),
    ('"a strin', None),
    ("", None),
    ("  [", []),
]


@pytest.mark.parametrize(("text", "kept"), CUT)
def test_what_is_whole_is_kept(text: str, kept: Any) -> None:
    assert whole_part(text) == kept


@pytest.mark.parametrize("text", ["NaN", '{"a": -Infinity}', "[1e999]", "[1, ", "", "text"])
def test_what_is_no_whole_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        whole(text)


@pytest.mark.parametrize(
    "text", ["[1 2", "{1: 2", "none of it", '{"a" 1', "[] []", "[1, x", "NaN", "[Infinity, "]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        whole_part(text)


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def begins(part: Any, whole: Any) -> bool:
    """Whether ``part`` is ``whole`` with nothing but the end of it missing."""
    if isinstance(part, list) and isinstance(whole, list):
        return part == whole[: len(part)]
    if isinstance(part, dict) and isinstance(whole, dict):
        keys = list(whole)[: len(part)]
        if list(part) != keys:
            return False
        return all(part[key] == whole[key] for key in keys[:-1]) and (
            not keys or begins(part[keys[-1]], whole[keys[-1]])
        )
    return part == whole


@given(VALUES, st.data())
def test_any_cut_gives_a_beginning_of_the_value(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    assert whole_part(text + " ") == whole(text) == value
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    part = whole_part(cut)
    assert part is None or begins(part, value)
