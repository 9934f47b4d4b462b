"""Weights and tokenizers into memory: which class, which type, which attention, which device.

transformers is imported here and in few other files (see tests/engine/test_layering.py), always
inside functions.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import newer_format
from ..checkpoints.files import read_settings, readable_size
from ..checkpoints.integrity import require_weight_files
from ..errors import (
    BadOption,
    IncompleteCheckpoint,
    QwenVLError,
    RemoteCodeRefused,
    Unavailable,
    UnsupportedModel,
)
from ..types import Family, LocalSpec
from .device_map import balanced_device_map
from .devices import PRECISIONS as PRECISIONS
from .devices import free_memory, least_capable, mapped_bytes, pick_devices, pick_dtype, unmap
from .footprint import Weight, estimated_bytes, loaded_bytes
from .garbage_collection import paused
from .load_progress import Progress, load_with_progress
from .memory import is_out_of_memory
from .patches import linears, mtp_head, norms, patch_embedding

log = logging.getLogger(__name__)

QUANTIZATIONS = ("none", "8bit", "4bit")
ATTENTIONS = (
    "auto",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
    "eager",
)
_FLASH_PACKAGES = {
    "flash_attention_2": "flash_attn",
    "flash_attention_3": "flash_attn_interface",
    "flash_attention_4": "flash_attn.cute",
}
# Quantising the vision tower costs pictures' detail and saves little: it is a small share.
_ROOM = 0.8  # of the free RAM may be filled with what could stay mapped
_KEPT_WHOLE = ["model.visual", "visual", "lm_head"]


@paused()
def load_model(
    path: Path, spec: LocalSpec, family: Family, progress: Progress | None = None
) -> Any:
    """The model of ``path`` on its device, ready to generate.

    ``progress`` is called before each tensor and once at the end; what it raises, a host's
    interrupt too, ends loading at once, reaches the caller unchanged and leaves nothing in memory.

    Raises ``UnsupportedModel``, ``IncompleteCheckpoint``, ``Unavailable`` and ``BadOption``.
    """
    devices = pick_devices(spec.device)
    device = least_capable(devices)
    dtype = pick_dtype(spec.precision, device)
    config = read_settings(path, "config.json")
    own = config.get("quantization_config")
    check_quantization(path, spec, config)
    options: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": pick_attention(spec.attention, device, dtype),
        "trust_remote_code": spec.trust_remote_code,
        "output_loading_info": True,
        "local_files_only": True,
        "use_safetensors": True,
    }
    if own:
        options["dtype"] = "auto" if spec.precision == "auto" else dtype
    elif spec.quantization != "none":
        options["quantization_config"] = _bitsandbytes(spec.quantization, dtype)
    if own or spec.quantization != "none" or device.type != "cpu":
        # Straight to the device: weights that are quantised, converted or merged while they are
        # loaded are so where they stay, and never stand in RAM as well.
        options["device_map"] = {"": str(device)}
    cls = model_class(path, family)
    options["config"] = _model_config(cls, path, config, spec.trust_remote_code)
    if len(devices) > 1:
        options["device_map"] = _split(cls, path, spec, options["config"], dtype.itemsize)
    model, report = load_with_progress(lambda: _from_pretrained(cls, path, options), progress, path)
    if report["missing_keys"]:
        if newer_format.is_newer(path, _transformers_version()):
            raise UnsupportedModel(newer_format.update_advice(path, _transformers_version()))
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise IncompleteCheckpoint(
            f"{path.name} lacks {len(report['missing_keys'])} tensors that its model needs "
            f"({some}, ...), and would answer at random. Download it again.",
            tuple(sorted(report["missing_keys"])),
        )
    _own_defaults_only(model)
    patch_embedding.apply(model)
    if norms.applies(device):
        norms.apply(model)
    mtp_head.apply(model, path)
    if device.type == "cpu":
        _into_memory(model, path)
        linears.apply(model)
    return model.eval()


def _into_memory(model: Any, path: Path) -> None:
    """On a processor, weights in their own type are mapped files. They get memory of their own,
    where there is enough of it: then nothing that happens to the files touches them."""
    import psutil

    mapped, free = mapped_bytes(model), psutil.virtual_memory().available
    if mapped < _ROOM * free:
        unmap(model)
    else:
        log.warning(
            "%s: %s of its weights stay mapped files, since only %s of RAM are free. Do not change "
            "the files while the model is in use.",
            path.name,
            readable_size(mapped),
            readable_size(free),
        )


@paused()
def load_tokenizer(path: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer in ``path``. Raises ``IncompleteCheckpoint`` where it cannot be read."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        reader: Any = AutoTokenizer
        if is_older("5"):
            options |= newer_format.tokenizer_options(path)
            if newer_format.has_generic_tokenizer(path):
                reader = PreTrainedTokenizerFast
        return reader.from_pretrained(str(path), **options)
    except Exception as error:  # the tokenizers library raises nothing narrower
        if newer_format.is_newer(path, _transformers_version()):
            told = newer_format.update_advice(path, _transformers_version())
            raise UnsupportedModel(f"{told} ({error})") from error
        raise IncompleteCheckpoint(
            f"The tokenizer of {path.name} cannot be read ({error}). Download tokenizer.json and "
            "tokenizer_config.json again.",
            ("tokenizer.json",),
        ) from error


def pick_attention(wish: str, device: torch.device, dtype: torch.dtype) -> str:
    """``auto``: flash attention 2 where it is installed and can run, eager on MPS (sdpa fails
    there with these models), else sdpa. Raises ``Unavailable`` for a wish that cannot be met."""
    if wish not in ATTENTIONS:
        raise BadOption(f"attention is {wish!r}; use one of {', '.join(ATTENTIONS)}.")
    if wish == "auto":
        if device.type == "mps":
            return "eager"
        return "sdpa" if _flash_problem("flash_attention_2", device, dtype) else "flash_attention_2"
    if wish in _FLASH_PACKAGES and (problem := _flash_problem(wish, device, dtype)):
        raise Unavailable(f"{wish} was asked for, but {problem}. Choose auto or sdpa.")
    return wish


def _flash_problem(name: str, device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda":
        return f"it runs on CUDA devices only, and the model goes to {device.type}"
    least = (9, 0) if name != "flash_attention_2" else (8, 0)
    if torch.cuda.get_device_capability(device) < least:
        return f"it needs compute capability {least[0]}.{least[1]} or newer"
    if dtype not in (torch.bfloat16, torch.float16):
        return "it computes in bf16 or fp16 only"
    try:
        # A build for another torch is found like any other and fails only here.
        importlib.import_module(_FLASH_PACKAGES[name])
    except Exception as error:
        return f"its package cannot be imported ({error})"
    if name == "flash_attention_2":
        from transformers.utils import is_flash_attn_2_available

        if not is_flash_attn_2_available():
            return "transformers finds the installed flash_attn too old"
    return ""


@paused()
def check_runnable(path: Path, spec: LocalSpec, family: Family) -> None:
    """Raises ``RemoteCodeRefused`` or ``UnsupportedModel`` where loading could never work."""
    if family.model_type == "qwen":
        if not spec.trust_remote_code:
            raise RemoteCodeRefused(
                f"{path.name} is an original Qwen-VL checkpoint: it runs only through Python code "
                "that comes with it, which was not allowed. Use Qwen2-VL or newer."
            )
        raise UnsupportedModel(
            f"The code that comes with {path.name} was written for transformers 4.32 and does not "
            f"run with {_transformers_version()}. Use Qwen2-VL or newer; replies of the original "
            "Qwen-VL can still be read with: python -m qwenvl parse --family qwen"
        )
    if is_older(family.since):
        raise UnsupportedModel(
            f"{family.title} needs transformers {family.since} or newer, and this is "
            f"{_transformers_version()}. Update it with: pip install -U transformers"
        )


def check_quantization(path: Path, spec: LocalSpec, config: Mapping[str, Any]) -> None:
    """Raises ``BadOption``, ``Unavailable`` or ``UnsupportedModel`` where the checkpoint ``path``
    with this ``config.json`` cannot be loaded in ``spec.quantization`` here."""
    wish = spec.quantization
    if wish not in QUANTIZATIONS:
        raise BadOption(f"quantization is {wish!r}; use one of {', '.join(QUANTIZATIONS)}.")
    if own := config.get("quantization_config"):
        _check_own_quantization(own, spec)
    elif wish != "none":
        _refuse_experts(path, spec, config)
        if not _installed("bitsandbytes") or not _installed("accelerate"):
            raise Unavailable(
                f"{wish} was asked for, but the packages bitsandbytes and accelerate are not both "
                "installed. Install them with: pip install bitsandbytes accelerate"
            )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def is_older(version: str) -> bool:
    """Whether the installed transformers is older than ``version``."""
    from packaging.version import Version

    return Version(_transformers_version()).release < Version(version).release


def _transformers_version() -> str:
    import transformers

    return transformers.__version__


def model_class(path: Path, family: Family) -> Any:
    """The class in transformers that loads ``path``. Raises ``UnsupportedModel`` where this
    release has none."""
    import transformers

    name = family.transformers_class or "AutoModelForImageTextToText"
    if not hasattr(transformers, name):
        raise UnsupportedModel(
            f"{path.name} needs {name}, which transformers "
            f"{transformers.__version__} lacks. Update transformers."
        )
    return getattr(transformers, name)


def _model_config(cls: Any, path: Path, found: Mapping[str, Any], code: bool) -> Any:
    """The configuration that ``cls`` is to load ``path`` with, ``found`` being the parsed
    ``config.json``. It names the file that the weights begin with: left to itself transformers
    takes ``model.safetensors`` wherever there is one, also where an index is meant."""
    from transformers import AutoConfig

    entry = require_weight_files(path).entry
    # The Auto classes take the whole configuration; others (Omni's) only their own part of it.
    auto = hasattr(cls, "from_config")
    try:
        if is_older("5") and newer_format.has_release_5_names(found):
            old = newer_format.with_release_4_names(found)
            own = type(AutoConfig.for_model(old["model_type"])) if auto else cls.config_class
            config = own.from_dict(old if auto else old["thinker_config"])
        else:
            reader = AutoConfig if auto else cls.config_class
            config = reader.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=code
            )
    except Exception as error:  # what a config can make the library raise has no common base
        raise _unreadable(path, error) from error
    config.transformers_weights = entry
    return config


def _split(cls: Any, path: Path, spec: LocalSpec, config: Any, itemsize: int) -> dict[str, Any]:
    """A device map over all CUDA devices, by what is free on them now."""
    auto = hasattr(cls, "from_config")
    code = {"trust_remote_code": spec.trust_remote_code}
    with torch.device("meta"):
        model = cls.from_config(config, **code) if auto else cls(config)

    def size(name: str, weight: torch.nn.Parameter) -> int:
        kind = Weight(name, "F32", tuple(weight.shape), weight.nbytes)
        return loaded_bytes(kind, itemsize, spec.quantization)

    # Where the checkpoint is quantised by its makers, the files know better than the shapes.
    whole = sum(size(*item) for item in model.named_parameters())
    share = estimated_bytes(path, spec) / whole
    return balanced_device_map(
        model, free_memory(), lambda name, weight: share * size(name, weight)
    )


def _from_pretrained(cls: Any, path: Path, options: dict[str, Any]) -> Any:
    try:
        return cls.from_pretrained(str(path), **options)
    except Exception as error:  # what a checkpoint can make the library raise has no common base
        if is_out_of_memory(error):
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> QwenVLError:
    """What to raise where transformers raised ``error`` over the checkpoint in ``path``."""
    installed = _transformers_version()
    if isinstance(error, ImportError):
        return Unavailable(f"{path.name} needs a package that is not installed: {error}")
    if newer_format.is_newer(path, installed):
        return UnsupportedModel(f"{newer_format.update_advice(path, installed)} ({error})")
    if isinstance(error, OSError):
        return IncompleteCheckpoint(f"{path.name} cannot be read: {error}")
    told = str(error)
    if "does not recognize this architecture" in told or "Unrecognized configuration" in told:
        return UnsupportedModel(
            f"transformers {installed} does not know the model type of {path.name} as one that "
            "takes pictures. Update it with: pip install -U transformers"
        )
    if isinstance(error, RuntimeError) and "size mismatch" not in told:
        # Such as quantised weights on a device that cannot compute them.
        return Unavailable(f"{path.name} cannot be loaded here: {told}")
    return UnsupportedModel(f"{path.name} cannot be loaded: {told}")


def _refuse_experts(path: Path, spec: LocalSpec, config: Mapping[str, Any]) -> None:
    """bitsandbytes replaces linear layers; the experts, nearly all of a mixture's weights, are
    plain tensors and would silently stay as large as they are."""
    text = config.get("text_config")
    # Newer releases write the number under a name of their own.
    names = ("num_experts", "num_local_experts")
    if isinstance(text, Mapping) and any(text.get(name) for name in names):
        raise Unavailable(
            f"{path.name} is a mixture of experts, and bitsandbytes cannot quantise experts: in "
            f"{spec.quantization} it would need nearly as much memory as without. Set quantization "
            "to none and choose the model's FP8 edition, or a dense model."
        )


def _bitsandbytes(quantization: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_KEPT_WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_KEPT_WHOLE,
    )


def _check_own_quantization(own: Any, spec: LocalSpec) -> None:
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
            f"{name} is quantised with {method!r}, which transformers {_transformers_version()} "
            "cannot read. Update transformers, or choose the unquantised checkpoint with 4bit."
        )


def _own_defaults_only(model: Any) -> None:
    """Drops the checkpoint's sampling defaults: every row brings its own, and transformers fills
    unset values from here (a repetition penalty of 1.05, say) behind the caller's back."""
    from transformers import GenerationConfig

    old = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=old.bos_token_id, eos_token_id=old.eos_token_id, pad_token_id=old.pad_token_id
    )
