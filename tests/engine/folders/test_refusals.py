"""Refusals and captions that come near, by language: a golden table."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.folders.refusals import is_refusal

TABLE = yaml.safe_load(
    (Path(__file__).parents[2] / "golden" / "refusals.yaml").read_text(encoding="utf-8")
)
REFUSALS = [reply for replies in TABLE["refusals"].values() for reply in replies]
CAPTIONS = [caption for captions in TABLE["captions"].values() for caption in captions]


@pytest.mark.parametrize("language", TABLE["refusals"])
def test_refusals_are_told(language):
    assert [reply for reply in TABLE["refusals"][language] if not is_refusal(reply)] == []


@pytest.mark.parametrize("language", TABLE["captions"])
def test_captions_with_such_words_are_kept(language):
    assert [caption for caption in TABLE["captions"][language] if is_refusal(caption)] == []


@settings(max_examples=60)
@given(st.sampled_from(REFUSALS), st.sampled_from(CAPTIONS))
def test_a_caption_may_quote_any_refusal(refusal, caption):
    assert not is_refusal(f"A photo of a screen that says: {refusal}")
    assert not is_refusal(f"{caption} Behind it: {refusal}")


def test_the_table_is_large_in_both_ways():
    assert len(REFUSALS) > 200 and len(CAPTIONS) > 150
    assert not set(REFUSALS) & set(CAPTIONS)
