"""Footages asked about, for tests of watching."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadVideo
from qwen_vl_suite.qwenvl.families import DEFAULT
from qwen_vl_suite.qwenvl.query import Query
from qwen_vl_suite.qwenvl.types import Family
from qwen_vl_suite.qwenvl.watching import Footage, Viewed, Viewing, Wish


def watched(
    replies: object,
    wish: Wish,
    footages: Sequence[Footage | BadVideo],
    family: Family | str = DEFAULT,
    **fields: object,
) -> tuple[list[Viewed], ScriptedBackend]:
    backend = ScriptedBackend(replies, family=family)
    asked = [
        Query(wish.task, footage, keep_unreadable=True)
        if isinstance(footage, BadVideo)
        else Viewing(footage, wish, **fields).query(keep_unreadable=True)
        for footage in footages
    ]
    return run.answer_all(backend, asked), backend
