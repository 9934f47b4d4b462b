"""Benchmark models: random weights in real architectures. Small ones for the CPU are written as
checkpoints and loaded; full-size ones for a GPU are created on it."""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

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


def _full(text: dict[str, Any], vision: dict[str, Any], tied: bool) -> dict[str, Any]:
    """A Qwen3-VL configuration, from what differs between its sizes."""
    same_text = {
        "vocab_size": 151_936,
        "head_dim": 128,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262_144,
        "rope_theta": 5_000_000,
        "rope_scaling": {**_ROPE, "mrope_section": [24, 20, 20]},
        "tie_word_embeddings": tied,
    }
    same_vision = {"num_heads": 16, "out_hidden_size": text["hidden_size"]}
    return {
        "text_config": {**same_text, **text},
        "vision_config": {**_VISION, **same_vision, **vision},
        "tie_word_embeddings": tied,
    }


_SMALL_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_LARGE_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}
FULL: dict[str, dict[str, Any]] = {
    "2B": _full(
        {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        },
        _SMALL_TOWER,
        tied=True,
    ),
    "4B": _full(
        {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
        },
        _SMALL_TOWER,
        tied=True,
    ),
    "8B": _full(
        {
            "hidden_size": 4096,
            "intermediate_size": 12_288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
        },
        _LARGE_TOWER,
        tied=False,
    ),
}
"""Qwen3-VL as its makers' ``config.json`` files have it."""


@dataclass(frozen=True)
class Model:
    """A backend whose answers all have the length asked for, unless told otherwise (random weights
    would end some early), and the folder of its checkpoint's small files. ``exact``: it computes in
    fp32, so that two ways to an answer can be told equal."""

    backend: Any
    folder: Path
    exact: bool


def write(model_type: str, config: dict[str, Any] | None) -> Path:
    """The folder of a fresh checkpoint, there until the process ends. ``config``: its shapes; a
    tiny model's without."""
    sys.path.append(str(ROOT / "tests" / "engine"))
    import tiny

    root = Path(tempfile.mkdtemp(prefix="qwen-vl-bench-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    folder = root / model_type
    # Wide layers of tiny's large weights would make of roundings other tokens.
    tiny.make(model_type, folder, config=config, std=0.08 if config else 0.3)
    # Image sizes of real checkpoints.
    rule = json.loads((folder / "preprocessor_config.json").read_text())
    rule["size"] = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    (folder / "preprocessor_config.json").write_text(json.dumps(rule))
    return folder


@cache
def small(model_type: str, precision: str = "fp32", device: str = "cpu") -> Model:
    """One of ``SHAPES``, the same each time."""
    return open_model(small_files(model_type), device=device, precision=precision)


@cache
def plain(model_type: str) -> Model:
    """The model of ``small``, which answers by the library's own ``generate``."""
    return open_model(small_files(model_type), device="cpu", precision="fp32", optimize="off")


@cache
def small_files(model_type: str = "qwen3_vl") -> Path:
    """The checkpoint of one of ``SHAPES``."""
    return write(model_type, SHAPES[model_type])


def full(size: str, quantization: str = "none", device: str = "cuda") -> Model:
    """One of ``FULL`` in bf16, a fresh one each time: it leaves memory when nobody holds it."""
    return full_in(_full_files(), size, device=device, quantization=quantization)


def full_in(folder: Path, size: str, **settings: Any) -> Model:
    """One of ``FULL`` in bf16 with the tokenizer of ``folder``; ``settings``: of ``open_model``."""
    with _instead_of_reading(FULL[size], settings["device"]):
        return open_model(folder, precision="bf16", **settings)


@cache
def _full_files() -> Path:
    """A checkpoint's small files, beside weights that are not read."""
    return write("qwen3_vl", None)


def open_model(folder: Path, endless: bool = True, **settings: str) -> Model:
    """A checkpoint, loaded with ``settings`` of its ``LocalSpec``; ``endless``: no token ends its
    answers."""
    from qwen_vl_suite.qwenvl.backends.local import load
    from qwen_vl_suite.qwenvl.types import LocalSpec

    backend = load(LocalSpec(str(folder), **settings))
    template = backend.chat_template
    if endless:
        template.eos_ids = frozenset()
    # A thought is no part of an answer, and random weights may begin one.
    template.media_token_ids |= set(template.tokenizer.encode("<think>", add_special_tokens=False))
    return Model(backend, folder, backend.model.dtype is torch.float32)


@contextmanager
def without_patches(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, ``model`` computes with the library's own norms, but keeps our patch
    embedding."""
    quick = [part for part in model.modules() if type(part).__name__.startswith("Quick")]
    kinds = [type(part) for part in quick]
    for part in quick:
        part.__class__ = type(part).__base__
    try:
        yield
    finally:
        for part, kind in zip(quick, kinds, strict=True):
            part.__class__ = kind


@contextmanager
def _instead_of_reading(shape: dict[str, Any], device: str) -> Iterator[None]:
    """While the block runs, loading creates random weights of ``shape`` on ``device``: writing
    17 GB to files and reading them again would only cost time."""
    from qwen_vl_suite.qwenvl.models import loading

    def made(_cls: Any, path: Path, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        model = random_model(path, shape, device, options["dtype"], options["attn_implementation"])
        if "quantization_config" in options:
            quantize_in_place(model, options["quantization_config"])
        return model, {"missing_keys": []}

    read, loading._from_pretrained = loading._from_pretrained, made
    try:
        yield
    finally:
        loading._from_pretrained = read


def random_model(
    path: Path, shape: dict[str, Any], device: str, dtype: torch.dtype, attention: str
) -> Any:
    """A model of ``shape`` with normal random weights, and the special tokens of ``path``."""
    import transformers

    own = json.loads((path / "config.json").read_text())
    tokens = {name: own[name] for name in own if name.endswith("_token_id")}
    config = transformers.AutoConfig.for_model(
        "qwen3_vl", **json.loads(json.dumps(shape)), **tokens
    )
    torch.manual_seed(3)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation=attention
        )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.02)
    return model


def quantize_in_place(model: Any, config: Any) -> None:
    """Quantizes linear layers to 4 bits in place, except those that ``config`` skips: as loading
    with bitsandbytes does."""
    import bitsandbytes

    skipped = tuple(config.llm_int8_skip_modules)
    for name, module in list(model.named_modules()):
        if type(module) is not torch.nn.Linear or name.startswith(skipped):
            continue
        small = bitsandbytes.nn.Linear4bit(
            module.in_features,
            module.out_features,
            module.bias is not None,
            compute_dtype=config.bnb_4bit_compute_dtype,
            compress_statistics=config.bnb_4bit_use_double_quant,
            quant_type=config.bnb_4bit_quant_type,
            device="meta",
        )
        packed = bitsandbytes.nn.Params4bit(
            module.weight.detach(),
            requires_grad=False,
            compress_statistics=config.bnb_4bit_use_double_quant,
            quant_type=config.bnb_4bit_quant_type,
            module=small,
        )
        small.weight = packed.to(module.weight.device)
        small.bias = module.bias
        small.train(module.training)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, small)
