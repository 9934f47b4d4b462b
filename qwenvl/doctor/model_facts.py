"""Model facts: what is examined, in numbers of its configuration. Its folder's name is the user's
own, so a checkpoint is named only if it has the name of a public one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends.base import Backend
from ..checkpoints.adapters import read_adapter
from ..checkpoints.catalogue import CATALOGUE
from ..checkpoints.library import BUNDLED, BUNDLED_NAME
from ..families import is_default
from ..fine_tunes import by_name
from ..types import Adapter, LocalSpec, Spec
from .coordinate_fit import space_of
from .fast_paths import attention_reason

if TYPE_CHECKING:
    import torch

    from ..backends.local import LocalBackend


def public_name(checkpoint: str) -> str | None:
    """The name of a checkpoint that everybody has: the bundled one, or one of the catalogue."""
    path = Path(checkpoint)
    if path.resolve() == BUNDLED:
        return BUNDLED_NAME
    return next((repo for repo in CATALOGUE if repo.split("/")[1] == path.name), None)


def model_facts(backend: Backend, spec: Spec) -> dict[str, Any]:
    """Of any backend: family and coordinates. Of a loaded local one also its size, device, number
    type, attention and adapters."""
    family, fine_tune = backend.family, by_name(spec.name)
    facts: dict[str, Any] = {
        "name": public_name(spec.checkpoint if isinstance(spec, LocalSpec) else spec.name),
        "family": family.title,
        "model_type": family.model_type,
        "fine_tune": fine_tune.title if fine_tune else None,
        "known_family": not is_default(family),
        "coordinates": space_of(family) if family.sees else None,
        "max_pixels": backend.max_pixels,
    }
    loaded = loaded_model(backend)
    if loaded and isinstance(spec, LocalSpec):
        facts |= _loaded_facts(loaded, spec)
    return facts


def loaded_model(backend: Backend) -> LocalBackend | None:
    """The model whose weights are in this process, without the adapters on it; None where they are
    elsewhere."""
    from ..backends.adapted import AdaptedBackend
    from ..backends.local import LocalBackend

    found = backend.base if isinstance(backend, AdaptedBackend) else backend
    return found if isinstance(found, LocalBackend) and found.model is not None else None


def _loaded_facts(backend: LocalBackend, spec: LocalSpec) -> dict[str, Any]:
    from ..models.devices import least_capable

    model = backend.model
    text = model.config.get_text_config()
    dtype = model.get_decoder().norm.weight.dtype
    devices = list(backend.weights.shares)
    return {
        "layers": text.num_hidden_layers,
        "hidden_size": text.hidden_size,
        "bytes": backend.nbytes,
        "devices": [str(device) for device in devices],
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": _quantization(model.config, spec),
        "attention": text._attn_implementation,
        "attention_reason": attention_reason(spec, least_capable(devices), dtype),
        "peak_bytes": _peak_bytes(devices),
        "adapters": [_adapter_facts(adapter) for adapter in spec.adapters],
    }


def _peak_bytes(devices: Sequence[torch.device]) -> int | None:
    """The most that torch held on these CUDA devices together; None on others."""
    import torch

    if any(device.type != "cuda" for device in devices):
        return None
    return sum(torch.cuda.max_memory_allocated(device) for device in devices)


def _adapter_facts(adapter: Adapter) -> dict[str, Any]:
    found = read_adapter(Path(adapter.path))
    return {
        "rank": found.config.get("r"),
        "strength": adapter.strength,
        "bytes": found.nbytes,
    }


def _quantization(config: Any, spec: LocalSpec) -> str:
    """As asked for, or else the method that the checkpoint was saved in."""
    own = getattr(config, "quantization_config", None)
    if own is None or spec.quantization != "none":
        return spec.quantization
    method = own.get("quant_method") if isinstance(own, dict) else own.quant_method
    return str(getattr(method, "value", method))
