"""Footprint: bytes that a model will occupy once it is loaded, from its files' headers alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.catalogue import CatalogueEntry
from ..checkpoints.files import read_settings
from ..checkpoints.integrity import require_weight_files
from ..checkpoints.tensors import FLOAT_DTYPES
from ..families import family_of, model_config, weights_beside
from ..types import Family, LocalSpec


@dataclass(frozen=True)
class Weight:
    """A tensor in a checkpoint. ``dtype``: as safetensors headers name it (``BF16``); ``nbytes``:
    on disk."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def copies(self) -> float:
        """Copies in memory: ``patch_embedding`` adds a sum over the frames."""
        frames = self.shape[2] if self.name.endswith("patch_embed.proj.weight") else 0
        return 1 + 1 / frames if frames else 1


def weights(path: Path, speaks: bool = False) -> Iterator[Weight]:
    """The tensors of the checkpoint ``path`` that a loaded model takes, without its MTP head;
    ``speaks``: with those of its speaking half.

    Raises ``IncompleteCheckpoint`` where a file is missing or cut off.
    """
    beside = () if speaks else weights_beside(family_of(read_settings(path, "config.json")))
    return (weight for weight in _tensors(path) if not weight.name.startswith(beside))


def _tensors(path: Path) -> Iterator[Weight]:
    for name, entry in require_weight_files(path).tensors.items():
        begin, end = entry["data_offsets"]
        yield Weight(name, entry["dtype"], tuple(entry["shape"]), end - begin)


def estimated_bytes(path: Path, spec: LocalSpec, speaks: bool = False) -> int:
    """Bytes that the weights of the checkpoint ``path`` will occupy, loaded as ``spec`` says;
    ``speaks``: with its speaking half.

    Buffers are left out, and copies that the CPU repacks. Raises ``IncompleteCheckpoint``
    where a file is missing or cut off, and as for loading ``BadOption`` and ``Unavailable``.
    """
    from .devices import SPLIT, pick_device
    from .precision import pick_dtype

    itemsize = pick_dtype(spec.precision, pick_device(spec.device)).itemsize
    config = read_settings(path, "config.json")
    family = family_of(config)
    tied, mtp_bytes = _is_tied(model_config(config, family)), 0
    if family.mtp_prefix and spec.device != SPLIT:
        parts = [weight for weight in _tensors(path) if weight.name.startswith(family.mtp_prefix)]
        if all(weight.dtype in FLOAT_DTYPES for weight in parts):  # others are not used
            mtp_bytes = sum(weight.numel * itemsize for weight in parts)
    return mtp_bytes + sum(
        int(weight.copies * weight.nbytes)
        if config.get("quantization_config")
        else loaded_bytes(weight, itemsize, spec.quantization, family)
        for weight in weights(path, speaks)
        if not (tied and weight.name.endswith("lm_head.weight"))
    )


def expected_bytes(entry: CatalogueEntry, spec: LocalSpec) -> int:
    """About what the weights of a catalogue entry will occupy once it is here, loaded as ``spec``
    says: within a tenth for the dense editions, too much for Omni models, whose speaking half is
    not loaded. Raises as ``estimated_bytes`` for ``BadOption`` and ``Unavailable``."""
    from .devices import pick_device
    from .precision import pick_dtype

    itemsize = pick_dtype(spec.precision, pick_device(spec.device)).itemsize
    if entry.name.endswith("-FP8"):
        return entry.nbytes
    parameters = entry.nbytes / 2  # the catalogue counts bf16
    # Not quantised: the vision tower and the embeddings, which small models share with lm_head.
    whole = min(parameters / 2, 0.75e9 if parameters < 6e9 else 2e9)
    each = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}.get(spec.quantization, float(itemsize))
    return round(whole * itemsize + (parameters - whole) * each)


def _is_tied(config: Mapping[str, Any]) -> bool:
    """Whether ``lm_head`` shares the embeddings' weight by a model's own ``config``, whatever the
    file holds."""
    text = config.get("text_config") or {}
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))


def loaded_bytes(weight: Weight, itemsize: int, quantization: str, family: Family) -> int:
    """Bytes of ``weight`` of a model of ``family`` once it is loaded. ``itemsize``: bytes of a
    number that is not quantised; ``quantization``: as in ``LocalSpec``."""
    if weight.dtype not in FLOAT_DTYPES:
        return weight.nbytes
    linear = weight.name.endswith(".weight") and len(weight.shape) == 2
    if not linear or not set(weight.name.split(".")).isdisjoint(family.kept_whole):
        return int(weight.copies * weight.numel) * itemsize
    if quantization == "8bit":  # one byte each, and a scale in float32 for every row
        return weight.numel + 4 * weight.shape[0]
    if quantization == "4bit":  # half a byte each, a scale for every 64, a table of 16 values
        return -(-weight.numel // 2) + 4 * -(-weight.numel // 64) + 4 * 16
    return weight.numel * itemsize
