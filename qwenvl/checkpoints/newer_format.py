"""Forward compatibility: checkpoints saved by a newer transformers than the installed one.

Release 5 writes some settings under new names, which release 4 ignores or fails on. They are
translated to the old names; what has no old name raises ``UnsupportedModel``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import IncompleteCheckpoint, UnsupportedModel
from .files import read_json

_VISION_ROPE = {"rope_type": "axial", "rope_theta": 10_000.0}  # built into release 4


def saving_release(folder: Path) -> str:
    """The transformers release that wrote ``config.json``; empty where it does not say."""
    try:
        config = read_json(folder / "config.json")
    except IncompleteCheckpoint:  # reported by whoever needs more of it
        return ""
    parts = [config, *config.values()] if isinstance(config, Mapping) else []
    versions = [part.get("transformers_version") for part in parts if isinstance(part, Mapping)]
    return next((version for version in versions if isinstance(version, str)), "")


def is_newer(folder: Path, installed: str) -> bool:
    """Whether a newer transformers than ``installed`` saved the checkpoint in ``folder``."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(saving_release(folder)).release[:2] > Version(installed).release[:2]
    except InvalidVersion:
        return False


def update_advice(folder: Path, installed: str) -> str:
    """What to do about a checkpoint that a newer transformers saved and ``installed`` cannot
    read."""
    return (
        f"{folder.name} was saved by transformers {saving_release(folder)}, which is newer than "
        f"the installed {installed}. Update it with: pip install -U transformers"
    )


def has_release_5_names(config: Mapping[str, Any]) -> bool:
    """Whether ``config.json`` uses a name of release 5."""
    return "rope_parameters" in config or any(
        has_release_5_names(part) for part in config.values() if isinstance(part, Mapping)
    )


def with_release_4_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config.json`` of release 5 as release 4 would have written it. Raises ``UnsupportedModel``
    where it could not express it."""
    old = {
        name: with_release_4_names(part)
        if isinstance(part, Mapping) and name.endswith("_config")
        else part
        for name, part in config.items()
    }
    if isinstance(text := old.get("text_config"), dict) and "tie_word_embeddings" in old:
        text.setdefault("tie_word_embeddings", old["tie_word_embeddings"])
    rope = old.pop("rope_parameters", None)
    if rope is None or rope == _VISION_ROPE:
        return old
    if (
        not isinstance(rope, Mapping)
        or "rope_theta" not in rope
        or rope.get("rope_type") == "axial"
    ):
        raise UnsupportedModel(f"its rope_parameters are {rope!r}, which need transformers 5")
    # A config may hold both forms: release 5 computes with what it wrote last.
    old["rope_theta"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        old["partial_rotary_factor"] = rope["partial_rotary_factor"]
    moved = ("rope_theta", "partial_rotary_factor")
    old["rope_scaling"] = {name: value for name, value in rope.items() if name not in moved}
    return old


def has_generic_tokenizer(folder: Path) -> bool:
    """Whether the tokenizer is release 5's generic class: ``tokenizer.json`` is all of it."""
    return _tokenizer_settings(folder).get("tokenizer_class") == "TokenizersBackend"


def tokenizer_options(folder: Path) -> dict[str, Any]:
    """Arguments with which release 4 reads the tokenizer settings of release 5, where additional
    special tokens are a list under another name."""
    extra = _tokenizer_settings(folder).get("extra_special_tokens")
    if not isinstance(extra, list):
        return {}
    return {"extra_special_tokens": {}, "additional_special_tokens": extra}


def _tokenizer_settings(folder: Path) -> Mapping[str, Any]:
    try:
        found = read_json(folder / "tokenizer_config.json")
    except IncompleteCheckpoint:  # loading the tokenizer will report it
        return {}
    return found if isinstance(found, Mapping) else {}
