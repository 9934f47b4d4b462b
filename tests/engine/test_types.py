"""Values of requests and specs: what is out of range is refused by name."""

from __future__ import annotations

import re

import pytest
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.types import Sampling, ServerSpec


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


def test_equal_servers_are_equal_specs() -> None:
    spec = ServerSpec("http://localhost:8000/v1/", "Qwen3-VL-8B", "MY_KEY")
    assert spec == ServerSpec("http://localhost:8000/v1", "Qwen3-VL-8B", "MY_KEY")
    assert spec.url == "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"url": "http://me:hunter2@localhost/v1"}, "before an @"),
        ({"url": "hunter2@localhost"}, "before an @"),
        ({"url": "http://localhost/v1?key=hunter2"}, "after a ?"),
        ({"key_variable": "sk-hunter2"}, "environment variable"),
        ({"key_variable": "hunter2 "}, "environment variable"),
        ({"key_variable": "2hunter2"}, "environment variable"),
    ],
)
def test_a_spec_takes_no_secrets_and_repeats_none(spec: dict[str, str], named: str) -> None:
    with pytest.raises(BadOption, match=re.escape(named)) as caught:
        ServerSpec(**{"url": "http://localhost/v1", "model": "Qwen3-VL-8B", **spec})
    assert "hunter2" not in str(caught.value)


def test_an_at_sign_in_a_path_is_no_password() -> None:
    assert ServerSpec("http://localhost/models/a@b", "x").url.endswith("a@b")
