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
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from ..media.spans import Span
from ..models.patches import patch_embedding
from .kv_cache import SlotCache, linear_states
from .mrope import rope_positions


@dataclass(frozen=True)
class Prefill:
    """A prefilled prompt or prefix: its KV ``cache`` (one row), its ``length`` in tokens, and the
    ``logits`` ``[V]`` of the token behind it."""

    cache: Any
    length: int
    logits: Tensor

    @property
    def nbytes(self) -> int:
        held = sum(tensor.nbytes for layer in self.cache.layers for tensor in _tensors(layer))
        return held + self.logits.nbytes

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


@dataclass(frozen=True)
class VisionFeatures:
    """An image as the vision tower encoded it, in whatever form the model's family has."""

    features: Any

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in tree_leaves(self.features) if isinstance(leaf, Tensor))

    def to(self, device: torch.device) -> VisionFeatures:
        return VisionFeatures(
            tree_map_only(Tensor, lambda tensor: tensor.to(device), self.features)
        )


@dataclass
class ImageInput:
    """An image of a prompt: its ``grid`` in patches, and either its patches (see
    ``ImageProcessor.pixel_values``) or its ``features`` where they are known; ``on_encoded`` is
    called with them once the vision tower has made them."""

    grid: tuple[int, int, int]
    pixel_values: Tensor | None
    features: VisionFeatures | None
    on_encoded: Callable[[VisionFeatures], None]


class ModelRunner:
    """Forward passes of a loaded model. ``image_token_id`` stands for an image's tokens in a
    prompt, ``merge_size`` patches a side for one of them."""

    def __init__(self, model: Any, image_token_id: int, merge_size: int):
        self.model, self.image_token_id, self.merge_size = model, image_token_id, merge_size
        accepted = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._text_config = model.config.get_text_config()
        # Decode steps need a mask for each row: flash attention has no form for that which could
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
    def vision_weight(self) -> Tensor:
        """A weight on the device and of the dtype that ``prefill`` takes pixel values in."""
        return patch_embedding.of(self.model).still

    def prefill(
        self,
        ids: Sequence[int],
        spans: Sequence[Span],
        images: Sequence[ImageInput] = (),
        prefix: Prefill | None = None,
    ) -> tuple[Prefill, int]:
        """Runs the prompt ``ids``, whose images have ``spans``, from its beginning, or from the end
        of ``prefix``, with no image behind that; ``prefix`` is not changed. Gives also the M-RoPE
        position of the next token."""
        from transformers import DynamicCache

        start = prefix.length if prefix else 0
        cache = copy_cache(prefix.cache) if prefix else DynamicCache(config=self._text_config)
        positions, next_position = rope_positions(ids, self.image_token_id, spans, self.merge_size)
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([ids[start:]], device=self.device),
            "position_ids": positions[:, None, start:].to(self.device),
        }
        if images:
            # The images' own values go through ``_encoding``, one image after the other.
            inputs["pixel_values"] = self.vision_weight.new_empty(0)
            inputs["image_grid_thw"] = torch.tensor([s.grid for s in spans], device=self.device)
        with self._encoding(images):
            out = self.model(**inputs, past_key_values=cache, use_cache=True, **self._last_only)
        return Prefill(cache, len(ids), out.logits[0, -1].clone()), next_position

    @contextmanager
    def _encoding(self, images: Sequence[ImageInput]) -> Iterator[None]:
        """The vision tower gives the features of ``images``, whatever pixel values it is called
        with. It encodes one image at a time, and only those without known features."""
        if not images:
            yield
            return
        tower = next(m for m in self.model.modules() if hasattr(m, "patch_embed"))
        encode, held = tower.forward, vars(tower).get("forward")

        def forward(_pixel_values: Tensor, grid_thw: Tensor, **options: Any) -> Any:
            for image in images:
                if image.features is None:
                    grid = torch.tensor([image.grid], device=grid_thw.device)
                    encoded = encode(image.pixel_values, grid_thw=grid, **options)
                    image.features = VisionFeatures(_without_patches(encoded))
                    image.pixel_values = None
                    image.on_encoded(image.features)
            return _concatenated([image.features.features for image in images if image.features])

        tower.forward = forward
        try:
            yield
        finally:
            del tower.forward
            if held is not None:
                tower.forward = held

    def new_kv_cache(self, static: bool = False) -> SlotCache:
        """An empty KV cache for rows that decode together."""
        return SlotCache(self.device, static)

    def step(self, kv_cache: SlotCache, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits ``[slots, new, V]`` behind each of the ``tokens`` ``[slots, new]``, the first of
        which has the M-RoPE position ``positions`` ``[slots]``. Does not wait for the device."""
        visible = kv_cache.begin_step()
        offsets = torch.arange(tokens.shape[1], device=self.device)
        with self._decode_attention():
            out = self.model(
                input_ids=tokens,
                position_ids=(positions[:, None] + offsets).expand(3, -1, -1),
                attention_mask=self.additive_mask(visible, kv_cache.dtype)[:, None],
                past_key_values=kv_cache.cache,
                use_cache=True,
            )
        kv_cache.end_step()
        return out.logits

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


def _without_patches(features: Any) -> Any:
    """Drops the tower's states before patches are merged into tokens, which nothing uses."""
    if getattr(features, "pooler_output", None) is not None:
        features.last_hidden_state = None
    return features


def _concatenated(features: Sequence[Any]) -> Any:
    """What the tower would give for all images at once. A new container each time: models add to
    it."""

    def join(*parts: Any) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return tree_map(join, features[0], *features[1:])


def _tensors(layer: Any) -> list[Tensor]:
    if hasattr(layer, "recurrent_states"):
        return linear_states(layer)
    return [layer.keys, layer.values]
