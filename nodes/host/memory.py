"""Our models in ComfyUI's own memory management.

ComfyUI keeps a list of loaded models, each behind a ``ModelPatcher``, and moves them out of a
device's memory when another one needs the room. Behind each of ours stands a ``Weights`` of the
engine. A model goes as a whole or not at all: quantised weights cannot be moved layer by layer.
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
    """Room as ComfyUI gives it; None outside a ComfyUI that manages memory."""
    management, patcher = (
        optional_import("comfy.model_management"),
        optional_import("comfy.model_patcher"),
    )
    whole = hasattr(management, "load_models_gpu") and hasattr(
        getattr(patcher, "ModelPatcher", None), "loaded_size"
    )
    return ComfyMemory(management) if whole else None


class ComfyMemory(Memory):
    """Asks ComfyUI for room, and is asked by it."""

    def __init__(self, management: Any):
        self._management = management
        self._patchers: weakref.WeakKeyDictionary[Weights, list[Any]] = weakref.WeakKeyDictionary()

    def bring(self, weights: Weights, work: int, progress: Progress | None = None) -> None:
        patchers = self._of(weights)
        for patcher in patchers:
            patcher.progress = progress
        try:
            # Loads what is not there, after moving others out to make room for it and the work.
            self._management.load_models_gpu(patchers, memory_required=work, force_full_load=True)
        finally:
            for patcher in patchers:
                patcher.progress = None

    def free(self, device: torch.device) -> int:
        free = int(self._management.get_free_memory(device))
        # ComfyUI does not look at the limits of containers.
        return min(free, super().free(device)) if device.type == "cpu" else free

    def evict_others(self, weights: Weights) -> None:
        gc.collect()
        ours = self._of(weights)
        keep = [loaded for loaded in self._management.current_loaded_models if loaded.model in ours]
        for device in weights.shares:
            if device.type != "cpu":
                self._management.free_memory(1e30, device, keep_loaded=keep)
        self.empty_cache()

    def empty_cache(self) -> None:
        self._management.soft_empty_cache()

    def forget(self, weights: Weights) -> None:
        # ComfyUI itself notices that its weak reference is gone.
        self._patchers.pop(weights, None)

    def _of(self, weights: Weights) -> list[Any]:
        """One patcher for each device that holds a share, in the order of the shares."""
        known = self._patchers.get(weights, [])
        if [patcher.load_device for patcher in known] != list(weights.shares):
            known = [_patcher_class()(weights, device) for device in weights.shares]
            self._patchers[weights] = known
        return known


class QwenVL(torch.nn.Module):
    """What ComfyUI takes for the model, and names in its log: an empty module that knows the
    weights. They belong to the engine; this must not keep them alive."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.weights = weakref.ref(weights)
        self.device = weights.device  # read by ComfyUI's patcher when it is made


@cache
def _patcher_class() -> type:
    """Made late: the base class is ComfyUI's."""
    base: Any = optional_import("comfy.model_patcher", "ModelPatcher")
    management = optional_import("comfy.model_management")

    class WeightsPatcher(base):
        """The share of a model on one device, for ComfyUI to bring and to evict."""

        def __init__(self, weights: Weights, device: torch.device):
            # As ComfyUI treats text encoders: in RAM when not on the device, but for --gpu-only.
            offload = management.text_encoder_offload_device()
            super().__init__(QwenVL(weights), device, offload, size=1)
            self.progress: Progress | None = None

        @property
        def weights(self) -> Weights | None:
            return self.model.weights()

        def model_size(self) -> int:
            """With what is attached to the weights, such as the prefix cache, which is offloaded
            with them."""
            weights = self.weights
            if weights is None:
                return 0
            attached = weights.attached_bytes if self.load_device == weights.device else 0
            return weights.shares.get(self.load_device, 0) + attached

        def loaded_size(self) -> int:
            there = self.weights is not None and self.weights.place == "device"
            return self.model_size() if there else 0

        def current_loaded_device(self) -> torch.device:
            return self.load_device if self.loaded_size() else self.offload_device

        def partially_load(self, device_to: Any, extra_memory: Any = 0, **_: Any) -> int:
            """Always the whole model."""
            before = self.loaded_size()
            if self.weights is not None:
                self.weights.load(self.progress)
            return self.loaded_size() - before

        def partially_unload(self, device_to: Any, memory_to_free: Any = 0, **_: Any) -> int:
            """Nothing: ComfyUI then takes the whole model out by ``detach``."""
            return 0

        def patch_model(self, *_: Any, **__: Any) -> Any:
            return self.model

        def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
            """Out of the device's memory. Where ComfyUI has no other place for a model (it runs on
            the CPU, or was started with --gpu-only) or RAM is short, out of memory altogether."""
            weights = self.weights
            if not unpatch_weights or weights is None:
                return
            ram = management.get_free_memory(torch.device("cpu"))
            if self.offload_device == self.load_device or ram < weights.size:
                weights.release()
            else:
                weights.offload()

    return WeightsPatcher
