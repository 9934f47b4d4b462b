"""Prompts that models were trained on: to the letter, with their sources, and each in use."""

from __future__ import annotations

import hashlib

import pytest
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.fine_tunes import FINE_TUNES
from qwen_vl_suite.qwenvl.makers_prompts import FILE, words
from qwen_vl_suite.qwenvl.retrieval import RETRIEVAL
from qwen_vl_suite.qwenvl.yaml_files import read_mapping

DIGESTS = {
    ("Qwen3-VL-Reranker", "system"): "b5f9e783",
    ("Qwen3-VL-Reranker", "user"): "101a679d",
    ("Qwen3-VL-Reranker", "instruction"): "5e2603c2",
    ("Qwen3-VL-Embedding", "instruction"): "5e2603c2",
    ("Qwen3-VL-Embedding", "picture"): "b933bb13",
    ("gme-Qwen2-VL", "instruction"): "b1be761a",
    ("gme-Qwen2-VL", "picture"): "75357d68",
    ("Qwen2.5-Omni", "speech"): "bc6a4e99",
    ("olmOCR 2", "page"): "c12f21ac",
    ("olmOCR 0725/0825", "page"): "94b8c304",
    ("RolmOCR", "page"): "48b131fe",
    ("Nanonets-OCR", "page"): "f8f1002a",
    ("MinerU2.5", "page"): "23440297",
    ("Chandra", "page"): "3cdbeed4",
}
"""SHA-256, the first eight digits, of what was compared with the makers' own files."""

ABOUT = ("source", "licence")


@pytest.mark.parametrize(("model", "name"), DIGESTS)
def test_a_prompt_is_the_makers_own_to_the_letter(model: str, name: str) -> None:
    found = hashlib.sha256(words(model, name).encode()).hexdigest()
    assert found.startswith(DIGESTS[model, name])


def test_every_entry_says_where_it_is_from_and_belongs_to_a_row() -> None:
    entries = read_mapping(FILE)
    assert all(entry["source"] for entry in entries.values())
    held = {(m, n) for m, entry in entries.items() for n in entry if n not in ABOUT}
    assert held == DIGESTS.keys()
    tuned = {tune.title for tune in FINE_TUNES.values() if tune.outputs}
    speaking = {row.speech.prompt for row in FAMILIES.values() if row.speech and row.speech.prompt}
    assert entries.keys() == tuned | speaking | {row.title for row in RETRIEVAL}
