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
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from ..models.patches import patch_embedding
from .kv_cache import held_states
from .mrope import rope_positions


@dataclass(frozen=True)
class Prefill:
    """The beginning of a prompt, as the model knows it once it has read it: its ``cache`` (one
    row), its ``length`` in tokens, and ``logits`` ``[V]`` for the token behind it."""

    cache: Any
    length: int
    logits: Tensor

    @property
    def nbytes(self) -> int:
        held = sum(tensor.nbytes for layer in self.cache.layers for tensor in _tensors(layer))
        return held + self.logits.nbytes

    def to(self, device: torch.device) -> Prefill:
        cache = copied(self.cache)
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
    """A picture as the vision tower gave it: whatever form that has in the model's family."""

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
    """A picture of a prompt: its ``grid`` in patches, and either its patches (see
    ``ImageProcessor.pixel_values``) or what was seen of it before; ``keep`` is called with what is
    seen of it now."""

    grid: tuple[int, int, int]
    pixels: Tensor | None
    look: VisionFeatures | None
    keep: Callable[[VisionFeatures], None]


class ModelRunner:
    """The forward passes of one loaded model. ``image_id`` stands for a picture's tokens in a
    prompt, ``merge`` patches a side for one of them."""

    def __init__(self, model: Any, image_token_id: int, merge: int):
        self.model, self.image_token_id, self.merge = model, image_token_id, merge
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
        pictures: Sequence[ImageInput] = (),
        behind: Prefill | None = None,
    ) -> tuple[Prefill, int]:
        """Reads the prompt ``ids``, whose pictures have ``grids``, from where ``behind`` ended, and
        there are no ``pictures`` after that place, or from the beginning. ``behind`` itself is left
        as it was. Gives also the position of the next token."""
        from transformers import DynamicCache

        start = behind.length if behind else 0
        cache = copied(behind.cache) if behind else DynamicCache(config=self._text_config)
        positions, following = rope_positions(ids, self.image_token_id, grids, self.merge)
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([ids[start:]], device=self.device),
            "position_ids": positions[:, None, start:].to(self.device),
        }
        if pictures:
            inputs["pixel_values"] = self.sight.new_empty(0)  # they are looked at one by one
            inputs["image_grid_thw"] = torch.tensor(grids, device=self.device)
        with self._seeing(pictures):
            out = self.model(**inputs, past_key_values=cache, use_cache=True, **self._last_only)
        return Prefill(cache, len(ids), out.logits[0, -1].clone()), following

    @contextmanager
    def _seeing(self, pictures: Sequence[ImageInput]) -> Iterator[None]:
        """The vision tower looks at ``pictures`` one by one, and only at those of which nothing is
        known yet, whatever pixels it is given."""
        if not pictures:
            yield
            return
        tower = next(m for m in self.model.modules() if hasattr(m, "patch_embed"))
        looks, held = tower.forward, vars(tower).get("forward")

        def forward(_pixels: Tensor, grid_thw: Tensor, **options: Any) -> Any:
            for picture in pictures:
                if picture.look is None:
                    grid = torch.tensor([picture.grid], device=grid_thw.device)
                    picture.look = VisionFeatures(
                        _needed(looks(picture.pixels, grid_thw=grid, **options))
                    )
                    picture.pixels = None
                    picture.keep(picture.look)
            return _joined([picture.look.features for picture in pictures if picture.look])

        tower.forward = forward
        try:
            yield
        finally:
            del tower.forward
            if held is not None:
                tower.forward = held

    def slots(self, fixed: bool = False) -> Any:
        """An empty set of slots for rows that decode together; see ``SlotCache``."""
        from .kv_cache import SlotCache

        return SlotCache(self.device, fixed)

    def step(self, slots: Any, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits ``[slots, new, V]`` behind each of the new ``tokens`` ``[slots, new]``, the first
        of which stands at ``positions`` ``[slots]``. Waits for nothing on the device."""
        visible = slots.visible()
        ahead = torch.arange(tokens.shape[1], device=self.device)
        with self._attending():
            out = self.model(
                input_ids=tokens,
                position_ids=(positions[:, None] + ahead).expand(3, -1, -1),
                attention_mask=self.mask(visible, slots.dtype)[:, None],
                past_key_values=slots.cache,
                use_cache=True,
            )
        slots.step_over()
        return out.logits

    def mask(self, visible: Tensor, dtype: torch.dtype) -> Tensor:
        """``visible``, which keys each query may look at, as what attention in ``dtype`` adds.
        (sdpa would take it as it is, and make these numbers of it anew in every layer.)"""
        blocked = -torch.inf if self._attention == "sdpa" else torch.finfo(dtype).min
        return torch.where(visible, 0.0, blocked).to(dtype)

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


def _needed(features: Any) -> Any:
    """Without the patches before they became tokens, which nobody uses."""
    if getattr(features, "pooler_output", None) is not None:
        features.last_hidden_state = None
    return features


def _joined(features: Sequence[Any]) -> Any:
    """What the tower would have given for all pictures at once. A new container each time: models
    put other things into it."""

    def join(*parts: Any) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return tree_map(join, features[0], *features[1:])


def _tensors(layer: Any) -> list[Tensor]:
    if hasattr(layer, "recurrent_states"):
        return held_states(layer)
    return [layer.keys, layer.values]
