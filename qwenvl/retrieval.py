"""Retrieval models: rerankers and embedding models, made to compare texts with pictures.

They carry the ``model_type`` of what they were tuned from, and are told by their files and names.
Limits and pooling are the makers' own, as are the prompts (``makers_prompts``), since the models
were trained on them: ``qwen3_vl_reranker.py`` and ``qwen3_vl_embedding.py`` of
QwenLM/Qwen3-VL-Embedding, and ``modeling_gme_qwen2vl.py`` of
Alibaba-NLP/gme-Qwen2-VL-2B-Instruct.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

from .errors import UnsuitableModel, UnsupportedModel
from .types import Family, Retrieval

_QWEN3_BOUNDS = (4 * 32**2, 1800 * 32**2)

RETRIEVAL: tuple[Retrieval, ...] = (
    Retrieval(
        "Qwen3-VL-Reranker",
        "reranker",
        base="Qwen3-VL",
        names=("qwen3-vl-reranker",),
        pixel_bounds=_QWEN3_BOUNDS,
        max_tokens=10_240,
    ),
    Retrieval(
        "Qwen3-VL-Embedding",
        "embedding",
        base="Qwen3-VL",
        names=("qwen3-vl-embedding",),
        pixel_bounds=_QWEN3_BOUNDS,
        max_tokens=8192,
        ends_in_point=True,
    ),
    Retrieval(
        "gme-Qwen2-VL",
        "embedding",
        base="Qwen2-VL",
        names=("gme-qwen2-vl", "gme-qwen2vl"),
        classes=("GmeQwen2VL",),
        pixel_bounds=(256 * 28**2, 1280 * 28**2),
        max_tokens=1800,
        ending="<|endoftext|>",
    ),
)

_TEXT_ONLY = {"qwen3-reranker": "reranker", "qwen3-embedding": "embedding"}
"""Kinds by the names of checkpoints that compare texts with texts alone."""

_MODULES = {"Pooling": "embedding", "LogitScore": "reranker", "CausalScoreHead": "reranker"}
"""Kinds by the modules of sentence-transformers that only such models have."""

_CLASSIFIER = "ForSequenceClassification"
_DOES = {
    "reranker": "a reranker: it judges whether a picture fits a text",
    "embedding": "an embedding model: it turns texts and pictures into vectors to be compared",
}


def as_retrieval(
    family: Family,
    checkpoint: str,
    classes: Collection[str] = (),
    modules: Collection[str] = (),
) -> Family:
    """``family``, with its ``retrieval`` where the files of a checkpoint say that it is such a
    model. ``checkpoint``: the folder's name; ``classes``: names of classes in ``config.json``;
    ``modules``: those of sentence-transformers. Raises ``UnsupportedModel`` for one whose prompts
    are not known, or that reads text only."""
    found = _known(family, checkpoint, classes)
    kinds = {kind for module, kind in _MODULES.items() if module in modules}
    if not family.sees:
        kinds |= {kind for name, kind in _TEXT_ONLY.items() if _is_named(checkpoint, (name,))}
    if found is None and any(name.endswith(_CLASSIFIER) for name in classes):
        kinds.add("reranker")
        rows = []
    else:
        rows = [row for row in RETRIEVAL if _is_tuned_from(row, family) and row.kind in kinds]
    if found is None and kinds and not family.sees:
        raise UnsupportedModel(
            f"{checkpoint} ({family.title}) compares texts with one another and writes nothing. "
            "Here pictures are compared with a text (Qwen-VL Score), which it cannot see. Choose "
            "Qwen3-VL-Reranker or Qwen3-VL-Embedding for that."
        )
    if found is None and kinds and not rows:
        kind = min(kinds)
        raise UnsupportedModel(
            f"{checkpoint} is {_DOES[kind]}, of a kind whose prompts are not known here. Known are "
            f"{', '.join(row.title for row in RETRIEVAL)}."
        )
    found = found or (rows[0] if rows else None)
    return family if found is None else dataclasses.replace(family, retrieval=found)


def _known(family: Family, checkpoint: str, classes: Collection[str]) -> Retrieval | None:
    for row in RETRIEVAL:
        has_class = row.classes and any(name.startswith(row.classes) for name in classes)
        if _is_tuned_from(row, family) and (_is_named(checkpoint, row.names) or has_class):
            return row
    return None


def _is_named(checkpoint: str, names: Collection[str]) -> bool:
    """Whether one of ``names``, in lower case, stands in the checkpoint's as whole words."""
    words = "|".join(map(re.escape, names))
    return bool(re.search(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])", checkpoint.lower()))


def _is_tuned_from(row: Retrieval, family: Family) -> bool:
    return family.title.split(" (")[0].removesuffix(" MoE") == row.base


def check_writes(family: Family, name: str) -> None:
    """Raises ``UnsuitableModel`` where the model ``name`` of ``family`` writes no text."""
    if family.retrieval is None:
        return
    raise UnsuitableModel(
        f"{name} is {_DOES[family.retrieval.kind]}. It writes nothing, so it cannot describe "
        "pictures, read them or find things in them. Use it in Qwen-VL Score (python -m qwenvl "
        "score), and choose a model that writes here, such as Qwen3-VL-4B-Instruct."
    )
