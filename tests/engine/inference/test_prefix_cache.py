"""Prefix cache: keys, eviction and bytes. No model needed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.inference.model_runner import Prefill
from qwen_vl_suite.qwenvl.inference.prefix_cache import PrefixCache, image_digest, prefix_key
from qwen_vl_suite.qwenvl.inference.vision_encoder import VisionFeatures


def entry(nbytes: int) -> Prefill:
    class Layer:
        keys = torch.zeros(nbytes // 2, dtype=torch.uint8)
        values = torch.zeros(nbytes // 2, dtype=torch.uint8)

    return Prefill(type("Cache", (), {"layers": [Layer()]})(), 1, torch.zeros(0))


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    cache, cpu = PrefixCache(max_bytes=100), torch.device("cpu")
    for name in "abc":
        cache.put(name, entry(40))
        cache.get("a", cpu)
    assert cache.nbytes == 80
    assert [cache.get(name, cpu) is not None for name in "abc"] == [True, False, True]
    cache.put("large", entry(200))
    assert cache.get("large", cpu) is None and cache.nbytes == 80, "it would evict all others"


@pytest.mark.parametrize("entries", [10, 1000])
def test_an_entry_is_measured_once_whatever_the_number_of_entries(entries: int) -> None:
    measured: list[int] = []

    class Counted(VisionFeatures):
        @property
        def nbytes(self) -> int:
            measured.append(1)
            return 10

        def to(self, device: torch.device) -> Counted:
            return self

    cache, cpu = PrefixCache(max_bytes=10 * entries), torch.device("cpu")
    for name in range(3 * entries):
        cache.put(name, Counted(None))
        cache.get(name, cpu)
    cache.limit(10 * entries - 5)
    cache.offload()
    assert len(measured) == 3 * entries
    assert cache.nbytes == 10 * (entries - 1)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "get", "limit", "offload", "clear"]), st.integers(0, 60)),
        max_size=60,
    )
)
def test_the_bytes_of_entries_are_counted_exactly(steps: list[tuple[str, int]]) -> None:
    cache, cpu = PrefixCache(max_bytes=100), torch.device("cpu")
    sizes: dict[int, int] = {}
    for step, number in steps:
        if step == "put":
            cache.put(number % 5, VisionFeatures(torch.zeros(number, dtype=torch.uint8)))
            sizes |= {number % 5: number} if number <= cache.max_bytes else {}
        elif step == "get":
            cache.get(number % 5, cpu)
        elif step == "limit":
            cache.limit(number)
        else:
            getattr(cache, step)()
        assert cache.nbytes == sum(size for key, size in sizes.items() if key in cache)
        assert cache.nbytes <= cache.max_bytes


@given(
    data=st.binary(min_size=12, max_size=12),
    place=st.integers(0, 11),
    change=st.integers(1, 255),
)
def test_the_digest_covers_every_pixel(data: bytes, place: int, change: int) -> None:
    shown = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(3, 2, 2)
    other = shown.clone()
    other.view(-1)[place] ^= change
    assert (
        image_digest(shown)
        == image_digest(shown.clone())
        == image_digest(shown.transpose(1, 2).transpose(1, 2))
    )
    assert image_digest(shown) != image_digest(other)
    assert image_digest(shown) != image_digest(shown.view(3, 1, 4))


def test_keys_tell_prefixes_apart() -> None:
    whole = prefix_key([1, 2, 3], 2, [(b"a", (32, 32))], [2])
    assert whole == prefix_key((1, 2, 4), 2, ((b"a", (32, 32)),), (2,))
    others = [
        prefix_key([1, 3], 2, [(b"a", (32, 32))], [2]),
        prefix_key([1, 2], 2, [(b"b", (32, 32))], [2]),
        prefix_key([1, 2], 2, [(b"a", (32, 64))], [2]),
        prefix_key([1, 2], 1, [(b"a", (32, 32))], [2]),
    ]
    assert whole not in others and len(set(others)) == 4


def test_what_was_read_with_other_adapters_is_not_found() -> None:
    cache, key = PrefixCache(), prefix_key([1, 2], 2, [], [])
    cache.put(key, entry(10))
    cache.scope = "an adapter"
    assert cache.longest([1, 2, 3], [], []) is None and key not in cache
    assert cache.get(key, torch.device("cpu")) is None
    cache.put(key, entry(20))
    assert cache.nbytes == 30
    cache.scope = ()
    assert cache.get(key, torch.device("cpu")).nbytes == 10


PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=7)


@given(stored=st.lists(PROMPTS, max_size=8), wanted=PROMPTS, drop=st.sets(st.integers(0, 7)))
def test_the_longest_prefix_of_a_prompt_is_found(
    stored: list[list[int]], wanted: list[int], drop: set[int]
) -> None:
    """Token 0 is an image, alike wherever it stands first, second, ..."""

    def images(ids: list[int]) -> tuple[list[str], list[int]]:
        ends = [place + 1 for place, token in enumerate(ids) if token == 0]
        return [f"image {number}" for number in range(len(ends))], ends

    cache = PrefixCache()
    for ids in stored:
        cache.put(prefix_key(ids, len(ids), *images(ids)), entry(10))
    for place in drop:
        if place < len(stored):
            key = prefix_key(stored[place], len(stored[place]), *images(stored[place]))
            cache._evict((cache.scope, key))
    gone = [stored[place] for place in drop if place < len(stored)]
    found = cache.longest(wanted, *images(wanted))
    fitting = [ids for ids in stored if ids == wanted[: len(ids)] and ids not in gone]
    fitting = [ids for ids in fitting if len(ids) < len(wanted)]
    best = list(found.ids) if found else []
    assert best in [*fitting, []]
    # One without an image is no help to a prompt with one, and need not be found.
    helpful = [ids for ids in fitting if 0 in ids or 0 not in wanted]
    assert len(best) >= max(map(len, helpful), default=0)
    cache.clear()
    assert cache.longest(wanted, *images(wanted)) is None
