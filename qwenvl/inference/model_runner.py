"""Model runner: the forward passes of one model, prefill of a prompt and decode steps of a batch.

``generate`` of transformers takes a batch from its first token to its last. Here every row goes its
own way: it can join when another leaves, and start behind a prefix that was prefilled before.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..media.spans import Span
from ..models.attention import without_cudnn
from ..models.patches import patch_embedding
from .kv_cache import SlotCache, cache_argument, linear_states
from .mrope import PositionRule, has_axes, rope_positions
from .vision_encoder import MediaInput, VisionEncoder


@dataclass(frozen=True)
class Prefill:
    """A prefilled prompt or prefix: its KV ``cache`` (one row), its ``length`` in tokens, and the
    ``logits`` ``[V]`` of the token behind it; empty where they are not known."""

    cache: Any
    length: int
    logits: Tensor

    @property
    def nbytes(self) -> int:
        held = sum(tensor.nbytes for layer in self.cache.layers for tensor in _tensors(layer))
        return held + self.logits.nbytes

    def beginning(self, length: int) -> Prefill:
        """A copy of its first ``length`` tokens. See ``ModelRunner.can_cut``."""
        cache = copy_cache(self.cache)
        for layer in cache.layers:
            layer.keys = layer.keys[:, :, :length].clone()
            layer.values = layer.values[:, :, :length].clone()
        return Prefill(cache, length, self.logits.new_empty(0))

    def to(self, device: torch.device) -> Prefill:
        cache = copy_cache(self.cache)
        for layer in cache.layers:
            if hasattr(layer, "recurrent_states"):
                for states in (layer.conv_states, layer.recurrent_states):
                    for index, state in states.items():
                        states[index] = None if state is None else state.to(device)
            else:
                layer.keys, layer.values = layer.keys.to(device), layer.values.to(device)
            layer.device = device
        return Prefill(cache, self.length, self.logits.to(device))


class ModelRunner:
    """Forward passes of a loaded model. ``position_rule``: how it counts positions."""

    def __init__(self, model: Any, position_rule: PositionRule):
        self.model, self.position_rule = model, position_rule
        accepted = inspect.signature(model.forward).parameters
        self._cache_argument = cache_argument(model)
        self._vision_encoder = VisionEncoder(model)
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._text_config = model.config.get_text_config()
        self._has_axes = has_axes(model.config)
        # Decode steps need a mask for each row: flash attention has no form for that which could
        # be captured, and is no faster for a single token.
        own = self._text_config._attn_implementation
        self._attention = "eager" if own == "eager" else "sdpa"

    @property
    def can_cut(self) -> bool:
        """Whether what is cached of a prefix can be cut out of what a pass over the whole prompt
        gives. A state (of linear attention) is that of all tokens. In half precision, and in 8
        bits, numbers depend a little on what else a pass holds: an answer would then depend on
        whether its picture had been asked about before."""
        kinds = getattr(self._text_config, "layer_types", None) or ()
        exact = all(parameter.dtype == torch.float32 for parameter in self.model.parameters())
        return exact and "linear_attention" not in kinds

    @property
    def is_split(self) -> bool:
        """Whether the model is on more than one device."""
        return len({parameter.device for parameter in self.model.parameters()}) > 1

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def vision_weight(self) -> Tensor:
        """A weight on the device and of the dtype that ``prefill`` takes pixel values in."""
        return patch_embedding.of(self.model).still

    def prefill(
        self,
        ids: Sequence[int],
        spans: Sequence[Span],
        media: Sequence[MediaInput] = (),
        prefix: Prefill | None = None,
    ) -> tuple[Prefill, float]:
        """Runs the prompt ``ids``, whose media have ``spans``, from its beginning, or from the end
        of ``prefix``, which is not changed. ``media``: those behind the prefix. Gives also the
        M-RoPE position of the next token."""
        from transformers import DynamicCache

        start = prefix.length if prefix else 0
        cache = copy_cache(prefix.cache) if prefix else DynamicCache(config=self._text_config)
        positions, next_position = rope_positions(ids, spans, self.position_rule)
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([ids[start:]], device=self.device),
            "position_ids": self._position_ids(positions[:, None, start:].to(self.device)),
        }
        with without_cudnn(), self._vision_encoder.inputs(media) as shown:
            out = self._forward(cache, **inputs, **shown, **self._last_only)
        return Prefill(cache, len(ids), out.logits[0, -1].clone()), next_position

    def new_kv_cache(self, static: bool = False) -> SlotCache:
        """An empty KV cache for rows that decode together."""
        return SlotCache(self.device, static)

    def step(self, kv_cache: SlotCache, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits ``[slots, new, V]`` behind each of the ``tokens`` ``[slots, new]``, the first of
        which has the M-RoPE position ``positions`` ``[slots]``. Does not wait for the device."""
        visible = kv_cache.begin_step()
        offsets = torch.arange(tokens.shape[1], device=self.device)
        with self._decode_attention():
            out = self._forward(
                kv_cache.cache,
                input_ids=tokens,
                position_ids=self._position_ids((positions[:, None] + offsets).expand(3, -1, -1)),
                attention_mask=self.additive_mask(visible, kv_cache.dtype)[:, None],
            )
        kv_cache.end_step()
        return out.logits

    def _position_ids(self, positions: Tensor) -> Tensor:
        """M-RoPE ``positions`` ``[3, rows, tokens]`` in the form that the model takes."""
        return positions if self._has_axes else positions[0]

    def _forward(self, cache: Any, **inputs: Any) -> Any:
        return self.model(**inputs, **{self._cache_argument: cache}, use_cache=True)

    def additive_mask(self, visible: Tensor, dtype: torch.dtype) -> Tensor:
        """``visible``, which keys each query may attend to, as what attention in ``dtype`` adds.
        (sdpa takes booleans too, and converts them anew in every layer.)"""
        blocked = -torch.inf if self._attention == "sdpa" else torch.finfo(dtype).min
        return torch.where(visible, 0.0, blocked).to(dtype)

    @contextmanager
    def _decode_attention(self) -> Iterator[None]:
        config, own = self._text_config, self._text_config._attn_implementation
        config._attn_implementation = self._attention
        try:
            yield
        finally:
            config._attn_implementation = own


@contextmanager
def interruptible(model: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """Calls ``check`` before every layer of ``model`` while the block runs, so that an interrupt
    need not wait for a pass over large images."""

    def before(_module: nn.Module, _inputs: object) -> None:
        check()

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    hooks = [layer.register_forward_pre_hook(before) for stack in stacks for layer in stack]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def copy_cache(cache: Any) -> Any:
    """A cache that can grow without changing the first. Keys and values are replaced when they grow
    and can be shared; states of linear attention are written to and are copied."""
    made = copy.copy(cache)
    made.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in made.layers:
        if hasattr(layer, "recurrent_states"):
            for name in ("conv_states", "recurrent_states", "has_previous_state"):
                held = getattr(layer, name)
                fresh = {
                    key: value.clone() if isinstance(value, Tensor) else value
                    for key, value in held.items()
                }
                setattr(layer, name, fresh)
            for name in ("is_conv_states_initialized", "is_recurrent_states_initialized"):
                setattr(layer, name, dict(getattr(layer, name)))
    return made


def _tensors(layer: Any) -> list[Tensor]:
    if hasattr(layer, "recurrent_states"):
        return linear_states(layer)
    return [layer.keys, layer.values]
