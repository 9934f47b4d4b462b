"""Retrieval files: what in a checkpoint's folder tells a reranker or an embedding model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnsupportedModel
from ..retrieval import as_retrieval
from ..types import Family
from .files import read_json

_POOLINGS = frozenset(
    ("cls_token", "mean_tokens", "max_tokens", "weightedmean_tokens", "mean_sqrt_len_tokens")
)
"""Ways of sentence-transformers to make one vector of many, other than the last token's."""


def with_retrieval(family: Family, path: Path, config: Mapping[str, Any]) -> Family:
    """``family`` of the checkpoint ``path`` with its parsed ``config.json``, with its ``retrieval``
    where it is such a model. Raises ``UnsupportedModel`` for one whose prompts or pooling are not
    known."""
    found = as_retrieval(family, path.name, _classes(config), _modules(path))
    if found.retrieval:
        _check_pooling(path)
    return found


def _classes(config: Mapping[str, Any]) -> set[str]:
    """Names of the classes that a ``config.json`` says its model has."""
    named = config.get("architectures")
    remote = config.get("auto_map")
    found = list(named) if isinstance(named, list) else []
    found += remote.values() if isinstance(remote, Mapping) else []
    return {name.rpartition(".")[2] for name in found if isinstance(name, str)}


def _modules(path: Path) -> set[str]:
    """Names of the modules of sentence-transformers in the checkpoint ``path``."""
    if not (path / "modules.json").is_file():
        return set()
    found = read_json(path / "modules.json")
    entries = found if isinstance(found, list) else []
    types = (entry.get("type") for entry in entries if isinstance(entry, Mapping))
    return {name.rpartition(".")[2] for name in types if isinstance(name, str)}


def _check_pooling(path: Path) -> None:
    """Raises ``UnsupportedModel`` for an embedding model that takes another token than the last."""
    file = path / "1_Pooling" / "config.json"
    if not file.is_file():
        return
    settings = read_json(file)
    modes = settings if isinstance(settings, Mapping) else {}
    mode = modes.get("pooling_mode")
    flags = {key.removeprefix("pooling_mode_") for key, value in modes.items() if value is True}
    others = sorted(flags & _POOLINGS)
    if mode not in (None, "lasttoken") or others:
        named = mode or ", ".join(others)
        raise UnsupportedModel(
            f"{path.name} makes its vectors in another way ({named}) than of the last token, which "
            "is not known here."
        )
