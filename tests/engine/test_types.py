"""Values of requests and specs: what is out of range is refused by name."""

from __future__ import annotations

import re
from typing import Any

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
    spec = ServerSpec("http://localhost:8000/v1/, https://other/v1", "Qwen3-VL-8B")  # type: ignore[arg-type]
    assert spec == ServerSpec(("http://localhost:8000/v1", "https://other/v1//"), "Qwen3-VL-8B")
    assert spec.urls == ("http://localhost:8000/v1", "https://other/v1")


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"urls": "http://me:hunter2@localhost/v1"}, "before an @"),
        ({"urls": "hunter2@localhost"}, "before an @"),
        ({"urls": "http://localhost/v1?key=hunter2"}, "after a ?"),
        ({"urls": "http://localhost/v1#hunter2"}, "#"),
        ({"urls": "http://fine/v1 hunter2"}, "must begin with http"),
        ({"urls": "file:///hunter2"}, "must begin with http"),
        ({"urls": " , "}, "no server address"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0}, "time limit"),
        ({"timeout": float("nan")}, "time limit"),
    ],
)
def test_a_spec_takes_no_secrets_and_repeats_none(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=re.escape(named)) as caught:
        ServerSpec(**{"urls": "http://localhost/v1", "model": "Qwen3-VL-8B", **spec})
    assert "hunter2" not in str(caught.value)


def test_an_at_sign_in_a_path_is_no_password() -> None:
    assert ServerSpec(("http://localhost/models/a@b",), "x").urls[0].endswith("a@b")
