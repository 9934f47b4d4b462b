"""KV cache: slots and their growth. No model needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.errors import UnsupportedModel
from qwen_vl_suite.qwenvl.inference.kv_cache import SlotCache


def cache_of(length: int) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    cache.update(torch.ones(1, 2, length, 4), torch.ones(1, 2, length, 4), 0)
    return cache


def test_slots_are_no_longer_than_the_longest_row() -> None:
    slots = SlotCache(torch.device("cpu"))
    slots.add([cache_of(5), cache_of(5000)], [5, 5000], [6, 6000])
    slots.free(1)
    slots.keep([0])
    assert slots.cache.layers[0].keys.shape == (1, 2, 256, 4)
    slots.add([cache_of(7)], [7], [8])
    assert slots.cache.layers[0].keys.shape == (2, 2, 256, 4)
    assert slots.replace(0, cache_of(300), 300, 301)
    layer = slots.cache.layers[0]
    assert layer.keys.shape == (2, 2, 512, 4)
    assert layer.keys[0, 0, :, 0].sum() == 300 and layer.keys[1, 0, :, 0].sum() == 7


def test_static_slots_have_room_for_their_rows_maximum_lengths() -> None:
    slots = SlotCache(torch.device("cpu"), static=True)
    slots.add([cache_of(5), cache_of(40)], [5, 40], [600, 50])
    cache = slots.cache.layers[0].keys
    assert cache.shape[2] == 768
    assert slots.width == 256, "attention is no wider than needed"
    for _ in range(700):
        assert not slots.reserve()
        slots.advance()
    assert slots.width == 768
    assert not slots.replace(1, cache_of(7), 7, 700)
    assert slots.cache.layers[0].keys is cache


def test_static_slots_have_limited_headroom_where_the_limit_is_long() -> None:
    slots = SlotCache(torch.device("cpu"), static=True)
    slots.add([cache_of(5)], [5], [30_000])
    assert slots.cache.layers[0].keys.shape[2] == 1280
    moved = 0
    for _ in range(3000):
        moved += slots.reserve()
        slots.advance()
    assert moved == 2


def test_nan_in_a_free_slot_does_not_reach_the_next_row() -> None:
    slots = SlotCache(torch.device("cpu"))
    slots.add([cache_of(50)], [50], [60])
    slots.cache.layers[0].values.fill_(torch.nan)
    slots.free(0)
    slots.replace(0, cache_of(7), 7, 20)
    assert slots.cache.layers[0].values.sum() == 2 * 7 * 4


def test_an_unknown_cache_layer_is_refused() -> None:
    from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

    cache = cache_of(5)
    cache.layers = [DynamicSlidingWindowLayer(sliding_window=3)]
    assert isinstance(cache, DynamicCache)
    with pytest.raises(UnsupportedModel, match="DynamicSlidingWindowLayer"):
        SlotCache(torch.device("cpu")).add([cache], [5], [6])
