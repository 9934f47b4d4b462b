"""Memory management by ComfyUI: its ``ModelPatcher`` interface over the engine's ``Weights``.

ComfyUI keeps a list of loaded models, each behind a ``ModelPatcher``, and evicts them from a device
when another model needs the room. Ours are always evicted whole: quantised weights cannot be moved
layer by layer.
"""

from __future__ import annotations

import gc
import logging
import weakref
from functools import cache
from typing import Any

import torch

from ...qwenvl.models.load_progress import Progress
from ...qwenvl.models.memory import Memory
from ...qwenvl.models.weights import Weights
from .optional_import import optional_import

log = logging.getLogger(__name__)


def manager() -> Memory | None:
    """ComfyUI as a memory manager; None outside a ComfyUI that manages memory."""
    management, patcher = (
        optional_import("comfy.model_management"),
        optional_import("comfy.model_patcher"),
    )
    is_complete = hasattr(management, "load_models_gpu") and hasattr(
        getattr(patcher, "ModelPatcher", None), "loaded_size"
    )
    return ComfyMemory(management) if is_complete else None


class ComfyMemory(Memory):
    """Memory manager that has ComfyUI load and evict models."""

    def __init__(self, management: Any):
        self._management = management
        self._patchers: weakref.WeakKeyDictionary[Weights, list[Any]] = weakref.WeakKeyDictionary()

    def bring(self, weights: Weights, work: int, progress: Progress | None = None) -> None:
        patchers = self._patchers_of(weights)
        for patcher in patchers:
            patcher.progress = progress
        try:
            # Loads what is not loaded, after evicting others to make room for it and the work.
            self._management.load_models_gpu(patchers, memory_required=work, force_full_load=True)
        finally:
            for patcher in patchers:
                patcher.progress = None

    def free(self, device: torch.device) -> int:
        free = int(self._management.get_free_memory(device))
        # ComfyUI ignores the memory limits of containers.
        return min(free, super().free(device)) if device.type == "cpu" else free

    def evict_others(self, weights: Weights) -> None:
        gc.collect()
        patchers = self._patchers_of(weights)
        loaded = self._management.current_loaded_models
        keep = [item for item in loaded if item.model in patchers]
        for device in weights.shares:
            if device.type != "cpu":
                self._management.free_memory(1e30, device, keep_loaded=keep)
        self.empty_cache()

    def empty_cache(self) -> None:
        self._management.soft_empty_cache()

    def forget(self, weights: Weights) -> None:
        # ComfyUI itself notices that its weak reference is gone.
        self._patchers.pop(weights, None)

    def _patchers_of(self, weights: Weights) -> list[Any]:
        """One patcher for each device that holds a share, in the order of the shares."""
        patchers = self._patchers.get(weights, [])
        if [patcher.load_device for patcher in patchers] != list(weights.shares):
            patchers = [_patcher_class()(weights, device) for device in weights.shares]
            self._patchers[weights] = patchers
        return patchers


class QwenVL(torch.nn.Module):
    """Placeholder module that ComfyUI takes for the model and names in its log. The weights belong
    to the engine; it holds them weakly so as not to keep them alive."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.weights = weakref.ref(weights)
        self.device = weights.device  # read by the constructor of ComfyUI's patcher


@cache
def _patcher_class() -> type:
    """Created on first use: the base class is ComfyUI's."""
    base: Any = optional_import("comfy.model_patcher", "ModelPatcher")
    management = optional_import("comfy.model_management")

    class WeightsPatcher(base):
        """The share of a model on one device, for ComfyUI to load and to evict."""

        def __init__(self, weights: Weights, device: torch.device):
            # As for text encoders: RAM, or the device itself with --gpu-only.
            offload = management.text_encoder_offload_device()
            super().__init__(QwenVL(weights), device, offload, size=1)
            self.progress: Progress | None = None

        @property
        def weights(self) -> Weights | None:
            return self.model.weights()

        def model_size(self) -> int:
            """Bytes of the share, and of what is offloaded with it, such as the prefix cache."""
            weights = self.weights
            if weights is None:
                return 0
            attached = weights.attached_bytes if self.load_device == weights.device else 0
            return weights.shares.get(self.load_device, 0) + attached

        def loaded_size(self) -> int:
            is_loaded = self.weights is not None and self.weights.place == "device"
            return self.model_size() if is_loaded else 0

        def current_loaded_device(self) -> torch.device:
            return self.load_device if self.loaded_size() else self.offload_device

        def partially_load(self, device_to: Any, extra_memory: Any = 0, **_: Any) -> int:
            """Loads the whole model."""
            before = self.loaded_size()
            if self.weights is not None:
                self.weights.load(self.progress)
            return self.loaded_size() - before

        def partially_unload(self, device_to: Any, memory_to_free: Any = 0, **_: Any) -> int:
            """Frees nothing: ComfyUI then evicts the whole model by ``detach``."""
            return 0

        def patch_model(self, *_: Any, **__: Any) -> Any:
            return self.model

        def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
            """Offloads the weights to RAM; releases them where ComfyUI has no other device for a
            model (it runs on the CPU, or was started with --gpu-only) or RAM is short."""
            weights = self.weights
            if not unpatch_weights or weights is None:
                return
            ram = management.get_free_memory(torch.device("cpu"))
            if self.offload_device == self.load_device or ram < weights.size:
                weights.release()
            else:
                weights.offload()

    return WeightsPatcher


def is_loaded(patcher: Any) -> bool:
    """Whether ComfyUI has the weights of a model of its own, of which ``patcher`` is one of perhaps
    several, on their device."""
    management = optional_import("comfy.model_management")
    loaded = getattr(management, "current_loaded_models", [])
    return any(_is_of(item, patcher) for item in loaded)


def make_room(patcher: Any, work: int) -> None:
    """Has ComfyUI bring the weights of a model of its own to their device with ``work`` bytes
    beside them, moving other models out for it; its own text generation asks for none."""
    if load := optional_import("comfy.model_management", "load_models_gpu"):
        load([patcher], memory_required=work)


def unload(patcher: Any) -> None:
    """Has ComfyUI take the weights of a model of its own off their device, as it does to make
    room."""
    management = optional_import("comfy.model_management")
    if management is None or not is_loaded(patcher):
        return
    keep = [item for item in management.current_loaded_models if not _is_of(item, patcher)]
    management.free_memory(1e30, patcher.load_device, keep_loaded=keep)
    empty_cache()


def empty_cache() -> None:
    """Gives back device memory that torch holds unused, as ComfyUI does."""
    if empty := optional_import("comfy.model_management", "soft_empty_cache"):
        empty()


def _is_of(loaded: Any, patcher: Any) -> bool:
    return loaded.model is not None and loaded.model.model is patcher.model
