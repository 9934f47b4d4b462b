"""Values of requests: what is out of range is refused by name."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.types import Sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("presence_penalty", 3),
        ("max_thinking_tokens", -1),
        ("temperature", float("nan")),
    ],
)
def test_sampling_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(BadOption, match=name):
        Sampling(**{name: value}).validate()
