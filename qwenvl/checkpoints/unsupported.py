"""Unsupported checkpoints: adapters, weights in other formats, and quantised weights that nothing
here can read. Told from file names and settings; no weight is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

from ..errors import IncompleteCheckpoint
from ..families import weights_beside
from ..types import Family
from .files import read_json
from .integrity import WeightFiles
from .tensors import FLOAT_DTYPES

ADAPTER = "adapter_config.json"
_ORIGINAL = (
    "Download the original checkpoint; to save memory choose 4-bit or 8-bit quantization when "
    "loading."
)
# Formats by file suffix.
_FORMATS = {
    (".gguf",): (
        "Its weights are GGUF, which llama-server reads: choose the file in Qwen-VL GGUF, or on "
        f"the command line by --model. Here only safetensors are loaded. {_ORIGINAL}"
    ),
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
# Files that trainers leave beside the weights, by name prefix.
_TRAINER_FILES = (
    "training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states",
)  # fmt: skip
_MLX = f"Its weights are in MLX form, which only Apple's MLX reads. {_ORIGINAL}"
# Quantisation methods that transformers cannot read, or silently takes for plain weights.
_UNREADABLE_METHODS = {
    "modelopt": "NVIDIA ModelOpt",
    "exl2": "ExLlamaV2 (EXL2)",
    "exl3": "ExLlamaV3 (EXL3)",
    "nvfp4": "NVFP4",
    "svdquant": "SVDQuant",
    "mlx": "MLX",
}
# Quantisation methods whose weights are never plain floats.
_PACKED_METHODS = {
    "gptq", "awq", "bitsandbytes", "fp8", "fbgemm_fp8", "compressed-tensors", "auto-round",
    "mxfp4", "mxfp8", "aqlm", "vptq", "spqr", "eetq", "higgs",
}  # fmt: skip

WEIGHTS_ONLY = (
    " (It holds weights alone, as the text encoders of image generators are stored: the tokenizer "
    "and the picture processor are needed as well.)"
)


def is_weights_only(sizes: Collection[str], weights: WeightFiles) -> bool:
    """Whether a folder holds weights, and neither a tokenizer nor an image processor."""
    prefixes = ("tokenizer", "vocab", "merges", "preprocessor", "processor")
    return bool(weights.tensors) and not any(file.startswith(prefixes) for file in sizes)


def adapter_problem(folder: Path, sizes: Collection[str], weights: WeightFiles) -> str:
    """Why a folder with an adapter (LoRA) is not loaded; empty where there is none."""
    alone = not weights.files
    if ADAPTER not in sizes and not (alone and any(f.startswith("adapter_model.") for f in sizes)):
        return ""
    base, kind = _read_adapter(folder)
    if alone:
        return (
            f"It is an adapter ({kind}) for {base}, no model of its own. Choose that model, and "
            "put this on it with the Qwen-VL LoRA node (--lora on the command line)."
        )
    return (
        f"It holds a model and an adapter ({kind}, {ADAPTER}) as well, and whether the adapter is "
        f"to be used cannot be told. Move {ADAPTER} elsewhere to load the model without it, or "
        "merge the two (merge_and_unload of the package peft)."
    )


def _read_adapter(folder: Path) -> tuple[str, str]:
    """The base model of an adapter, and its kind."""
    try:
        config = read_json(folder / ADAPTER)
    except IncompleteCheckpoint:  # an adapter all the same
        config = None
    found = config if isinstance(config, Mapping) else {}
    base, kind = found.get("base_model_name_or_path"), found.get("peft_type")
    # An absolute path would be one on the machine where the adapter was trained.
    has_base = isinstance(base, str) and base and not PurePath(base).is_absolute()
    return f"{base}" if has_base else "another model", kind if isinstance(kind, str) else "LoRA"


def format_problem(sizes: Collection[str]) -> str:
    """Why weights in another format are not loaded; empty if there are none, or safetensors."""
    names = [file.lower() for file in sizes if not file.startswith(".")]
    if any(".safetensors" in name for name in names):
        return ""
    for suffixes, problem in _FORMATS.items():
        if any(name.endswith(suffixes) and not name.startswith(_TRAINER_FILES) for name in names):
            return problem
    return ""


def dtype_problem(
    config: Mapping[str, Any],
    sizes: Collection[str],
    weights: WeightFiles,
    family: Family,
) -> str:
    """Why whole safetensors contradict their ``config.json``, or are of a type or quantisation that
    nothing here can read; else empty."""
    if "mlx" in weights.formats or "bits" in _mapping(config.get("quantization")):
        return _MLX
    own = config.get("quantization_config")
    method = str(_mapping(own).get("quant_method", "")).lower()
    if not own and "hf_quant_config.json" in sizes:  # how older releases of ModelOpt mark it
        method = "modelopt"
    if method in _UNREADABLE_METHODS:
        return (
            f"It is quantised with {_UNREADABLE_METHODS[method]} ({method}), which transformers "
            f"cannot read. {_ORIGINAL}"
        )
    not_floats = {
        name: entry["dtype"]
        for name, entry in weights.tensors.items()
        if entry["dtype"] not in FLOAT_DTYPES
        and not name.startswith(weights_beside(family))
        and not name.endswith(family.buffers)
    }
    if not_floats and not own:
        name = min(not_floats)
        return (
            f"Its weights are numbers of type {not_floats[name]} (such as {name}), and config.json "
            f"has no quantization_config that says how to read them. {_ORIGINAL}"
        )
    is_plain = weights.tensors and not not_floats
    if is_plain and method in _PACKED_METHODS and not _is_dense(_mapping(own)):
        return (
            f"Its config.json says that it is quantised ({method}), and its weights are plain "
            "numbers. Remove quantization_config from config.json if they are those of the "
            "original model, or download the checkpoint again."
        )
    return ""


def _is_dense(own: Mapping[str, Any]) -> bool:
    """Whether compressed-tensors stored the weights unquantised."""
    return own.get("format") in ("dense", "sparse-bitmask", "sparse-24-bitmask")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
