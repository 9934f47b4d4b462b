"""Kinds of servers: the table is whole, and what is sent fits what each server's resize makes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.media.image_processor import target_size
from qwen_vl_suite.qwenvl.servers.kinds import kind, kinds, names
from qwen_vl_suite.qwenvl.servers.sampling import sampling_fields, sampling_notes
from qwen_vl_suite.qwenvl.servers.streaming import Reply
from qwen_vl_suite.qwenvl.servers.thinking import thinking_fields, thinking_notes
from qwen_vl_suite.qwenvl.types import Request, Sampling

SIDES = st.integers(1, 6000)
SEEING = [family for family in FAMILIES.values() if family.sees]


def test_each_kind_says_where_its_facts_come_from():
    for found in kinds().values():
        assert found.title and found.thoughts and found.sources["pictures"]
        said = {"pictures", "forms", "thoughts", "thinking", "logprobs", "sampling", "video"}
        said |= {"owners", "audio", "parts_are_messages", "video_switch", "thinkers"}
        assert found.sources.keys() <= said
        for name, source in found.sources.items():
            assert source.startswith(("ran", "read", "said")) or found.name == "other", name


def test_every_kind_takes_what_is_sent_and_says_what_is_read():
    for found in kinds().values():
        for name in found.thoughts:
            reply = Reply(False, False, lambda text: None)
            reply.add({"choices": [{"delta": {name: "Hm."}}]})
            assert reply.thought == "Hm."


def test_no_kind_is_asked_in_vllm_s_old_way():
    assert "guided" not in json.dumps([dict(found.forms) for found in kinds().values()])


def test_kinds_are_found_by_name():
    assert kind("llama.cpp").title == "llama.cpp"
    assert names()[0] == "auto" and {"vllm", "ollama", "other"} < set(names())
    with pytest.raises(BadOption, match=r"'lllama'.* auto, vllm, sglang, llama\.cpp"):
        kind("lllama")


@pytest.mark.parametrize("family", SEEING, ids=lambda family: family.model_type)
def test_the_bounds_of_no_kind_exclude_one_another(family):
    for found in kinds().values():
        low, high = found.pictures.bounds(family)
        assert low < high <= family.pixel_bounds[1]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES)
def test_a_server_without_limits_of_its_own_resizes_as_the_engine_does(height, width):
    family = FAMILIES["qwen2_5_vl"]
    if max(height, width) > 200 * min(height, width) or min(height, width) < family.patch_factor:
        return
    expected = target_size(height, width, family.patch_factor, *family.pixel_bounds)
    assert kind("vllm").pictures.resized((height, width), family) == expected


def test_llama_cpp_rounds_half_a_square_up():
    """Seen on the server itself: 406 pixels, 14.5 squares, became 15 columns."""
    family = FAMILIES["qwen2_5_vl"]
    assert kind("llama.cpp").pictures.resized((448, 406), family) == (448, 420)
    assert kind("vllm").pictures.resized((448, 406), family) == (448, 392)


def test_sampling_says_also_what_has_no_effect():
    """Servers have defaults of their own: llama.cpp a min_p of 0.05, vLLM the checkpoint's."""
    greedy = Sampling()
    assert sampling_fields(kind("llama.cpp"), greedy) == {
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "seed": 0,
        "repeat_last_n": 8192,
    }
    assert sampling_fields(kind("sglang"), greedy)["top_k"] == -1
    sent = sampling_fields(
        kind("transformers"), Sampling(temperature=0.7, top_k=20, seed=2**40 + 3)
    )
    assert sent.pop("seed") == 3
    own = json.loads(sent.pop("generation_config"))
    assert own == {"top_k": 20, "min_p": 0.0, "repetition_penalty": 1.0, "do_sample": True}
    assert sent == {"temperature": 0.7, "top_p": 1.0}


def test_what_a_server_cannot_be_told_is_said():
    wanted = Sampling(
        temperature=0.7, top_k=20, repetition_penalty=1.1, presence_penalty=1.5, seed=5
    )
    assert sampling_notes(kind("vllm"), wanted) == ()
    (note,) = sampling_notes(kind("ollama"), wanted)
    assert note.startswith("top_k, repetition_penalty have no effect here: Ollama")
    (note,) = sampling_notes(kind("transformers"), wanted)
    assert note.startswith("presence_penalty has no effect here")
    assert sampling_notes(kind("ollama"), Sampling(top_k=20)) == ()  # greedy: nothing to choose


def test_thinking_is_turned_on_and_off_in_the_server_s_words():
    def sent(name, **wishes):
        return thinking_fields(kind(name), Request((), **wishes))

    off = {"chat_template_kwargs": {"enable_thinking": False}}
    assert sent("vllm", thinking=False) == sent("llama.cpp", thinking=False) == off
    assert sent("vllm") == sent("ollama") == sent("lmstudio", thinking=True) == {}
    assert sent("ollama", thinking=False) == {"reasoning_effort": "none"}
    assert sent("ollama", thinking=True, reasoning_effort="high") == {"reasoning_effort": "high"}
    assert sent("sglang", thinking=True, preserve_thinking=True, reasoning_effort="low") == {
        "chat_template_kwargs": {
            "enable_thinking": True,
            "preserve_thinking": True,
            "reasoning_effort": "low",
        }
    }


def test_thinking_that_a_server_cannot_be_told_of_is_said():
    (note,) = thinking_notes(kind("lmstudio"), Request((), reasoning_effort="high"))
    assert note.startswith("reasoning_effort: LM Studio cannot be told")
    assert thinking_notes(kind("lmstudio"), Request(())) == ()
    (note,) = thinking_notes(kind("ollama"), Request((), thinking=True, preserve_thinking=True))
    assert note.startswith("preserve_thinking: Ollama")
