"""Small checkpoints on disk, valid in every file that is looked at before loading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

SHARDS = {
    "model-00001-of-00002.safetensors": {"a.weight": 64, "b.weight": 16},
    "model-00002-of-00002.safetensors": {"c.weight": 128},
}
CONFIG = {"model_type": "qwen3_vl", "vision_config": {}}
PROCESSOR = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
"""Of Qwen3-VL."""


def safetensors(tensors: Mapping[str, int], written_for: str = "pt") -> bytes:
    """A file of tensors in bf16, ``tensors`` maps names to bytes (even numbers)."""
    header, end = {}, 0
    for name, nbytes in tensors.items():
        place = [end, end + nbytes]
        header[name] = {"dtype": "BF16", "shape": [nbytes // 2], "data_offsets": place}
        end += nbytes
    text = json.dumps({"__metadata__": {"format": written_for}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + (bytes(range(251)) * (end // 251 + 1))[:end]


def files(config: Mapping[str, object] = CONFIG, sharded: bool = True) -> dict[str, bytes]:
    """Names and contents of a whole checkpoint."""
    weights = {"model.safetensors": safetensors({"a.weight": 256})}
    older = str(config["model_type"]).startswith("qwen2")
    processor = {**PROCESSOR, "patch_size": 14} if older else PROCESSOR
    if sharded:
        weight_map = {tensor: file for file, tensors in SHARDS.items() for tensor in tensors}
        index = {"metadata": {"total_size": 208}, "weight_map": weight_map}
        weights = {file: safetensors(tensors) for file, tensors in SHARDS.items()}
        weights["model.safetensors.index.json"] = json.dumps(index).encode()
    return {
        "config.json": json.dumps(config).encode(),
        "preprocessor_config.json": json.dumps(processor).encode(),
        "tokenizer.json": b'{"model": {}}\n',
        "tokenizer_config.json": b"{}",
        **weights,
    }


def write(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """Writes ``contents`` below ``folder`` and returns ``folder``."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
