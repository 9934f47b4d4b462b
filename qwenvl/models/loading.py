"""Model loading: a checkpoint onto its devices, through transformers, with our patches applied."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import newer_format, transformers_version
from ..checkpoints.files import read_settings, readable_size
from ..checkpoints.integrity import require_weight_files
from ..errors import (
    IncompleteCheckpoint,
    QwenVLError,
    RemoteCodeRefused,
    Unavailable,
    UnsupportedModel,
)
from ..families import model_config
from ..types import Family, LocalSpec
from ..yarn import with_yarn
from .attention import pick_attention
from .device_map import balanced_device_map
from .devices import free_memory, least_capable, pick_devices
from .footprint import Weight, estimated_bytes, loaded_bytes
from .load_progress import Progress, load_with_progress
from .memory import is_out_of_memory
from .model_tensors import mapped_bytes, unmap
from .patches import apply_all
from .precision import pick_dtype
from .quantization import bitsandbytes_config, check_quantization
from .speech import load_whole

log = logging.getLogger(__name__)

_UNMAP_LIMIT = 0.8  # of the free RAM: mapped weights beyond it stay mapped


def load_model(
    path: Path,
    spec: LocalSpec,
    family: Family,
    progress: Progress | None = None,
    patched: bool = True,
    speaks: bool = False,
) -> Any:
    """Loads the model of the checkpoint ``path`` onto its devices, ready to generate; with all
    ``models.patches`` unless ``patched`` is False. ``speaks``: the whole model, with its speaking
    half around the one that writes (its ``thinker``); see ``speech.require_voice``.

    ``progress`` is called before each tensor and once at the end; what it raises, a host's
    interrupt too, ends loading at once, reaches the caller unchanged and leaves nothing in memory.

    Raises ``UnsupportedModel``, ``IncompleteCheckpoint``, ``Unavailable`` and ``BadOption``.
    """
    devices = pick_devices(spec.device)
    device = least_capable(devices)
    config = read_settings(path, "config.json")
    check_quantization(path, spec, config)
    cls = model_class(path, family)
    options = _load_options(spec, config, device, family)
    options["config"] = transformers_config(path, spec, family)
    if speaks:
        return _load_whole(path, family, options, progress)
    if len(devices) > 1:
        itemsize = pick_dtype(spec.precision, device).itemsize
        options["device_map"] = _device_map(cls, path, spec, family, options["config"], itemsize)
    model, report = load_with_progress(lambda: _from_pretrained(cls, path, options), progress, path)
    if missing := _needed(report["missing_keys"], family):
        raise _incomplete(path, missing)
    _drop_sampling_defaults(model)
    if patched:
        apply_all(model, device, path, family)
    if device.type == "cpu":
        _copy_into_ram(model, path)
    return model.eval()


def _load_whole(
    path: Path, family: Family, options: dict[str, Any], progress: Progress | None
) -> Any:
    """The whole model of a checkpoint that speaks, as it comes."""
    import transformers

    assert family.speech is not None
    cls = getattr(transformers, family.speech.transformers_class)
    config = cls.config_class.from_dict(read_settings(path, "config.json"))
    config.transformers_weights = options["config"].transformers_weights
    speech, options = family.speech, {**options, "config": config}
    model, report = load_with_progress(
        lambda: _as_loaded(path, lambda: load_whole(cls, path, speech, options)), progress, path
    )
    if report["missing_keys"]:
        raise _incomplete(path, report["missing_keys"])
    _drop_sampling_defaults(model.thinker)
    return model.eval()


def _load_options(
    spec: LocalSpec, config: Mapping[str, Any], device: torch.device, family: Family
) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that ``spec`` decides."""
    dtype = pick_dtype(spec.precision, device)
    options: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": pick_attention(spec.attention, device, dtype),
        "trust_remote_code": spec.trust_remote_code,
        "output_loading_info": True,
        "local_files_only": True,
        "use_safetensors": True,
    }
    is_quantized = bool(config.get("quantization_config"))
    if is_quantized:
        options["dtype"] = "auto" if spec.precision == "auto" else dtype
    elif spec.quantization != "none":
        options["quantization_config"] = bitsandbytes_config(spec.quantization, dtype, family)
    if is_quantized or spec.quantization != "none" or device.type != "cpu":
        # Straight to the device: weights that are quantised, converted or merged while they are
        # loaded are so where they stay, and never stand in RAM as well.
        options["device_map"] = {"": str(device)}
    return options


