"""Makers' prompts: the words that some models were trained on, to the letter, which are a part of
their interface as a chat template is. They are data: ``makers_prompts.yaml`` names the source and
the licence of each, and is read when a model is asked in them, not before.
"""

from __future__ import annotations

from pathlib import Path

from .yaml_files import read_mapping

FILE = Path(__file__).with_name("makers_prompts.yaml")


def words(model: str, name: str) -> str:
    """The words ``name`` of ``model``, an entry of the file. Raises ``Unavailable`` without
    pyyaml."""
    found = read_mapping(FILE)[model][name]
    assert isinstance(found, str), f"{model}: {name} is no text"
    return found
