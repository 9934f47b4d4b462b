"""KV cache in slots: the caches of rows that decode together, each with a length of its own.

Every row has a slot: its keys and values start at the slot's beginning, and a new token's are
written where the row ends. So a row can leave and another take its slot at any time, without moving
the others, and a step copies nothing but what it adds. (transformers' growing caches copy
everything at every token.) Layers of linear attention keep a state of fixed size instead, one for
each slot.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from ..models.architecture import CACHE_LAYERS

BLOCK_TOKENS = 256
"""Slots grow by multiples of this."""
HEADROOM_TOKENS = 1024
"""Tokens that static slots have room for beyond what is needed now: an answer may end long before
its limit."""


def cache_argument(module: nn.Module) -> str:
    """The name under which forward passes of ``module``, a model or a decoder layer, take their KV
    cache: ``cache`` since transformers 5.24, ``past_key_values`` before."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


@dataclass
class StepIndices:
    """Where a step writes: ``slots`` ``[slots, 1]`` the numbers of the slots, ``positions``
    ``[slots, new]`` of the new tokens in them; and the attention ``width``. Known to the layers,
    which must not know the cache: a reference circle would keep all their memory until a garbage
    collection."""

    slots: Tensor
    positions: Tensor
    width: int = 0


@cache
def _slot_layer() -> Any:
    """The class of a layer with slots, made late: its base is transformers'."""
    from transformers.cache_utils import DynamicLayer

    class SlotLayer(DynamicLayer):
        """Keys and values ``[slots, heads, capacity, dim]`` of one layer."""

        def __init__(self, step: StepIndices):
            super().__init__()
            self.step = step
            self.is_initialized = True

        def update(
            self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            """Writes new tokens of every slot; gives keys and values up to the longest row."""
            # In a model on several devices each layer's keys are where the layer is.
            slots = self.step.slots.to(self.keys.device)
            positions = self.step.positions.to(self.keys.device)
            width = self.step.width
            self.keys[slots, :, positions] = key_states.transpose(1, 2)
            self.values[slots, :, positions] = value_states.transpose(1, 2)
            return self.keys[:, :, :width], self.values[:, :, :width]

        def get_seq_length(self, *_: Any) -> int:
            return self.step.width - self.step.positions.shape[1]

    return SlotLayer


class SlotCache:
    """KV cache of as many rows as were added. ``lengths``: cached tokens of each row, those that
    are decoded next not counted; ``device_lengths`` the same on the device. ``width``: keys that
    the next step attends over, those included that no row may see.

    ``static``: slots have room for their rows' maximum lengths or for ``HEADROOM_TOKENS`` more than
    is needed now, and widths change in steps of ``BLOCK_TOKENS``, so that most steps have equal
    shapes and no tensor moves. Otherwise both grow as the rows do. ``new_tokens``: tokens a row
    that the next step adds."""

    def __init__(self, device: torch.device, static: bool = False):
        self.new_tokens = 1
        self.lengths: list[int] = []
        self.cache: Any = None
        self.device_lengths = torch.empty(0, dtype=torch.long, device=device)
        self._static = static
        self._max_lengths: list[int] = []
        self._no_indices = self.device_lengths
        self._step = StepIndices(self._no_indices, self._no_indices)
        self._layers: list[Any] = []
        self._saved_states: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def dtype(self) -> torch.dtype:
        """Of keys, and so of queries."""
        return next(layer.keys.dtype for layer in self._layers if not _is_linear(layer))

    @property
    def width(self) -> int:
        longest = max(self.lengths) + self.new_tokens
        return _round_up(longest) if self._static else longest

    def add(
        self, caches: Sequence[Any], lengths: Sequence[int], max_lengths: Sequence[int]
    ) -> None:
        """Adds slots for new rows, given their caches of one row each, which are emptied on the
        way: there need not be room for both. ``max_lengths``: what the rows can grow to."""
        if not self._layers:
            from transformers.cache_utils import Cache

            self._layers = [self._new_layer(layer) for layer in caches[0].layers]
            self.cache = Cache(layers=self._layers)
        self.lengths += lengths
        self._max_lengths += max_lengths
        self._copy_lengths()
        capacity = self._capacity(self._required)
        for index, layer in enumerate(self._layers):
            new = [cache.layers[index] for cache in caches]
            if not _is_linear(layer):
                layer.keys = _stacked(layer.keys, [part.keys for part in new], capacity)
                layer.values = _stacked(layer.values, [part.values for part in new], capacity)
                for part in new:
                    part.keys = part.values = None
            else:
                _stack_states(layer, new)

    def replace(self, slot: int, cache: Any, length: int, max_length: int) -> bool:
        """Gives a free slot to a new row. True where tensors had to move."""
        self.lengths[slot], self._max_lengths[slot] = length, max_length
        self.device_lengths[slot] = length
        moved = self._grow()
        for layer, part in zip(self._layers, cache.layers, strict=True):
            if not _is_linear(layer):
                for held, new in ((layer.keys, part.keys), (layer.values, part.values)):
                    held[slot, :, :length] = new[0]
                    held[slot, :, length:] = 0  # a free slot takes part in steps, and may hold NaN
            else:
                _replace_state(layer, slot, part)
        return moved

    def snapshot(self, slot: int, most: int) -> tuple[Any, int]:
        """A copy of the cache of one row, as ``add`` takes it, and its length: no more than
        ``most`` tokens, unless the row has states, which are those of all of them."""
        from transformers.cache_utils import Cache, DynamicLayer

        length, layers = self.lengths[slot], []
        if self.can_roll_back:
            length = min(length, most)
        for layer in self._layers:
            if not _is_linear(layer):
                made = DynamicLayer()
                made.keys = layer.keys[slot : slot + 1, :, :length].clone()
                made.values = layer.values[slot : slot + 1, :, :length].clone()
                made.dtype, made.device = made.keys.dtype, made.keys.device
                made.is_initialized = True
            else:
                made = _copied_state(layer, slot)
            layers.append(made)
        return Cache(layers=layers), length

    def free(self, slot: int) -> None:
        """The row of ``slot`` is finished."""
        self.lengths[slot] = self._max_lengths[slot] = 0
        self.device_lengths[slot] = 0

    def keep(self, slots: Sequence[int]) -> None:
        """Drops all slots but ``slots``, which then have this order."""
        self.lengths = [self.lengths[slot] for slot in slots]
        self._max_lengths = [self._max_lengths[slot] for slot in slots]
        self._copy_lengths()
        capacity = self._capacity(self._required)
        for layer in self._layers:
            if not _is_linear(layer):
                layer.keys = layer.keys[:, :, :capacity][slots]
                layer.values = layer.values[:, :, :capacity][slots]
            else:
                _select_states(layer, slots)

    def reserve(self, new_tokens: int = 1) -> bool:
        """Makes room for ``new_tokens`` more a row. True where tensors had to move."""
        self.new_tokens = new_tokens
        return self._grow()

    def growth_bytes(self, new_tokens: int = 1) -> int:
        """Bytes that ``reserve`` would take at its worst moment, beside those held: layers grow one
        after the other."""
        required = max(self.lengths) + new_tokens
        layers = [layer for layer in self._layers if not _is_linear(layer)]
        if layers[0].keys.shape[2] >= required:
            return 0
        capacity = self._capacity(required)
        held = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        grown = [tensor.nbytes // tensor.shape[2] * capacity for tensor in held]
        return sum(grown) + max(grown) - sum(tensor.nbytes for tensor in held)

    def begin_step(self) -> Tensor:
        """Tells the layers where the step's tokens go. Gives which keys these may attend to, bool
        ``[slots, new, width]``: those of their own row up to themselves."""
        step, device = self._step, self.device_lengths.device
        step.width = self.width
        step.positions = self.device_lengths[:, None] + torch.arange(self.new_tokens, device=device)
        step.slots = torch.arange(len(self.lengths), device=device)[:, None]
        return torch.arange(step.width, device=device) <= step.positions[:, :, None]

    def end_step(self) -> None:
        """Drops the step's indices: no tensor of a captured step may outlive it, since its memory
        belongs to the graph."""
        self._step.slots = self._step.positions = self._no_indices

    def advance(self) -> None:
        """After a step of one token a row, which has advanced ``device_lengths`` itself."""
        self.lengths = [length + 1 for length in self.lengths]

    def advance_by(self, counts: Sequence[int]) -> None:
        """After a step of which each row keeps only its first ``counts`` tokens."""
        pairs = zip(self.lengths, counts, strict=True)
        self.lengths = [length + count for length, count in pairs]
        self.device_lengths.copy_(torch.tensor(self.lengths))

    @property
    def active(self) -> list[int]:
        """Slots that are not free."""
        return [slot for slot, length in enumerate(self._max_lengths) if length]

    @property
    def can_roll_back(self) -> bool:
        """Whether a step's last tokens can be taken back by not counting them. States of linear
        attention can only go back to a saved copy."""
        return not any(_is_linear(layer) for layer in self._layers)

    def save_states(self) -> None:
        """Copies the states of linear attention, for ``restore_states``."""
        states = self._states()
        if [state.shape for state in states] != [saved.shape for saved in self._saved_states]:
            self._saved_states = [torch.empty_like(state) for state in states]
        for saved, state in zip(self._saved_states, states, strict=True):
            saved.copy_(state)

    def restore_states(self) -> None:
        """Back to the states at the last ``save_states``."""
        for saved, state in zip(self._saved_states, self._states(), strict=True):
            state.copy_(saved)

    def _states(self) -> list[Tensor]:
        linear = [layer for layer in self._layers if _is_linear(layer)]
        return [state for layer in linear for state in linear_states(layer)]

    def _copy_lengths(self) -> None:
        self.device_lengths = torch.tensor(self.lengths, device=self.device_lengths.device)

    def _grow(self) -> bool:
        moved = False
        for layer in self._layers:
            if not _is_linear(layer) and layer.keys.shape[2] < self._required:
                capacity = self._capacity(self._required)
                layer.keys = _stacked(layer.keys, [], capacity)
                layer.values = _stacked(layer.values, [], capacity)
                moved = True
        return moved

    @property
    def _required(self) -> int:
        return max(self.lengths) + self.new_tokens

    def _capacity(self, required: int) -> int:
        if not self._static:
            return _round_up(required)
        return _round_up(max(required, min(max(self._max_lengths), required + HEADROOM_TOKENS)))

    def _new_layer(self, layer: Any) -> Any:
        kind = type(layer).__name__
        if kind not in CACHE_LAYERS:
            raise UnsupportedModel(
                f"This model keeps what it has read in a way that is not known here ({kind}), and "
                "would answer wrongly. A newer version of Qwen-VL Suite may know it."
            )
        if not _is_linear(layer):
            return _slot_layer()(self._step)
        made = type(layer)()
        made.has_previous_state = dict(layer.has_previous_state)
        return made


def linear_states(layer: Any) -> list[Tensor]:
    """What a layer of linear attention has in place of keys and values."""
    states = (*layer.conv_states.values(), *layer.recurrent_states.values())
    return [state for state in states if state is not None]


def _round_up(length: int) -> int:
    return -(-length // BLOCK_TOKENS) * BLOCK_TOKENS


def _is_linear(layer: Any) -> bool:
    return hasattr(layer, "recurrent_states")


def _stacked(held: Tensor | None, new: Sequence[Tensor], capacity: int) -> Tensor:
    """``held`` with the rows ``new`` below it, all with room for ``capacity`` tokens."""
    like = new[0] if held is None else held
    rows = 0 if held is None else held.shape[0]
    grown = like.new_zeros(rows + len(new), like.shape[1], capacity, like.shape[3])
    if held is not None:
        width = min(held.shape[2], capacity)
        grown[:rows, :, :width] = held[:, :, :width]
    for row, part in enumerate(new, rows):
        grown[row, :, : part.shape[2]] = part[0]
    return grown


def _stack_states(layer: Any, new: Sequence[Any]) -> None:
    for name in ("conv_states", "recurrent_states"):
        held = getattr(layer, name)
        for index in held:
            parts = [getattr(part, name)[index] for part in new]
            if parts[0] is not None:
                old = [] if held[index] is None else [held[index]]
                held[index] = torch.cat([*old, *parts])
    layer.is_conv_states_initialized = dict(new[0].is_conv_states_initialized)
    layer.is_recurrent_states_initialized = dict(new[0].is_recurrent_states_initialized)
    layer.conv_kernel_size = dict(new[0].conv_kernel_size)
    layer.dtype, layer.device = new[0].dtype, new[0].device


def _replace_state(layer: Any, slot: int, part: Any) -> None:
    for name in ("conv_states", "recurrent_states"):
        for index, state in getattr(layer, name).items():
            if state is not None:
                state[slot] = getattr(part, name)[index][0]


def _copied_state(layer: Any, slot: int) -> Any:
    """A layer of linear attention with the state of one slot."""
    made = copy.copy(layer)
    for name in ("conv_states", "recurrent_states"):
        held = getattr(layer, name).items()
        states = {index: s if s is None else s[slot : slot + 1].clone() for index, s in held}
        setattr(made, name, states)
    for name in (
        "has_previous_state",
        "is_conv_states_initialized",
        "is_recurrent_states_initialized",
        "conv_kernel_size",
    ):
        setattr(made, name, dict(getattr(layer, name)))
    return made


def _select_states(layer: Any, slots: Sequence[int]) -> None:
    for name in ("conv_states", "recurrent_states"):
        held = getattr(layer, name)
        for index, state in held.items():
            if state is not None:
                held[index] = state[torch.tensor(slots, device=state.device)]