def _copy_into_ram(model: Any, path: Path) -> None:
    """On the CPU, weights in their own dtype are memory-mapped files. Where RAM suffices they are
    copied out: then nothing that happens to the files touches them."""
    import psutil

    mapped, free = mapped_bytes(model), psutil.virtual_memory().available
    if mapped < _UNMAP_LIMIT * free:
        unmap(model)
    else:
        log.warning(
            "%s: %s of its weights stay mapped files, since only %s of RAM are free. Do not change "
            "the files while the model is in use.",
            path.name,
            readable_size(mapped),
            readable_size(free),
        )


def check_runnable(path: Path, spec: LocalSpec, family: Family) -> None:
    """Raises ``RemoteCodeRefused`` or ``UnsupportedModel`` where loading could never work."""
    if family.is_original:
        if not spec.trust_remote_code:
            raise RemoteCodeRefused(
                f"{path.name} is an original Qwen-VL checkpoint: it runs only through Python code "
                "that comes with it, which was not allowed. Use Qwen2-VL or newer."
            )
        raise UnsupportedModel(
            f"The code that comes with {path.name} was written for transformers 4.32 and does not "
            f"run with {transformers_version.installed()}. Use Qwen2-VL or newer; replies of the "
            "original Qwen-VL can still be read with: python -m qwenvl parse --family qwen"
        )
    if transformers_version.is_older(family.since):
        raise UnsupportedModel(
            f"{family.title} needs transformers {family.since} or newer, and this is "
            f"{transformers_version.installed()}. Update it with: pip install -U transformers"
        )


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


def _is_auto(cls: Any) -> bool:
    """Whether ``cls`` is one of the Auto classes, which choose a class by the configuration."""
    return hasattr(cls, "from_config")


def _config_class(cls: Any, own: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    return type(AutoConfig.for_model(own["model_type"])) if _is_auto(cls) else cls.config_class


def transformers_config(path: Path, spec: LocalSpec, family: Family) -> Any:
    """transformers' configuration of the checkpoint ``path``, of ``family``. It names the file that
    the weights begin with: left to itself transformers takes ``model.safetensors`` wherever there
    is one, also where an index is meant. Raises ``UnsupportedModel`` and ``CheckpointError``, and
    ``BadOption`` as ``with_yarn``."""
    from transformers import AutoConfig

    cls, raw = model_class(path, family), read_settings(path, "config.json")
    entry = require_weight_files(path).entry
    own = with_yarn(model_config(raw, family), family, spec.yarn)
    try:
        is_new = transformers_version.is_older("5") and newer_format.has_release_5_names(raw)
        if is_new or family.config_section or spec.yarn != 1:
            own = newer_format.with_release_4_names(own) if is_new else own
            config = _config_class(cls, own).from_dict(own)
        else:
            config_class = AutoConfig if _is_auto(cls) else cls.config_class
            config = config_class.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=spec.trust_remote_code
            )
    except Exception as error:  # what a config can make the library raise has no common base
        raise _load_error(path, error) from error
    config.transformers_weights = entry
    return config


