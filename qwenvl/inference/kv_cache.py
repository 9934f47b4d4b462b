"""The caches of rows that decode together, each row with a length of its own.

Every row has a slot: its keys and values lie from the slot's beginning, and a new token's go
where the row ends. So a row can leave and another take its place at any time, without moving the
others, and nothing is copied but what a step adds. (Growing caches copy everything at every
token.) Layers of linear attention keep a state of fixed size instead, one for each slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel

GRAIN = 256
"""Tokens; slots grow in such steps."""
AHEAD = 1024
"""Tokens that fixed slots have room for ahead of their rows: an answer may end long before its
limit."""


@dataclass
class SlotEnds:
    """Where the rows end during a step: ``places`` ``[slots, new]`` of the new tokens, ``rows``
    ``[slots, 1]`` the numbers of the slots, ``width`` of the keys that are looked at. Known to the
    layers, which must not know the slots: a circle would keep all their memory until somebody
    collects it."""

    rows: Tensor
    places: Tensor
    width: int = 0


@cache
def _slot_layer() -> Any:
    """The class of a layer with slots, made late: its base is transformers'."""
    from transformers.cache_utils import DynamicLayer

    class SlotLayer(DynamicLayer):
        """Keys and values ``[slots, heads, capacity, dim]`` of one layer."""

        def __init__(self, ends: SlotEnds):
            super().__init__()
            self.ends = ends
            self.is_initialized = True

        def update(
            self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            """Takes new tokens for every slot; gives keys and values up to the longest row."""
            # Of a model on several devices each layer's keys are where the layer is.
            rows, places = (at.to(self.keys.device) for at in (self.ends.rows, self.ends.places))
            width = self.ends.width
            self.keys[rows, :, places] = key_states.transpose(1, 2)
            self.values[rows, :, places] = value_states.transpose(1, 2)
            return self.keys[:, :, :width], self.values[:, :, :width]

        def get_seq_length(self, *_: Any) -> int:
            return self.ends.width - self.ends.places.shape[1]

    return SlotLayer


class SlotCache:
    """Caches of as many rows as were put in. ``lengths``: tokens of each, the ones that are decoded
    next not counted; ``places`` the same on the device. ``width``: keys that the next step looks
    at, those that no row can see included.

    ``fixed``: slots have room for what their rows can get to or for ``AHEAD`` tokens more, and
    widths change in steps of ``GRAIN``, so that most steps are alike and no tensor moves.
    Otherwise both grow as the rows do. ``new``: tokens a row that the next step adds."""

    def __init__(self, device: torch.device, fixed: bool = False):
        self.new = 1
        self.lengths: list[int] = []
        self.cache: Any = None
        self.places = torch.empty(0, dtype=torch.long, device=device)
        self._fixed = fixed
        self._reaches: list[int] = []
        self._nowhere = self.places
        self._ends = SlotEnds(self._nowhere, self._nowhere)
        self._layers: list[Any] = []
        self._kept: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def dtype(self) -> torch.dtype:
        """Of keys, and so of what they are compared with."""
        return next(layer.keys.dtype for layer in self._layers if not _is_linear(layer))

    @property
    def width(self) -> int:
        longest = max(self.lengths) + self.new
        return _rounded(longest) if self._fixed else longest

    def add(self, caches: Sequence[Any], lengths: Sequence[int], reaches: Sequence[int]) -> None:
        """Adds rows below the others, given their caches of one row each, which are emptied on the
        way: there need not be room for both. ``reaches``: the lengths they can get to."""
        if not self._layers:
            from transformers.cache_utils import Cache

            self._layers = [self._like(layer) for layer in caches[0].layers]
            self.cache = Cache(layers=self._layers)
        self.lengths += lengths
        self._reaches += reaches
        self._place()
        capacity = self._capacity(self._least)
        for index, layer in enumerate(self._layers):
            new = [cache.layers[index] for cache in caches]
            if not _is_linear(layer):
                layer.keys = _stacked(layer.keys, [part.keys for part in new], capacity)
                layer.values = _stacked(layer.values, [part.values for part in new], capacity)
                for part in new:
                    part.keys = part.values = None
            else:
                _stack_states(layer, new)

    def replace(self, place: int, cache: Any, length: int, reach: int) -> bool:
        """Gives the slot of a row that has left to another one. True where tensors had to move."""
        self.lengths[place], self._reaches[place] = length, reach
        self.places[place] = length
        moved = self._grow()
        for layer, part in zip(self._layers, cache.layers, strict=True):
            if not _is_linear(layer):
                for held, new in ((layer.keys, part.keys), (layer.values, part.values)):
                    held[place, :, :length] = new[0]
                    held[place, :, length:] = 0  # whatever an empty slot has computed
            else:
                _replace_state(layer, place, part)
        return moved

    def leave(self, place: int) -> None:
        """The row at ``place`` has left; its slot stands empty."""
        self.lengths[place] = self._reaches[place] = 0
        self.places[place] = 0

    def keep(self, places: Sequence[int]) -> None:
        """Only the rows at ``places``, in this order."""
        self.lengths = [self.lengths[place] for place in places]
        self._reaches = [self._reaches[place] for place in places]
        self._place()
        capacity = self._capacity(self._least)
        for layer in self._layers:
            if not _is_linear(layer):
                layer.keys = layer.keys[:, :, :capacity][places]
                layer.values = layer.values[:, :, :capacity][places]
            else:
                _select_states(layer, places)

    def make_room(self, new: int = 1) -> bool:
        """For ``new`` more tokens a row. True where tensors had to move."""
        self.new = new
        return self._grow()

    def growth(self, new: int = 1) -> int:
        """Bytes that ``make_room`` would take at its worst moment, beside what is there: layers
        grow one after the other."""
        least = max(self.lengths) + new
        layers = [layer for layer in self._layers if not _is_linear(layer)]
        if layers[0].keys.shape[2] >= least:
            return 0
        capacity = self._capacity(least)
        held = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        grown = [tensor.nbytes // tensor.shape[2] * capacity for tensor in held]
        return sum(grown) + max(grown) - sum(tensor.nbytes for tensor in held)

    def visible(self) -> Tensor:
        """Which keys the new tokens may look at, bool ``[slots, new, width]``: those of their own
        row up to themselves. Tells the layers where the new ones go."""
        ends, device = self._ends, self.places.device
        ends.width = self.width
        ends.places = self.places[:, None] + torch.arange(self.new, device=device)
        ends.rows = torch.arange(len(self.lengths), device=device)[:, None]
        return torch.arange(ends.width, device=device) <= ends.places[:, :, None]

    def step_over(self) -> None:
        """Lets go of what the layers were told: of a captured step nothing may live on, for where
        it lay belongs to its graph."""
        self._ends.rows = self._ends.places = self._nowhere

    def advance(self) -> None:
        """After a step of one token a row, which has moved ``places`` itself."""
        self.lengths = [length + 1 for length in self.lengths]

    @property
    def open(self) -> list[int]:
        """Places of the rows that have not left."""
        return [place for place, reach in enumerate(self._reaches) if reach]

    @property
    def can_forget(self) -> bool:
        """Whether a step's last tokens can be taken back by not counting them. States of linear
        attention have no way back but to what was kept of them."""
        return not any(_is_linear(layer) for layer in self._layers)

    def keep_states(self) -> None:
        """Copies the states of linear attention, for ``restore_states``."""
        states = self._states()
        if [state.shape for state in states] != [copy.shape for copy in self._kept]:
            self._kept = [torch.empty_like(state) for state in states]
        for copy, state in zip(self._kept, states, strict=True):
            copy.copy_(state)

    def restore_states(self) -> None:
        """Back to how the states were at the last ``keep_states``."""
        for copy, state in zip(self._kept, self._states(), strict=True):
            state.copy_(copy)

    def _states(self) -> list[Tensor]:
        linear = [layer for layer in self._layers if _is_linear(layer)]
        return [state for layer in linear for state in held_states(layer)]

    def advance_by(self, counts: Sequence[int]) -> None:
        """After a step of which each row keeps only its first ``counts`` tokens."""
        pairs = zip(self.lengths, counts, strict=True)
        self.lengths = [length + count for length, count in pairs]
        self.places.copy_(torch.tensor(self.lengths))

    def _place(self) -> None:
        self.places = torch.tensor(self.lengths, device=self.places.device)

    def _grow(self) -> bool:
        moved = False
        for layer in self._layers:
            if not _is_linear(layer) and layer.keys.shape[2] < self._least:
                capacity = self._capacity(self._least)
                layer.keys = _stacked(layer.keys, [], capacity)
                layer.values = _stacked(layer.values, [], capacity)
                moved = True
        return moved

    @property
    def _least(self) -> int:
        return max(self.lengths) + self.new

    def _capacity(self, least: int) -> int:
        if not self._fixed:
            return _rounded(least)
        return _rounded(max(least, min(max(self._reaches), least + AHEAD)))

    def _like(self, layer: Any) -> Any:
        kind = type(layer).__name__
        if kind not in ("DynamicLayer", "LinearAttentionLayer"):
            raise UnsupportedModel(
                f"This model keeps what it has read in a way that is not known here ({kind}), and "
                "would answer wrongly. A newer version of Qwen-VL Suite may know it."
            )
        if not _is_linear(layer):
            return _slot_layer()(self._ends)
        made = type(layer)()
        made.has_previous_state = dict(layer.has_previous_state)
        return made


def _rounded(length: int) -> int:
    return -(-length // GRAIN) * GRAIN


def _is_linear(layer: Any) -> bool:
    return hasattr(layer, "recurrent_states")


def held_states(layer: Any) -> list[Tensor]:
    """What a layer of linear attention has in place of keys and values."""
    states = (*layer.conv_states.values(), *layer.recurrent_states.values())
    return [state for state in states if state is not None]


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


def _replace_state(layer: Any, place: int, part: Any) -> None:
    for name in ("conv_states", "recurrent_states"):
        for index, state in getattr(layer, name).items():
            if state is not None:
                state[place] = getattr(part, name)[index][0]


def _select_states(layer: Any, places: Sequence[int]) -> None:
    for name in ("conv_states", "recurrent_states"):
        held = getattr(layer, name)
        for index, state in held.items():
            if state is not None:
                held[index] = state[torch.tensor(places, device=state.device)]
