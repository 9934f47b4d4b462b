"""Quantization: 8-bit and 4-bit weights by bitsandbytes, and checkpoints quantised already."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import transformers_version
from ..errors import BadOption, Unavailable, UnsupportedModel
from ..families import family_of, model_config
from ..types import Family, LocalSpec

QUANTIZATIONS = ("none", "8bit", "4bit")
# Packages that transformers 5 reads weights of these methods with, as pip names them.
_PACKAGES = {
    "awq": ("gptqmodel", "accelerate"),
    "gptq": ("optimum", "gptqmodel"),
    "compressed-tensors": ("compressed-tensors",),
    "auto-round": ("auto-round",),
}


def check_quantization(path: Path, spec: LocalSpec, config: Mapping[str, Any]) -> None:
    """Raises ``BadOption``, ``Unavailable`` or ``UnsupportedModel`` where the checkpoint ``path``
    with this ``config.json`` cannot be loaded in ``spec.quantization`` here."""
    quantization = spec.quantization
    if quantization not in QUANTIZATIONS:
        raise BadOption(f"quantization is {quantization!r}; use one of {', '.join(QUANTIZATIONS)}.")
    if own := config.get("quantization_config"):
        _check_own_quantization(own, spec)
        _refuse_a_part(path, config)
    elif quantization != "none":
        _refuse_experts(path, spec, config)
        if not _installed("bitsandbytes") or not _installed("accelerate"):
            raise Unavailable(
                f"{quantization} was asked for, but the packages bitsandbytes and accelerate are "
                "not both installed. Install them with: pip install bitsandbytes accelerate"
            )


def bitsandbytes_config(quantization: str, dtype: torch.dtype, family: Family) -> Any:
    """transformers' ``quantization_config`` for ``8bit`` or ``4bit``; 4-bit weights compute in
    ``dtype``. What ``family.kept_whole`` names stays as it is: quantising the vision tower costs
    detail of the pictures and saves little, since it is a small share."""
    from transformers import BitsAndBytesConfig

    # A name is matched from the beginning, and releases differ in where the modules lie.
    kept = [form for name in family.kept_whole for form in (f"model.{name}", name)]
    if family.speech:  # of the whole model
        inside = family.config_section.removesuffix("_config")
        kept += [f"{inside}.{form}" for form in kept]
        kept += [half.rstrip(".") for half in family.not_loaded]
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def allow_packing(model: torch.nn.Module, allowed: bool) -> None:
    """Whether bitsandbytes may pack 4-bit weights of ``model`` anew, as it does at their first use
    on a processor with AVX512-BF16. What reads them by another way than their layer then gets wrong
    ones: ``dequantize_4bit``, and ``state_dict``, whose way back mixes up their scales. Those that
    are packed are unpacked here where that is not allowed."""
    for module in model.modules():
        if hasattr(module, _PACKS):
            if not allowed:
                _unpack(module.weight)
            setattr(module, _PACKS, allowed and _packs_here())


_PACKS = "support_avx512bf16_for_cpu"
"""Of a layer of bitsandbytes that packs its weights anew on such a processor."""


def _packs_here() -> bool:
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def _unpack(weight: Any) -> None:
    state = weight.quant_state
    if not getattr(state, "packing_format_for_cpu", False):
        return
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    state.original_nested = False  # the scales are whole, and need no rounding again
    weight.data, state = _convert_weight_packed_for_cpu_inverse(weight.data, state)
    if state.absmax.ndim == 2:  # transposed, as it was packed
        state.absmax = state.absmax.T.reshape(-1)
    state.absmax = state.absmax.float()
    weight.quant_state = state


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _refuse_experts(path: Path, spec: LocalSpec, config: Mapping[str, Any]) -> None:
    """bitsandbytes replaces linear layers; the experts, nearly all of a mixture's weights, are
    plain tensors and would silently stay as large as they are."""
    own = model_config(config, family_of(config))
    text = own.get("text_config", own)
    # Newer releases write the number under a name of their own.
    names = ("num_experts", "num_local_experts")
    if isinstance(text, Mapping) and any(text.get(name) for name in names):
        raise Unavailable(
            f"{path.name} is a mixture of experts, and bitsandbytes cannot quantise experts: in "
            f"{spec.quantization} it would need nearly as much memory as without. Set quantization "
            "to none and choose the model's FP8 edition, or a dense model."
        )


def _refuse_a_part(path: Path, config: Mapping[str, Any]) -> None:
    """A quantised Omni model says how it is quantised as a whole. Its thinker alone would be loaded
    as if it were not, and packed weights be taken for plain ones."""
    family = family_of(config)
    if "quantization_config" not in model_config(config, family):
        raise UnsupportedModel(
            f"{path.name} is a quantised {family.title}, of which a part cannot be loaded by "
            "itself. Choose the unquantised checkpoint."
        )


def _check_own_quantization(own: Any, spec: LocalSpec) -> None:
    """``own``: the ``quantization_config`` in the checkpoint's ``config.json``."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    name = Path(spec.checkpoint).name
    method = str(own.get("quant_method")) if isinstance(own, Mapping) else repr(own)
    if spec.quantization != "none":
        raise BadOption(
            f"{name} is quantised already ({method}); it cannot be loaded in {spec.quantization} "
            "on top. Set quantization to none."
        )
    # transformers only warns of a method it does not know, and takes packed weights for plain.
    if method not in AUTO_QUANTIZATION_CONFIG_MAPPING and method != "bitsandbytes":
        raise UnsupportedModel(
            f"{name} is quantised with {method!r}, which transformers "
            f"{transformers_version.installed()} cannot read. Update transformers, or choose the "
            "unquantised checkpoint with 4bit."
        )
    packages = () if transformers_version.is_older("5") else _PACKAGES.get(method, ())
    if missing := [package for package in packages if not _installed(package.replace("-", "_"))]:
        raise Unavailable(
            f"{name} is quantised with {method}, which cannot be read without "
            f"{' and '.join(missing)}. Install them with: pip install {' '.join(missing)}"
        )