def _device_map(
    cls: Any, path: Path, spec: LocalSpec, family: Family, config: Any, itemsize: int
) -> dict[str, Any]:
    """A device map over all CUDA devices, by what is free on them now."""
    model = _without_weights(cls, spec, config)

    def nbytes(name: str, parameter: torch.nn.Parameter) -> int:
        weight = Weight(name, "F32", tuple(parameter.shape), parameter.nbytes)
        return loaded_bytes(weight, itemsize, spec.quantization, family)

    # Where the checkpoint is quantised already, its files know better than the shapes.
    total = sum(nbytes(*item) for item in model.named_parameters())
    scale = estimated_bytes(path, spec) / total
    return balanced_device_map(
        model, free_memory(), lambda name, parameter: scale * nbytes(name, parameter), family.towers
    )


def skeleton(spec: LocalSpec, family: Family) -> Any:
    """The model of ``spec`` without its weights, on the meta device: its modules, by the names and
    in the shapes that they have once it is loaded. Raises as ``transformers_config``."""
    path = Path(spec.checkpoint)
    return _without_weights(
        model_class(path, family), spec, transformers_config(path, spec, family)
    )


def _without_weights(cls: Any, spec: LocalSpec, config: Any) -> Any:
    options = {"trust_remote_code": spec.trust_remote_code}
    with torch.device("meta"):
        return cls.from_config(config, **options) if _is_auto(cls) else cls(config)


def _from_pretrained(cls: Any, path: Path, options: dict[str, Any]) -> Any:
    return _as_loaded(path, lambda: cls.from_pretrained(str(path), **options))


def _as_loaded(path: Path, read: Callable[[], Any]) -> Any:
    """What ``read`` gives; what it raises in the words of this engine."""
    try:
        return read()
    except QwenVLError:
        raise
    except Exception as error:  # what a checkpoint can make the library raise has no common base
        if is_out_of_memory(error):
            raise
        raise _load_error(path, error) from error


def _needed(missing_keys: set[str], family: Family) -> set[str]:
    """Those of ``missing_keys`` that a model of ``family`` cannot do without: an embedding model
    reads no words out of its hidden states, and is often stored without the head for them."""
    if family.retrieval is None or family.retrieval.kind != "embedding":
        return missing_keys
    return {key for key in missing_keys if not key.endswith("lm_head.weight")}


def _incomplete(path: Path, missing_keys: set[str]) -> QwenVLError:
    """What to raise where the checkpoint ``path`` lacks tensors."""
    installed = transformers_version.installed()
    if newer_format.is_newer(path, installed):
        return UnsupportedModel(newer_format.update_advice(path, installed))
    names = tuple(sorted(missing_keys))
    return IncompleteCheckpoint(
        f"{path.name} lacks {len(names)} tensors that its model needs "
        f"({', '.join(names[:3])}, ...), and would answer at random. Download it again.",
        names,
    )


def _load_error(path: Path, error: Exception) -> QwenVLError:
    """What to raise where transformers raised ``error`` over the checkpoint in ``path``."""
    installed = transformers_version.installed()
    if isinstance(error, ImportError):
        return Unavailable(f"{path.name} needs a package that is not installed: {error}")
    if newer_format.is_newer(path, installed):
        return UnsupportedModel(f"{newer_format.update_advice(path, installed)} ({error})")
    if isinstance(error, OSError):
        return IncompleteCheckpoint(f"{path.name} cannot be read: {error}")
    message = str(error)
    if "does not recognize this architecture" in message or "Unrecognized configuration" in message:
        return UnsupportedModel(
            f"transformers {installed} does not know the model type of {path.name}. Update it "
            "with: pip install -U transformers"
        )
    if isinstance(error, RuntimeError) and "size mismatch" not in message:
        # Such as quantised weights on a device that cannot compute them.
        return Unavailable(f"{path.name} cannot be loaded here: {message}")
    return UnsupportedModel(f"{path.name} cannot be loaded: {message}")


def _drop_sampling_defaults(model: Any) -> None:
    """Removes the checkpoint's sampling defaults: every request brings its own, and transformers
    fills unset values from here (a repetition penalty of 1.05, say) behind the caller's back."""
    from transformers import GenerationConfig

    old = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=old.bos_token_id, eos_token_id=old.eos_token_id, pad_token_id=old.pad_token_id
    )
