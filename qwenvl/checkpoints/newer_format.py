"""Checkpoints that a newer transformers saved than the one that is to read them.

Release 5 writes some settings under new names, which release 4 ignores or stumbles over. What they
say is put under the old names; what has none is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import IncompleteCheckpoint, UnsupportedModel
from .safetensors_header import read_json

_VISION_ROPE = {"rope_type": "axial", "rope_theta": 10_000.0}  # what release 4 computes with


def saved_by(folder: Path) -> str:
    """The release of transformers that wrote ``config.json``; empty where it does not say."""
    try:
        config = read_json(folder / "config.json")
    except IncompleteCheckpoint:  # told by those who need more of it
        return ""
    parts = [config, config.get("thinker_config")] if isinstance(config, Mapping) else []
    said = [part.get("transformers_version") for part in parts if isinstance(part, Mapping)]
    return next((version for version in said if isinstance(version, str)), "")


def is_newer(folder: Path, installed: str) -> bool:
    """Whether a newer transformers than ``installed`` saved the checkpoint in ``folder``."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(saved_by(folder)).release[:2] > Version(installed).release[:2]
    except InvalidVersion:
        return False


def advice(folder: Path, installed: str) -> str:
    """What to do about a checkpoint that a newer transformers saved and ``installed`` cannot
    read."""
    return (
        f"{folder.name} was saved by transformers {saved_by(folder)}, which is newer than the "
        f"installed {installed}. Update it with: pip install -U transformers"
    )


def needs_old_names(config: Mapping[str, Any]) -> bool:
    """Whether anything in ``config.json`` stands under a name of release 5."""
    return "rope_parameters" in config or any(
        needs_old_names(part) for part in config.values() if isinstance(part, Mapping)
    )


def with_old_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config.json`` of release 5 as release 4 would have written it. Raises ``UnsupportedModel``
    where that has no words for it."""
    old = {
        name: with_old_names(part)
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
    # Both may stand there: what release 5 wrote last is what it computes with.
    old["rope_theta"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        old["partial_rotary_factor"] = rope["partial_rotary_factor"]
    own = ("rope_theta", "partial_rotary_factor")
    old["rope_scaling"] = {name: value for name, value in rope.items() if name not in own}
    return old


def is_whole_tokenizer(folder: Path) -> bool:
    """Whether the tokenizer is one of release 5 that has no class of its own: all of it stands in
    ``tokenizer.json``."""
    return _tokenizer_settings(folder).get("tokenizer_class") == "TokenizersBackend"


def tokenizer_options(folder: Path) -> dict[str, Any]:
    """What release 4 must be told besides, to read the tokenizer's settings of release 5: there
    additional special tokens are a list under another name."""
    extra = _tokenizer_settings(folder).get("extra_special_tokens")
    if not isinstance(extra, list):
        return {}
    return {"extra_special_tokens": {}, "additional_special_tokens": extra}


def _tokenizer_settings(folder: Path) -> Mapping[str, Any]:
    try:
        found = read_json(folder / "tokenizer_config.json")
    except IncompleteCheckpoint:  # the tokenizer's own reader tells
        return {}
    return found if isinstance(found, Mapping) else {}
