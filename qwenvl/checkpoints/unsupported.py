"""What a model folder holds where it is no checkpoint that can be loaded as it is: adapters,
weights in other formats, and quantised ones that nothing here can read. Told from names and
settings; no weight is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

from ..errors import IncompleteCheckpoint
from ..models.footprint import FLOATS, NOT_LOADED
from .integrity import WeightFiles
from .safetensors_header import read_json

ADAPTER = "adapter_config.json"
_ORIGINAL = (
    "Download the original checkpoint; to save memory choose 4-bit or 8-bit quantization when "
    "loading."
)
# By the ending of their files' names.
_FORMATS = {
    (".gguf",): f"GGUF weights are not supported here, only safetensors. {_ORIGINAL}",
    (".bin", ".pt", ".pth", ".ckpt", ".pkl"): (
        "Its weights are pickle files (.bin), which can run code when they are opened: only "
        "safetensors are loaded. Look for a safetensors version of this checkpoint."
    ),
    (".onnx", ".onnx_data"): f"ONNX weights are not supported here, only safetensors. {_ORIGINAL}",
    (".npz",): f"NumPy weights (.npz) are not supported here, only safetensors. {_ORIGINAL}",
    (".h5", ".msgpack"): (
        "Weights for TensorFlow or Flax are not supported here, only safetensors. Look for a "
        "safetensors version of this checkpoint."
    ),
}
# What trainers leave beside the weights.
_NO_WEIGHTS = (
    "training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states",
)  # fmt: skip
_MLX = f"Its weights are in MLX form, which only Apple's MLX reads. {_ORIGINAL}"
# Methods that transformers cannot read, or takes for plain weights without a word.
_METHODS = {
    "modelopt": "NVIDIA ModelOpt",
    "exl2": "ExLlamaV2 (EXL2)",
    "exl3": "ExLlamaV3 (EXL3)",
    "nvfp4": "NVFP4",
    "svdquant": "SVDQuant",
    "mlx": "MLX",
}
# Methods whose weights are never plain floats.
_PACKED = {
    "gptq", "awq", "bitsandbytes", "fp8", "fbgemm_fp8", "compressed-tensors", "auto-round",
    "mxfp4", "mxfp8", "aqlm", "vptq", "spqr", "eetq", "higgs",
}  # fmt: skip
# Integers that a model counts with; nothing is computed from them.
_COUNTERS = ("position_ids", "num_batches_tracked", "inv_freq")


BARE = (
    " (It holds weights alone, as the text encoders of image generators are stored: the tokenizer "
    "and the picture processor are needed as well.)"
)


def is_bare(sizes: Collection[str], weights: WeightFiles) -> bool:
    """Whether a folder holds a model's weights and nothing to ask it with."""
    more = ("tokenizer", "vocab", "merges", "preprocessor", "processor")
    return bool(weights.tensors) and not any(file.startswith(more) for file in sizes)


def adapter(folder: Path, sizes: Collection[str], weights: WeightFiles) -> str:
    """Why a folder with an adapter is not loaded; empty where there is none."""
    alone = not weights.files
    if ADAPTER not in sizes and not (alone and any(f.startswith("adapter_model.") for f in sizes)):
        return ""
    base, kind = _base_and_kind(folder)
    if alone:
        return (
            f"It is an adapter ({kind}) for {base}, no model of its own. Merge it into that model "
            "(merge_and_unload of the package peft) and load what comes of it."
        )
    return (
        f"It holds a model and an adapter ({kind}, {ADAPTER}) as well, and whether the adapter is "
        f"to be used cannot be told. Move {ADAPTER} elsewhere to load the model without it, or "
        "merge the two (merge_and_unload of the package peft)."
    )


def _base_and_kind(folder: Path) -> tuple[str, str]:
    try:
        config = read_json(folder / ADAPTER)
    except IncompleteCheckpoint:  # it is one all the same
        config = None
    found = config if isinstance(config, Mapping) else {}
    base, kind = found.get("base_model_name_or_path"), found.get("peft_type")
    # A path would be one on its maker's machine.
    named = isinstance(base, str) and base and not PurePath(base).is_absolute()
    return f"{base}" if named else "another model", kind if isinstance(kind, str) else "LoRA"


def other_format(sizes: Collection[str]) -> str:
    """Why weights in another format are not taken; empty if there are none, or safetensors."""
    names = [file.lower() for file in sizes if not file.startswith(".")]
    if any(".safetensors" in name for name in names):
        return ""
    for endings, what in _FORMATS.items():
        if any(name.endswith(endings) and not name.startswith(_NO_WEIGHTS) for name in names):
            return what
    return ""


def other_numbers(config: Mapping[str, Any], sizes: Collection[str], weights: WeightFiles) -> str:
    """Why whole safetensors cannot be what their ``config.json`` says, or are numbers that nothing
    here can read; else empty."""
    if "mlx" in weights.formats or "bits" in _mapping(config.get("quantization")):
        return _MLX
    own = config.get("quantization_config")
    method = str(_mapping(own).get("quant_method", "")).lower()
    if not own and "hf_quant_config.json" in sizes:  # how ModelOpt's older releases say it
        method = "modelopt"
    if method in _METHODS:
        return (
            f"It is quantised with {_METHODS[method]} ({method}), which transformers cannot read. "
            f"{_ORIGINAL}"
        )
    others = {
        name: entry["dtype"]
        for name, entry in weights.tensors.items()
        if entry["dtype"] not in FLOATS
        and not name.startswith(NOT_LOADED)
        and not name.endswith(_COUNTERS)
    }
    if others and not own:
        name = min(others)
        return (
            f"Its weights are numbers of type {others[name]} (such as {name}), and config.json "
            f"has no quantization_config that says how to read them. {_ORIGINAL}"
        )
    if weights.tensors and not others and method in _PACKED and not _is_dense(_mapping(own)):
        return (
            f"Its config.json says that it is quantised ({method}), and its weights are plain "
            "numbers. Remove quantization_config from config.json if they are those of the "
            "original model, or download the checkpoint again."
        )
    return ""


def _is_dense(own: Mapping[str, Any]) -> bool:
    """Whether compressed-tensors left the weights as they were."""
    return own.get("format") in ("dense", "sparse-bitmask", "sparse-24-bitmask")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
