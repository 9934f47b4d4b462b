"""Random LoRA adapters for tiny checkpoints, made and saved by peft itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_vl_suite.qwenvl.checkpoints.files import read_settings
from qwen_vl_suite.qwenvl.families import family_of
from qwen_vl_suite.qwenvl.models.loading import model_class
from safetensors.torch import load_file, save_file


def make(
    folder: Path,
    checkpoint: Path,
    seed: int = 0,
    targets: Any = ("q_proj", "v_proj", "up_proj", "qkv"),
    **options: Any,
) -> Any:
    """Writes an adapter for ``checkpoint`` to ``folder``, and gives peft's model with it on."""
    import peft
    import torch

    cls = model_class(checkpoint, family_of(read_settings(checkpoint, "config.json")))
    model = cls.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa")
    targets = targets if isinstance(targets, str) else list(targets)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, **options)
    made = peft.get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in made.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    made.save_pretrained(folder)
    change_config(folder, base_model_name_or_path="Qwen/Some-Base-2B")
    return made


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Writes other tensors into the adapter in ``folder``."""
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def change_config(folder: Path, **entries: Any) -> Path:
    """Sets entries of the adapter's config."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
    return folder
