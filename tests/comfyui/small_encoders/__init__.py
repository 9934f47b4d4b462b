"""An extension for tests: Load CLIP gives a small encoder, whatever the file says.

``nano.safetensors`` is the bundled model in ComfyUI's own class of Qwen3-VL,
``random.safetensors`` one that never ends its answers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import comfy.sd

from . import encoders

NODE_CLASS_MAPPINGS: dict[str, Any] = {}


def load_clip(ckpt_paths: list[str], *_: Any, **__: Any) -> Any:
    if Path(ckpt_paths[0]).name == "random.safetensors":
        return encoders.qwen3vl()
    return encoders.nano(Path(os.environ["NANO_CHECKPOINT"]))


comfy.sd.load_clip = load_clip
