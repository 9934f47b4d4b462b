"""Loaded model: what the scheduler needs of a local checkpoint; the local backend is one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from ..media.audio_processor import AudioProcessor
from ..media.image_processor import ImageProcessor
from ..media.video_processor import VideoProcessor
from ..models.memory import Memory
from ..models.weights import Weights
from ..observer import Observer
from ..prompting.chat_template import ChatTemplate
from ..types import Family
from .memory_model import BatchLimits
from .model_runner import ModelRunner
from .mrope import PositionRule
from .prefix_cache import PrefixCache
from .speculative.adaptive import AdaptiveSpeculation


class LoadedModel(Protocol):
    """A transformers model with its weights, tokenizer and image processor, and the memory around
    it. ``adaptive_forced``, ``adaptive_lookup`` and ``adaptive_mtp`` keep what was measured of
    tokens that a grammar forces, of prompt lookup and of the MTP head from call to call."""

    batch_limits: BatchLimits
    adaptive_forced: AdaptiveSpeculation
    adaptive_lookup: AdaptiveSpeculation
    adaptive_mtp: AdaptiveSpeculation
    chat_template: ChatTemplate
    image_processor: ImageProcessor
    video_processor: VideoProcessor | None
    audio_processor: AudioProcessor | None
    family: Family
    memory: Memory
    prefix_cache: PrefixCache
    weights: Weights

    @property
    def model(self) -> Any: ...

    @property
    def device(self) -> torch.device: ...

    def on_device(self, nbytes: int, observer: Observer) -> AbstractContextManager[None]:
        """The weights are on their device while the block runs, with room for ``nbytes`` beside
        them as far as that can be had."""
        ...

    def recover_memory(self) -> None:
        """After memory ran out: gives back all that is not in use."""
        ...


def model_runner(loaded: LoadedModel) -> ModelRunner:
    """Forward passes of ``loaded``, whose weights are on their device."""
    return ModelRunner(loaded.model, position_rule(loaded.model, loaded))


def position_rule(model: Any, loaded: LoadedModel) -> PositionRule:
    """How ``model``, that of ``loaded``, counts positions."""
    token_ids, merge_size = loaded.chat_template.token_ids, loaded.image_processor.merge_size
    family = loaded.family
    return PositionRule.of(model.config, token_ids, merge_size, family.watching, family.hearing)
