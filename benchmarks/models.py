"""Models of random weights in the shapes of real ones, small enough for a processor."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from . import ROOT

_VISION = {
    "depth": 8,
    "hidden_size": 384,
    "num_heads": 6,
    "intermediate_size": 1536,
    "out_hidden_size": 768,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 2304,
}
_TEXT = {
    "vocab_size": 320,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
_ROPE = {"rope_type": "default", "mrope_section": [12, 10, 10], "mrope_interleaved": True}
_LINEAR = {
    "linear_num_key_heads": 8,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    * 3,
    "partial_rotary_factor": 1.0,
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3_vl": {
        "text_config": {**_TEXT, "rope_scaling": _ROPE},
        "vision_config": {**_VISION, "deepstack_visual_indexes": [2, 4, 6]},
    },
    "qwen3_5": {
        "text_config": {**_TEXT, **_LINEAR, "rope_parameters": {**_ROPE, "rope_theta": 10_000.0}},
        "vision_config": _VISION,
    },
}
"""About 100 million parameters each."""


def write(model_type: str) -> Path:
    """The folder of a fresh checkpoint."""
    import json

    sys.path.append(str(ROOT / "tests" / "engine"))
    import tiny

    folder = Path(tempfile.mkdtemp(prefix="qwen-vl-bench-")) / model_type
    tiny.make(model_type, folder, config=SHAPES[model_type])
    # Pictures as large as real checkpoints take them.
    rule = json.loads((folder / "preprocessor_config.json").read_text())
    rule["size"] = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    (folder / "preprocessor_config.json").write_text(json.dumps(rule))
    return folder


def make(model_type: str) -> tuple[Any, Path]:
    """The backend of a fresh model and the folder of its checkpoint."""
    from qwen_vl_suite.qwenvl.transformers_backend import load
    from qwen_vl_suite.qwenvl.types import ModelSpec

    folder = write(model_type)
    return load(ModelSpec(str(folder))), folder
