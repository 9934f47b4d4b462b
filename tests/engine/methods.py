"""Queries, and methods that answer one in several requests."""

from __future__ import annotations

from typing import Any

import torch
from qwen_vl_suite.qwenvl.backends.base import Backend
from qwen_vl_suite.qwenvl.query import Query, Steps
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import Result

PICTURE = torch.zeros(3, 64, 64, dtype=torch.uint8)


def asked(prompt: str, **settings: Any) -> Query:
    return Query(describe("short", prompt), PICTURE, **settings)


def twice_then_once(backend: Backend, query: Query) -> Steps:
    first = yield [asked("a"), asked("b")]
    (last,) = yield [asked("c")]
    return Result(" ".join(result.text for result in [*first, last]))


def at_once(backend: Backend, query: Query) -> Steps:
    return Result("nothing to ask")
    yield []
