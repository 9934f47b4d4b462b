"""Reading once and decoding together: the same tokens as alone and anew, with less work."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.errors import UnsupportedModel
from qwen_vl_suite.qwenvl.inference import prefix_cache
from qwen_vl_suite.qwenvl.inference.kv_cache import SlotCache
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.model_runner import Prefill, VisionFeatures
from qwen_vl_suite.qwenvl.inference.mrope import rope_positions
from qwen_vl_suite.qwenvl.inference.prefix_cache import PrefixCache, digest
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling

FAMILY_NAMES = list(tiny.CONFIGS)
GREEDY = Sampling(max_new_tokens=16)
WARM = Sampling(max_new_tokens=16, temperature=1.0, top_k=30, seed=5)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width + seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def ask(words: str, *pictures: torch.Tensor, sampling: Sampling = GREEDY, **fields: Any) -> Request:
    return Request(pictures, words, sampling=sampling, **fields)


@contextmanager
def counting(subject: LocalBackend) -> Iterator[dict[str, int]]:
    """How often the vision tower and the language model ran, and on how many tokens."""
    counts = {"looks": 0, "passes": 0, "tokens": 0}
    model = subject.model
    tower = model.visual if hasattr(model, "visual") else model.model.visual
    language = model.get_decoder() if not hasattr(model, "thinker_config") else model.model
    language = getattr(language, "language_model", language)

    def looked(*_: Any) -> None:
        counts["looks"] += 1

    def passed(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        counts["passes"] += 1
        counts["tokens"] += given["inputs_embeds"].shape[:2].numel()

    hooks = [
        tower.blocks[0].register_forward_pre_hook(looked),
        language.register_forward_pre_hook(passed, with_kwargs=True),
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture
def fresh(backend: Any) -> Any:
    """``fresh("qwen3_vl")``: the tiny model with nothing read yet and its usual budget."""

    def make(model_type: str) -> LocalBackend:
        subject: LocalBackend = backend(model_type)
        subject.prefix_cache.clear()
        subject.batch_limits = BatchLimits()
        return subject

    return make


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_rows_that_take_turns_write_what_they_write_alone(fresh: Any, model_type: str) -> None:
    subject = fresh(model_type)
    requests = [
        ask("what is it?", picture(50, 80)),
        ask("one word", picture(64, 64), sampling=Sampling(max_new_tokens=1)),
        ask("only words"),
        ask("both", picture(100, 100), picture(200, 64), system="brief"),
        ask("short", picture(33, 90), sampling=Sampling(max_new_tokens=4)),
        ask("warm", picture(50, 80), sampling=WARM),
        ask("long", picture(64, 64), sampling=Sampling(max_new_tokens=40)),
        ask("again", picture(90, 60), sampling=Sampling(16, repetition_penalty=1.3)),
    ]
    alone = []
    for request in requests:
        subject.prefix_cache.clear()
        alone += subject.generate([request])
    for rows in (2, 3, 8):
        subject.batch_limits = BatchLimits(rows=rows)
        assert subject.generate(requests) == alone, f"{rows} at once"
        assert subject.generate(requests[::-1])[::-1] == alone


def test_a_short_answers_place_is_taken_at_once(fresh: Any) -> None:
    """One long answer and many short ones, two at once: no more passes than the long one takes."""
    subject = fresh("qwen3_vl")
    long, short = Sampling(max_new_tokens=40), Sampling(max_new_tokens=4)
    asked = (ask(str(seed), picture(64, 64, seed), sampling=long) for seed in range(100, 200))
    # Random weights end some answers early.
    requests = [next(r for r in asked if subject.generate([r])[0].usage.new_tokens == 40)]
    requests += [ask(str(n), picture(64, 64, n), sampling=short) for n in range(1, 9)]
    alone = [subject.generate([request])[0] for request in requests]
    subject.batch_limits = BatchLimits(rows=2)
    with counting(subject) as counts:
        assert subject.generate(requests) == alone
    prompts = len(requests)  # their openings were read when they were asked alone
    assert counts["passes"] - prompts <= 40


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_a_second_question_about_a_picture_does_not_look_again(fresh: Any, model_type: str) -> None:
    subject = fresh(model_type)
    shown = picture(150, 200)
    questions = [ask("what is it?", shown), ask("where?", shown, sampling=WARM)]
    expected = []
    for question in questions:
        subject.prefix_cache.clear()
        with counting(subject) as first:
            expected += subject.generate([question])
        assert first["looks"] == 1
    subject.prefix_cache.clear()
    together = subject.generate(questions)
    with counting(subject) as counts:
        again = subject.generate(questions[1:])
    assert together == [expected[0], *again] == expected
    assert counts["looks"] == 0
    assert counts["tokens"] <= first["tokens"] - together[1].usage.image_tokens


def test_reading_anew_and_going_on_give_the_same_numbers(fresh: Any) -> None:
    """Not only the same tokens: what is kept is not changed by those who go on from it."""
    subject = fresh("qwen3_5")
    question = ask("what is it?", picture(150, 200), sampling=WARM)
    answers = [subject.generate([question])[0] for _ in range(4)]
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_a_picture_is_looked_at_once_whatever_stands_before_it(fresh: Any, model_type: str) -> None:
    """Another system prompt is another beginning, which is read anew; the picture is the same. So
    it is among other pictures."""
    subject = fresh(model_type)
    shown, other = picture(150, 200), picture(64, 64)
    questions = [
        ask("what is it?", shown),
        ask("what is it?", shown, system="Be brief."),
        ask("and both?", other, shown),
        ask("and both?", shown, other, shown),
    ]
    expected = []
    for question in questions:
        subject.prefix_cache.clear()
        expected += subject.generate([question])
    subject.prefix_cache.clear()
    with counting(subject) as counts:
        assert subject.generate(questions) == expected
    assert counts["looks"] == 2
    subject.prefix_cache.clear()
    with counting(subject) as counts:
        assert subject.generate(questions[::-1]) == expected[::-1]
    assert counts["looks"] == 2


OTHERS = {
    "one pixel": lambda shown: {"shown": flipped(shown)},
    "pixel limit": lambda shown: {"max_pixels": 16 * 1024},
    "orientation": lambda shown: {"shown": shown.transpose(1, 2).contiguous()},
}


def flipped(shown: torch.Tensor) -> torch.Tensor:
    changed = shown.clone()
    changed[2, -1, -1] ^= 1
    return changed


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_anything_else_is_looked_at_anew(fresh: Any, case: str) -> None:
    subject = fresh("qwen3_vl")
    shown = picture(160, 160)
    subject.generate([ask("what is it?", shown)])
    fields = OTHERS[case](shown)
    with counting(subject) as counts:
        subject.generate([ask("what is it?", fields.pop("shown", shown), **fields)])
    assert counts["looks"] == 1


def test_two_models_taking_turns_do_not_mix(checkpoint: Any, fresh: Any, tmp_path: Any) -> None:
    first = fresh("qwen3_vl")
    second = load(LocalSpec(str(tiny.make("qwen3_vl", tmp_path / "other", seed=4)), device="cpu"))
    question = ask("what is it?", picture(150, 200))
    alone = [subject.generate([question])[0] for subject in (first, second)]
    assert alone[0] != alone[1]
    for _ in range(2):
        assert [subject.generate([question])[0] for subject in (first, second)] == alone


def test_what_was_read_goes_where_the_weights_go(fresh: Any) -> None:
    subject = fresh("qwen3_5")
    question = ask("what is it?", picture(150, 200))
    (calm,) = subject.generate([question])
    assert subject.prefix_cache.nbytes > 0
    subject.offload()
    with counting(subject) as counts:
        assert subject.generate([question]) == [calm]
    assert counts["looks"] == 0
    subject.release()
    assert subject.prefix_cache.nbytes == 0
    assert subject.generate([question]) == [calm]


def test_a_stop_amid_reading_leaves_nothing_half_read(fresh: Any) -> None:
    subject = fresh("qwen3_vl")
    questions = [ask("what is it?", picture(150, 200)), ask("where?", picture(64, 64))]
    calm = subject.generate(questions)
    for checks in (1, 3, 5, 7, 9, 12, 16):
        subject.prefix_cache.clear()
        with pytest.raises(Interrupt):
            subject.generate(questions, InterruptAt(checks))
        assert subject.generate(questions) == calm


def cache_of(length: int) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    cache.update(torch.ones(1, 2, length, 4), torch.ones(1, 2, length, 4), 0)
    return cache


def test_slots_are_no_longer_than_their_rows() -> None:
    slots = SlotCache(torch.device("cpu"))
    slots.add([cache_of(5), cache_of(5000)], [5, 5000], [6, 6000])
    slots.leave(1)
    slots.keep([0])
    assert slots.cache.layers[0].keys.shape == (1, 2, 256, 4)
    slots.add([cache_of(7)], [7], [8])
    assert slots.cache.layers[0].keys.shape == (2, 2, 256, 4)
    assert slots.replace(0, cache_of(300), 300, 301)
    layer = slots.cache.layers[0]
    assert layer.keys.shape == (2, 2, 512, 4)
    assert layer.keys[0, 0, :, 0].sum() == 300 and layer.keys[1, 0, :, 0].sum() == 7


def test_fixed_slots_have_room_for_all_that_their_rows_can_get_to() -> None:
    slots = SlotCache(torch.device("cpu"), fixed=True)
    slots.add([cache_of(5), cache_of(40)], [5, 40], [600, 50])
    kept = slots.cache.layers[0].keys
    assert kept.shape[2] == 768
    assert slots.width == 256, "attention looks no further than it must"
    for _ in range(700):
        assert not slots.make_room()
        slots.advance()
    assert slots.width == 768
    assert not slots.replace(1, cache_of(7), 7, 700)
    assert slots.cache.layers[0].keys is kept


def test_fixed_slots_do_not_take_all_that_a_long_limit_allows() -> None:
    slots = SlotCache(torch.device("cpu"), fixed=True)
    slots.add([cache_of(5)], [5], [30_000])
    assert slots.cache.layers[0].keys.shape[2] == 1280
    moved = 0
    for _ in range(3000):
        moved += slots.make_room()
        slots.advance()
    assert moved == 2


def test_an_empty_slots_rubbish_does_not_reach_the_next_row() -> None:
    slots = SlotCache(torch.device("cpu"))
    slots.add([cache_of(50)], [50], [60])
    slots.cache.layers[0].values.fill_(torch.nan)
    slots.leave(0)
    slots.replace(0, cache_of(7), 7, 20)
    assert slots.cache.layers[0].values.sum() == 2 * 7 * 4


def test_nothing_of_a_call_waits_for_the_garbage_collector(fresh: Any) -> None:
    subject, shown = fresh("qwen3_vl"), picture(50, 80)
    gone = weakref.ref(shown)
    gc.collect()
    gc.disable()
    try:
        subject.generate([ask("what is it?", shown)])
        del shown
        assert gone() is None
    finally:
        gc.enable()


def test_a_kind_of_cache_that_is_not_known_is_refused() -> None:
    from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

    cache = cache_of(5)
    cache.layers = [DynamicSlidingWindowLayer(sliding_window=3)]
    assert isinstance(cache, DynamicCache)
    with pytest.raises(UnsupportedModel, match="DynamicSlidingWindowLayer"):
        SlotCache(torch.device("cpu")).add([cache], [5], [6])


def entry(nbytes: int) -> Prefill:
    class Layer:
        keys = torch.zeros(nbytes // 2, dtype=torch.uint8)
        values = torch.zeros(nbytes // 2, dtype=torch.uint8)

    return Prefill(type("Cache", (), {"layers": [Layer()]})(), 1, torch.zeros(0))


def test_what_was_used_longest_ago_leaves_first() -> None:
    kept, cpu = PrefixCache(most=100), torch.device("cpu")
    for name in "abc":
        kept.put(name, entry(40))
        kept.get("a", cpu)
    assert kept.nbytes == 80
    assert [kept.get(name, cpu) is not None for name in "abc"] == [True, False, True]
    kept.put("large", entry(200))
    assert kept.get("large", cpu) is None and kept.nbytes == 80, "it would push out all others"


@pytest.mark.parametrize("entries", [10, 1000])
def test_an_entry_is_measured_once_however_many_there_are(entries: int) -> None:
    measured: list[int] = []

    class Counted(VisionFeatures):
        @property
        def nbytes(self) -> int:
            measured.append(1)
            return 10

        def to(self, device: torch.device) -> Counted:
            return self

    kept, cpu = PrefixCache(most=10 * entries), torch.device("cpu")
    for name in range(3 * entries):
        kept.put(name, Counted(None))
        kept.get(name, cpu)
    kept.limit(10 * entries - 5)
    kept.park()
    assert len(measured) == 3 * entries
    assert kept.nbytes == 10 * (entries - 1)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "get", "limit", "park", "clear"]), st.integers(0, 60)),
        max_size=60,
    )
)
def test_what_is_kept_is_counted_right(steps: list[tuple[str, int]]) -> None:
    kept, cpu = PrefixCache(most=100), torch.device("cpu")
    sizes: dict[int, int] = {}
    for step, number in steps:
        if step == "put":
            kept.put(number % 5, VisionFeatures(torch.zeros(number, dtype=torch.uint8)))
            sizes |= {number % 5: number} if number <= kept.most else {}
        elif step == "get":
            kept.get(number % 5, cpu)
        elif step == "limit":
            kept.limit(number)
        else:
            getattr(kept, step)()
        assert kept.nbytes == sum(size for key, size in sizes.items() if key in kept)
        assert kept.nbytes <= kept.most


@given(
    data=st.binary(min_size=12, max_size=12),
    place=st.integers(0, 11),
    change=st.integers(1, 255),
)
def test_the_digest_is_of_every_pixel(data: bytes, place: int, change: int) -> None:
    shown = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(3, 2, 2)
    other = shown.clone()
    other.view(-1)[place] ^= change
    assert digest(shown) == digest(shown.clone()) == digest(shown.transpose(1, 2).transpose(1, 2))
    assert digest(shown) != digest(other)
    assert digest(shown) != digest(shown.view(3, 1, 4))


@pytest.mark.parametrize("model_type", [n for n in FAMILY_NAMES if n != "qwen2_5_omni"])
def test_positions_are_the_makers(fresh: Any, model_type: str) -> None:
    """As transformers computes them for the same prompt (ordinary tokens are above 100)."""
    import inspect

    subject = fresh(model_type)
    model, merge = subject.model.model, 2
    image, start = subject.chat_template.image_token_id, model.config.vision_start_token_id
    for layout in ([(4, 6)], [(2, 2), (8, 4)], [(2, 12), (6, 6), (4, 2)]):
        ids, grids = [101, 102, 103], []
        for rows, columns in layout:
            count = (rows // merge) * (columns // merge)
            ids += [start, *[image] * count, model.config.vision_end_token_id, 107, 107]
            grids.append((1, rows, columns))
        tokens = torch.tensor([ids])
        given: dict[str, Any] = {
            "input_ids": tokens,
            "image_grid_thw": torch.tensor(grids),
            "attention_mask": torch.ones_like(tokens),
        }
        if "mm_token_type_ids" in inspect.signature(model.get_rope_index).parameters:
            given["mm_token_type_ids"] = (tokens == image).int()
        expected, deltas = model.get_rope_index(**given)
        ours, following = rope_positions(ids, image, grids, merge)
        assert torch.equal(ours, expected[-3:, 0])
        assert following == len(ids) + int(deltas[0])


def test_keys_tell_beginnings_apart() -> None:
    whole = prefix_cache.key([1, 2], [b"a"], [(32, 32)])
    assert whole == prefix_cache.key((1, 2), (b"a",), ((32, 32),))
    others = [
        prefix_cache.key([1, 3], [b"a"], [(32, 32)]),
        prefix_cache.key([1, 2], [b"b"], [(32, 32)]),
        prefix_cache.key([1, 2], [b"a"], [(32, 64)]),
    ]
    assert whole not in others and len(set(others)) == 3
