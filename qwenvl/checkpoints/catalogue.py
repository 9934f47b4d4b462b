"""Model catalogue: the makers' own checkpoints that can be downloaded by name.

Sizes are approximate download sizes: parameters on the model cards times two bytes; for FP8 one
byte for the linear layers of the language model, two for the rest. The hub's own sizes are read
before a download starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CatalogueEntry:
    """``repo_id`` is ``owner/name`` on both hubs, ``model_type`` a key of ``families.FAMILIES``,
    ``nbytes`` the download's approximate size."""

    repo_id: str
    model_type: str
    nbytes: int

    @property
    def name(self) -> str:
        """The name of the folder that it is downloaded into."""
        return self.repo_id.split("/")[1]

    @property
    def can_be_quantized(self) -> bool:
        """Whether bitsandbytes can quantise it: not FP8 editions and mixtures of experts."""
        return not (self.name.endswith("-FP8") or self.model_type.endswith("_moe"))


_GB = 10**9

# model_type, name without editions, GB in bf16, GB in FP8 (None: there is no such edition).
_QWEN3_VL = (
    ("qwen3_vl", "Qwen3-VL-2B", 4.3, 2.8),
    ("qwen3_vl", "Qwen3-VL-4B", 8.9, 5.2),
    ("qwen3_vl", "Qwen3-VL-8B", 17.5, 10.6),
    ("qwen3_vl_moe", "Qwen3-VL-30B-A3B", 62.1, 32.3),
    ("qwen3_vl", "Qwen3-VL-32B", 66.7, 35.5),
    ("qwen3_vl_moe", "Qwen3-VL-235B-A22B", 471.0, 238.0),
)
_QWEN3_5: tuple[tuple[str, str, float, float | None], ...] = (
    ("qwen3_5", "Qwen3.5-0.8B", 1.8, None),
    ("qwen3_5", "Qwen3.5-2B", 4.6, None),
    ("qwen3_5", "Qwen3.5-4B", 9.3, None),
    ("qwen3_5", "Qwen3.5-9B", 19.3, None),
    ("qwen3_5", "Qwen3.5-27B", 55.6, 31.0),
    ("qwen3_5_moe", "Qwen3.5-35B-A3B", 72.0, 37.5),
    ("qwen3_5_moe", "Qwen3.5-122B-A10B", 250.0, 127.0),
    ("qwen3_5_moe", "Qwen3.5-397B-A17B", 807.0, 406.0),
    ("qwen3_5", "Qwen3.6-27B", 55.6, 31.0),
    ("qwen3_5_moe", "Qwen3.6-35B-A3B", 72.0, 37.5),
)
_OLDER = (
    ("qwen2_5_vl", "Qwen2.5-VL-3B-Instruct", 7.5),
    ("qwen2_5_vl", "Qwen2.5-VL-7B-Instruct", 16.6),
    ("qwen2_5_vl", "Qwen2.5-VL-32B-Instruct", 66.9),
    ("qwen2_5_vl", "Qwen2.5-VL-72B-Instruct", 147.0),
    ("qwen2_vl", "Qwen2-VL-2B-Instruct", 4.4),
    ("qwen2_vl", "Qwen2-VL-7B-Instruct", 16.6),
    ("qwen2_vl", "Qwen2-VL-72B-Instruct", 147.0),
    ("qwen2_5_omni", "Qwen2.5-Omni-3B", 12.0),
    ("qwen2_5_omni", "Qwen2.5-Omni-7B", 22.4),
)
# Rerankers and embedding models, see ``retrieval``.
_RETRIEVAL = (
    ("qwen3_vl", "Qwen3-VL-Reranker-2B", 4.3),
    ("qwen3_vl", "Qwen3-VL-Reranker-8B", 17.5),
    ("qwen3_vl", "Qwen3-VL-Embedding-2B", 4.3),
    ("qwen3_vl", "Qwen3-VL-Embedding-8B", 16.3),
)


def _rows() -> Iterator[tuple[str, str, float]]:
    for model_type, name, bf16, fp8 in _QWEN3_VL:
        for edition in ("Instruct", "Thinking"):
            yield model_type, f"{name}-{edition}", bf16
            yield model_type, f"{name}-{edition}-FP8", fp8
    for model_type, name, bf16, small in _QWEN3_5:
        yield model_type, name, bf16
        if small is not None:
            yield model_type, f"{name}-FP8", small
    yield from _OLDER
    yield from _RETRIEVAL


CATALOGUE: Mapping[str, CatalogueEntry] = {
    f"Qwen/{name}": CatalogueEntry(f"Qwen/{name}", model_type, round(size * _GB))
    for model_type, name, size in _rows()
}
"""By ``repo_id``, newest generations first, and at the end those that only compare."""
