"""Runner: from queries to results, with a backend of given replies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.run import Query, answer, answer_all, sampling_for
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import Box, Response, Result, Sampling


def pictures(count: int, height: int = 100, width: int = 200) -> list[torch.Tensor]:
    return [torch.zeros(3, height, width, dtype=torch.uint8) for _ in range(count)]


BOX = '```json\n[{"bbox_2d": [0, 28, 56, 56], "label": "cat"}]\n```'
IN_PIXELS = {
    "qwen3_vl": Box(0, 2.8, 11.2, 5.6, "cat"),
    "qwen2_5_vl": Box(0, 50, 100, 100, "cat"),
}


@pytest.mark.parametrize("family", IN_PIXELS)
def test_boxes_are_in_pixels_of_the_original_for_every_family(family: str) -> None:
    seen = Response(BOX, input_sizes=((56, 112),))
    (found,) = answer(ScriptedBackend(seen, family=family), ground("cat"), pictures(1))
    got, expected = found.boxes[0], IN_PIXELS[family]
    assert got.label == expected.label
    corners = (expected.x1, expected.y1, expected.x2, expected.y2)
    assert (got.x1, got.y1, got.x2, got.y2) == pytest.approx(corners)


def test_one_result_per_picture_in_order_from_one_batched_run() -> None:
    backend = ScriptedBackend(["one", "two", "three"])
    found = answer(backend, describe("short"), pictures(3), system="be kind")
    assert [result.text for result in found] == ["one", "two", "three"]
    assert backend.batches == [3]
    assert {request.system for request in backend.requests} == {"be kind"}


def test_thinking_and_finish_reason_reach_the_result() -> None:
    backend = ScriptedBackend(Reply("one", thinking="hm", finish_reason="repetition"))
    (found,) = answer(backend, describe(), pictures(1))
    assert (found.thinking, found.finish_reason) == ("hm", "repetition")


def test_unreadable_replies_raise_after_the_run_and_name_the_pictures() -> None:
    backend = ScriptedBackend([BOX, "gibberish", BOX, "more gibberish"])
    with pytest.raises(UnreadableReply, match="pictures 2, 4 of 4") as caught:
        answer(backend, ground("cat"), pictures(4))
    assert caught.value.raw == "gibberish"


def test_the_error_of_a_cut_reply_names_max_new_tokens() -> None:
    with pytest.raises(UnreadableReply, match="max_new_tokens"):
        sampling = Sampling(max_new_tokens=1)
        answer(ScriptedBackend("gibberish"), ground("cat"), pictures(1), sampling=sampling)


def test_keep_unreadable_keeps_every_reply() -> None:
    found = answer(
        ScriptedBackend([BOX, "gibberish"]), ground("cat"), pictures(2), keep_unreadable=True
    )
    assert found[0].boxes and not found[0].error
    assert not found[1].boxes and found[1].error and found[1].text == "gibberish"


def test_nothing_found_is_empty_and_no_error() -> None:
    (found,) = answer(ScriptedBackend("None found."), ground("cat"), pictures(1))
    assert found.boxes == () and not found.error


def test_default_sampling_of_each_task() -> None:
    plain, thoughtful, always = (
        ScriptedBackend(thinking=thinking) for thinking in ("never", "on", "always")
    )
    family = FAMILIES["qwen3_vl"]
    assert sampling_for(plain, ground("cat")).temperature == 0
    assert sampling_for(plain, ground("cat")).presence_penalty == 0
    assert sampling_for(plain, describe()).temperature == family.sampling.temperature
    assert sampling_for(plain, describe()).presence_penalty == 1.5
    assert sampling_for(thoughtful, ground("cat")).temperature == 0
    assert sampling_for(always, ground("cat")).temperature == 0.6
    assert sampling_for(thoughtful, ground("cat"), thinking=True).temperature == 0.6
    assert sampling_for(thoughtful, describe()).top_p == 0.95


def test_ocr_and_grounding_turn_switchable_thinking_off() -> None:
    for thinking, expected in (("on", False), ("always", None), ("never", False)):
        backend = ScriptedBackend(BOX, thinking=thinking)
        answer(backend, ground("cat"), pictures(1))
        assert backend.requests[0].thinking is expected
    backend = ScriptedBackend("words", thinking="on")
    answer(backend, describe(), pictures(1))
    assert backend.requests[0].thinking is None


def test_the_callers_sampling_is_used_unchanged() -> None:
    backend = ScriptedBackend("x")
    mine = Sampling(max_new_tokens=7, temperature=0.3, seed=9)
    answer(backend, describe(), pictures(1), sampling=mine)
    assert backend.requests[0].sampling == mine


def test_each_query_has_its_own_task_picture_and_settings() -> None:
    backend = ScriptedBackend(["a cat", BOX])
    found = answer_all(
        backend,
        [
            Query(describe(prompt="What is it?"), pictures(1)[0], sampling=Sampling(seed=7)),
            Query(ground("cat"), pictures(1, 50, 60)[0], max_pixels=5000),
        ],
    )
    assert found[0].text == "a cat" and found[1].boxes
    first, second = backend.requests
    assert (first.prompt, first.sampling.seed, first.max_pixels) == ("What is it?", 7, None)
    assert second.max_pixels == 5000 and second.images[0].shape[-2:] == (50, 60)


def test_results_are_reported_before_an_error_is_raised() -> None:
    reported: list[Sequence[Result]] = []
    queries = [Query(ground("cat"), picture) for picture in pictures(2)]
    with pytest.raises(UnreadableReply, match=r"picture 2 of 2.* Do this instead\.$"):
        answer_all(
            ScriptedBackend([BOX, "?"]), queries, report=reported.append, advice="Do this instead."
        )
    ((whole, bad),) = reported
    assert whole.boxes and not whole.error and bad.error


def test_no_queries_give_no_results() -> None:
    assert answer_all(ScriptedBackend(), []) == []
