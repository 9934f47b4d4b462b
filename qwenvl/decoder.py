"""Runs a model token by token: a prompt is read once, then rows decode together.

``generate`` of transformers takes a batch from its first token to its last. Here every row is on
its own way: it can join when another leaves, and begin behind a part of its prompt that was read
before.
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

from . import patch_embedding
from .positions import rope_positions


@dataclass(frozen=True)
class Read:
    """The beginning of a prompt, as the model knows it once it has read it: its ``cache`` (one
    row), its ``length`` in tokens, and ``logits`` ``[V]`` for the token behind it."""

    cache: Any
    length: int
    logits: Tensor

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for layer in self.cache.layers for tensor in _tensors(layer))


class Decoder:
    """The forward passes of one loaded model. ``image_id`` stands for a picture's tokens in a
    prompt, ``merge`` patches a side for one of them."""

    def __init__(self, model: Any, image_id: int, merge: int):
        self.model, self.image_id, self.merge = model, image_id, merge
        accepted = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._text_config = model.config.get_text_config()
        # A token's attention needs its own mask: flash attention has no form for that which could
        # be captured, and is no faster for a single token.
        own = self._text_config._attn_implementation
        self._attention = "eager" if own == "eager" else "sdpa"

    @property
    def is_split(self) -> bool:
        """Whether the model is on more than one device."""
        return len({parameter.device for parameter in self.model.parameters()}) > 1

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def sight(self) -> Tensor:
        """On the device and of the type that ``read`` takes pixels in."""
        return patch_embedding.of(self.model).still

    def read(
        self,
        ids: Sequence[int],
        grids: Sequence[tuple[int, int, int]],
        pixels: Tensor | None,
        behind: Read | None = None,
    ) -> tuple[Read, int]:
        """Reads the prompt ``ids``, whose pictures have ``grids`` and ``pixels`` (as
        ``Preprocessing.pixel_values`` makes them), from where ``behind`` ended; all pictures are
        before that place, or none is. ``behind`` itself is left as it was. Gives also the position
        of the next token."""
        from transformers import DynamicCache

        start = behind.length if behind else 0
        cache = copied(behind.cache) if behind else DynamicCache(config=self._text_config)
        positions, following = rope_positions(ids, self.image_id, grids, self.merge)
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([ids[start:]], device=self.device),
            "position_ids": positions[:, None, start:].to(self.device),
        }
        if pixels is not None:
            inputs["pixel_values"] = pixels
            inputs["image_grid_thw"] = torch.tensor(grids, device=self.device)
        out = self.model(**inputs, past_key_values=cache, use_cache=True, **self._last_only)
        return Read(cache, len(ids), out.logits[0, -1].clone()), following

    def slots(self, fixed: bool = False) -> Any:
        """An empty set of slots for rows that decode together; see ``Slots``."""
        from .slots import Slots

        return Slots(self.device, fixed)

    def step(self, slots: Any, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits ``[slots, new, V]`` behind each of the new ``tokens`` ``[slots, new]``, the first
        of which stands at ``positions`` ``[slots]``. Waits for nothing on the device."""
        visible = slots.visible()
        ahead = torch.arange(tokens.shape[1], device=self.device)
        with self._attending():
            out = self.model(
                input_ids=tokens,
                position_ids=(positions[:, None] + ahead).expand(3, -1, -1),
                attention_mask=self._mask(visible)[:, None],
                past_key_values=slots.cache,
                use_cache=True,
            )
        return out.logits

    def _mask(self, visible: Tensor) -> Tensor:
        """``visible`` in the form that the model's attention takes as it is."""
        if self._attention == "sdpa":
            return visible
        blocked = torch.finfo(self.model.dtype).min
        return torch.where(visible, 0.0, blocked).to(self.model.dtype)

    @contextmanager
    def _attending(self) -> Iterator[None]:
        config, own = self._text_config, self._text_config._attn_implementation
        config._attn_implementation = self._attention
        try:
            yield
        finally:
            config._attn_implementation = own


@contextmanager
def stoppable(model: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """Calls ``check`` before every layer of ``model`` while the block runs, so that a stop need
    not wait for a pass over large pictures."""

    def before(_module: nn.Module, _inputs: object) -> None:
        check()

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    hooks = [layer.register_forward_pre_hook(before) for stack in stacks for layer in stack]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def copied(cache: Any) -> Any:
    """A cache that can grow without changing the first: keys and values are replaced when they
    grow and can be shared, states are written to and cannot."""
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
        states = (*layer.conv_states.values(), *layer.recurrent_states.values())
        return [state for state in states if state is not None]
    return [layer.keys, layer.values]
