"""A short run of ``fuzz_replies``."""

from __future__ import annotations

import fuzz_replies
import pytest
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.types import ReplyContext


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_any_reply_is_parsed_or_unreadable_in_every_task(family: str) -> None:
    context = ReplyContext(FAMILIES[family], (1000, 1333), (1008, 1344))
    for text in fuzz_replies.texts(300, seed=7):
        fuzz_replies.check(text, context)


@pytest.mark.parametrize("scrap", [*fuzz_replies.HOSTILE, *fuzz_replies.STRETCHED], ids=repr)
def test_hostile_replies_are_parsed_or_unreadable_quickly(
    scrap: str | tuple[str, str, str],
) -> None:
    # Quadratic time would be minutes here.
    context = ReplyContext(FAMILIES["qwen3_vl"], (1000, 1333), (1008, 1344))
    fuzz_replies.check(fuzz_replies.stretched(scrap, 20_000), context)
