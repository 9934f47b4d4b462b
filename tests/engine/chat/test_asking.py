"""Conversations, turn by turn: what a next turn reads, and what stays in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from asking import picture
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.chat import Ask, Attachment, Conversation, ask_all, dumps, loads
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption
from qwen_vl_suite.qwenvl.families import free_text_sampling
from qwen_vl_suite.qwenvl.inference.prefix_cache import PrefixCache
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.run import answer
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import Audio, Generated, Image, LocalSpec, Request, Video

GREEDY = {"max_new_tokens": 8, "temperature": 0.0, "presence_penalty": 0.0}
# The parts of the makers' template that conversations meet: thoughts of earlier answers, and how
# much to think.
THOUGHTFUL = """\
{%- set effort = reasoning_effort | default('high') -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and preserve_thinking is defined and preserve_thinking -%}
<think>
{{ (message.reasoning_content or '') | trim }}
</think>

{% endif -%}
{%- if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}START IMAGE END{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% if effort == 'none' %}<think>

</think>

{% else %}{% if effort == 'low' %}Briefly.{% endif %}<think>
{% endif -%}{% endif -%}"""


def shown(*pixels: torch.Tensor) -> tuple[Attachment, ...]:
    return tuple(Attachment(Image(one)) for one in pixels)


def said(backend: Any, ask: Ask) -> Any:
    (reply,) = ask_all(backend, [ask])
    assert not reply.response.error
    return reply


@pytest.mark.parametrize("model_type", tiny.CONFIGS)
def test_each_turn_reads_its_own_tokens_and_answers_as_if_all_was_read_anew(
    backend: Any, model_type: str
) -> None:
    subject: LocalBackend = backend(model_type)
    subject.prefix_cache.clear()
    conversation, before = Conversation("Be brief."), 0
    turns = (
        ("What is it?", shown(picture(64, 96))),
        ("And now?", ()),
        ("What has changed?", shown(picture(96, 64), picture(64, 64))),
        ("Sure?", ()),
    )
    for text, media in turns:
        ask = Ask(conversation, text, media, GREEDY)
        reply = said(subject, ask)
        usage = reply.response.usage
        # The states behind an answer's last token may not have been computed.
        assert usage.reused_tokens >= before - 1
        assert 0 <= usage.reused_tokens < usage.prompt_tokens
        assert reply.first_token_seconds > 0
        held, subject.prefix_cache = subject.prefix_cache, PrefixCache()
        anew = said(subject, ask).response
        subject.prefix_cache = held
        assert (anew.ids, anew.usage.reused_tokens) == (reply.response.ids, 0)
        conversation = reply.conversation
        before = usage.prompt_tokens + len(reply.response.ids)


@pytest.mark.parametrize("model_type", ["qwen2_5_omni", "qwen3_omni_moe"])
def test_a_next_turn_goes_on_behind_a_video_that_is_heard(backend: Any, model_type: str) -> None:
    subject: LocalBackend = backend(model_type)
    subject.prefix_cache.clear()
    frames = torch.stack([picture(64, 96, seed) for seed in range(4)])
    tone = Audio(torch.rand(1, 32_000) * 0.1, 16_000)
    film = Video(frames, (0.0, 0.5, 1.0, 1.5), tone, notes=("It is damaged.",))
    first = said(subject, Ask(Conversation(), "What is it?", (Attachment(film),), GREEDY))
    assert "It is damaged." in first.notes
    mute = Ask(Conversation(), "What is it?", (Attachment(dataclasses.replace(film, audio=None)),))
    assert subject.media_tokens(Request((mute.turn.question,))) < first.response.usage.image_tokens
    ask = Ask(first.conversation, "Sure?", sampling=GREEDY)
    second = said(subject, ask)
    assert second.response.usage.reused_tokens >= first.response.usage.prompt_tokens - 1
    assert "It is damaged." not in second.notes
    subject.prefix_cache.clear()
    assert said(subject, ask).response.ids == second.response.ids
    (refused,) = ask_all(backend("qwen3_vl"), [ask])
    assert "The video comes with its sound" in str(refused.response.error)


def test_a_text_of_a_conversation_needs_no_picture(backend: Any) -> None:
    reply = said(backend("qwen3_vl"), Ask(Conversation(), "Hello", sampling=GREEDY))
    assert reply.response.usage.image_tokens == 0 and len(reply.conversation.turns) == 1
    (nothing,) = ask_all(backend("qwen3_vl"), [Ask(Conversation(), "  ")])
    assert "Nothing is asked" in str(nothing.response.error)


@pytest.fixture(scope="module")
def thoughtful(checkpoint: Callable[..., Path], tmp_path_factory: Any) -> LocalBackend:
    import shutil

    folder = tmp_path_factory.mktemp("thoughtful") / "model"
    shutil.copytree(checkpoint("qwen3_vl"), folder)
    template = (
        THOUGHTFUL.replace("START", "<|vision_start|>")
        .replace(" IMAGE ", "<|image_pad|>")
        .replace("END", "<|vision_end|>")
    )
    (folder / "chat_template.jinja").write_text(template)
    return load(LocalSpec(str(folder), device="cpu"))


def test_preserved_thoughts_cost_nothing_again_and_others_are_gone(
    thoughtful: LocalBackend,
) -> None:
    limits = {**GREEDY, "max_thinking_tokens": 6}
    kept = said(thoughtful, Ask(Conversation(), "One?", sampling=limits, preserve_thinking=True))
    (turn,) = kept.conversation.turns
    assert turn.thinking == kept.response.thinking != "" and turn.thought_ids
    following = Ask(kept.conversation, "Two?", sampling=limits, preserve_thinking=True)
    reply = said(thoughtful, following)
    first = kept.response.usage
    assert reply.response.usage.reused_tokens >= first.prompt_tokens + first.new_tokens - 1
    prompt = thoughtful.chat_template.decode(_ids(thoughtful, following))
    assert f"<think>\n{turn.thinking}" in prompt and turn.answer in prompt
    assert prompt.count("</think>") == 1
    thoughtful.prefix_cache.clear()
    assert said(thoughtful, following).response.ids == reply.response.ids

    dropped = said(thoughtful, Ask(Conversation(), "One?", sampling=limits))
    (turn,) = dropped.conversation.turns
    assert not turn.thinking and not turn.thought_ids and dropped.response.thinking
    text = _ids(thoughtful, Ask(dropped.conversation, "Two?", sampling=limits))
    assert "</think>" not in thoughtful.chat_template.decode(text)


def _ids(backend: LocalBackend, ask: Ask) -> list[int]:
    from qwen_vl_suite.qwenvl.chat.asking import _request

    return backend.prompt(_request(backend, ask)).ids


def test_reasoning_effort_is_what_the_template_knows(thoughtful: LocalBackend) -> None:
    template = thoughtful.chat_template
    assert template.can_preserve_thinking and template.reasoning_efforts == ("none", "low")
    base = _ids(thoughtful, Ask(Conversation(), "Hi"))
    low = _ids(thoughtful, Ask(Conversation(), "Hi", reasoning_effort="low"))
    assert "Briefly." in template.decode(low) and low != base
    assert template.thinks(None, "low") and not template.thinks(None, "none")
    (extreme,) = ask_all(thoughtful, [Ask(Conversation(), "Hi", reasoning_effort="extreme")])
    assert isinstance(extreme.response.error, BadOption)
    assert "reasoning_effort is 'extreme'" in str(extreme.response.error)
    assert "knows none, low" in str(extreme.response.error)
    assert thoughtful.thinks(None, "low") and not thoughtful.thinks(None, "none")
    adapted = thoughtful.with_adapters(())
    assert adapted.thinks(None, "low") and not adapted.thinks(None, "none")


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"reasoning_effort": "low"}, "has no reasoning_effort"),
        ({"preserve_thinking": True}, "drops the thoughts of earlier answers"),
    ],
)
def test_what_a_template_lacks_is_an_error_in_words(backend: Any, wish: Any, words: str) -> None:
    (reply,) = ask_all(backend("qwen3_vl"), [Ask(Conversation(), "Hi", **wish)])
    assert isinstance(reply.response.error, BadOption) and words in str(reply.response.error)


def test_a_history_of_another_vocabulary_goes_on_as_text_and_says_so(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    other = said(ScriptedBackend("It is a red circle."), Ask(Conversation(), "What?"))
    ask = Ask(other.conversation, "Sure?", sampling=GREEDY)
    reply = said(subject, ask)
    assert reply.notes[0].startswith("Another model gave the answers of turns 1,")
    prompt = subject.chat_template.decode(_ids(subject, ask))
    assert "assistant\nIt is a red circle.<|im_end|>" in prompt
    own = said(subject, Ask(reply.conversation, "And?", sampling=GREEDY))
    assert len(own.conversation.turns) == 3 and "turns 1," in own.notes[0]


def test_token_ids_of_a_history_are_not_trusted(backend: Any) -> None:
    """What no answer is made of is read as text: ends of turns, places of pictures, numbers beyond
    the vocabulary, tokens that say something else."""
    subject: LocalBackend = backend("qwen3_vl")
    tokenizer = subject.chat_template.tokenizer
    yes = tokenizer.encode("yes")
    assert subject.reads(yes, "yes") and subject.reads(yes, " yes\n")
    special = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|image_pad|>")]
    assert not subject.reads(special, "<|im_start|><|image_pad|>")
    for forged in ([*yes, special[0]], [special[1], *yes], [*yes, 9999], [-1], yes[:-1]):
        assert not subject.reads(forged, "yes")
        text = json.dumps({"turns": [{"text": "?", "answer": "yes", "ids": forged}]})
        asked = Ask(loads(text, _nothing), "Sure?", sampling=GREEDY)
        assert isinstance(asked.conversation.messages(asked.turn, subject)[1].parts[0], str)
    assert said(subject, asked).response.text


def _nothing(kind: str, reference: Any) -> Image:
    raise AssertionError(reference)


def test_one_conversation_that_fails_costs_only_itself() -> None:
    backend = ScriptedBackend([Reply("one"), BadImage("torn"), Reply("three")])
    start = Conversation()
    replies = ask_all(backend, [Ask(start, word) for word in "abc"])
    assert [len(reply.conversation.turns) for reply in replies] == [1, 0, 1]
    assert str(replies[1].response.error) == "torn" and backend.batches == [3]


def test_what_cannot_be_asked_costs_only_itself() -> None:
    backend = ScriptedBackend("yes", thinking="always")
    wishes: list[Any] = [
        {"text": "a"},
        {"text": " "},
        {"text": "a", "thinking": False},
        {"text": "a", "sampling": {"temperature": -1.0}},
    ]
    errors = [
        r.response.error for r in ask_all(backend, [Ask(Conversation(), **w) for w in wishes])
    ]
    assert errors[0] is None and all(isinstance(error, BadOption) for error in errors[1:])
    assert backend.batches == [1]


def test_each_conversation_that_is_refused_has_its_own_reason(backend: Any) -> None:
    """Also where all are, which a backend raises."""
    done: list[int] = []

    class Watching(Observer):
        def done(self, index: int, response: Any) -> None:
            done.append(index)

    long = Ask(Conversation(), "word " * 9000, sampling=GREEDY)
    longer = Ask(Conversation(), "word " * 9900, sampling=GREEDY)
    subject: LocalBackend = backend("qwen3_vl")
    (only,) = ask_all(subject, [long])
    replies = ask_all(subject, [long, longer], Watching())
    first, second = (str(reply.response.error) for reply in replies)
    assert first == str(only.response.error) != second and done == [0, 1]
    assert [
        bool(r.response.error) for r in ask_all(subject, [long, Ask(Conversation(), "Hi")])
    ] == [
        *(True, False),
    ]


def test_an_effort_that_turns_thinking_off_takes_the_values_for_plain_answers() -> None:
    backend = ScriptedBackend("yes", family="qwen3_5", thinking="on")
    ask_all(backend, [Ask(Conversation(), "a", reasoning_effort=word) for word in ("", "none")])
    thinks, plain = (dataclasses.replace(r.sampling, max_new_tokens=9) for r in backend.requests)
    answer(backend, describe(), [picture(64, 64)], reasoning_effort="none")
    own = free_text_sampling(backend.family, False, True)
    assert thinks != plain == dataclasses.replace(own, max_new_tokens=9)
    shown = free_text_sampling(backend.family, False, False)
    assert backend.requests[-1].sampling.temperature == shown.temperature
    assert shown.temperature != free_text_sampling(backend.family, True, False).temperature


def test_a_thought_stays_only_where_it_is_to_be_preserved() -> None:
    backend = ScriptedBackend(Reply("yes", thinking="hm"), thinking="on")
    kept = said(backend, Ask(Conversation(), "a", preserve_thinking=True)).conversation
    plain = said(backend, Ask(Conversation(), "a")).conversation
    assert kept.turns[0].thinking == "hm" and not plain.turns[0].thinking
    assert "hm" in dumps(kept) and "hm" not in dumps(plain)
    (answer,) = kept.messages(kept.turns[0], backend)[1].parts
    assert isinstance(answer, Generated) and answer.thought
