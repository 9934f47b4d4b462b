"""Sounds: token ids, features and answers are those of the official processor and ``generate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from asking import picture, recorded_ids
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.errors import BadAudio, BadOption
from qwen_vl_suite.qwenvl.inference.generic import model_inputs
from qwen_vl_suite.qwenvl.types import Audio, Image, LocalSpec, Message, Part, Request, Sampling
from reference import Reference

HEARING = ["qwen2_5_omni", "qwen3_omni_moe"]


def noise(seconds: float, seed: int = 0) -> Audio:
    generator = torch.Generator().manual_seed(seed)
    return Audio(torch.randn(1, round(seconds * 16_000), generator=generator) * 0.1, 16_000)


def asked(*parts: Part, tokens: int = 12, **fields: Any) -> Request:
    return Request((Message("user", parts),), Sampling(tokens), **fields)


def requests(model_type: str) -> list[Request]:
    found = [
        asked(noise(3.21), "What is heard?"),
        asked(noise(9.5, 1), "And this?"),
        asked(Image(picture(64, 96)), "Here is ", noise(0.5, 2), "."),
        asked(noise(2.0, 3), Image(picture(96, 64)), "Both?"),
    ]
    # The second family's processor fills up the shorter sound of several, and hears its end
    # otherwise than alone; ours, which may have heard it before, does not.
    two = asked(noise(1.0, 4), "then", noise(2.0, 5), "?")
    return [*found, two] if model_type == "qwen2_5_omni" else found


@pytest.fixture(scope="module", params=HEARING)
def subject(
    request: pytest.FixtureRequest, checkpoint: Callable[..., Path]
) -> tuple[str, Path, LocalBackend, LocalBackend]:
    folder = checkpoint(request.param)
    fast, plain = (
        load(LocalSpec(str(folder), device="cpu", optimize=optimize))
        for optimize in ("auto", "off")
    )
    return request.param, folder, fast, plain


def test_prompts_and_answers_are_the_official_ones(
    subject: tuple[str, Path, LocalBackend, LocalBackend],
) -> None:
    model_type, folder, fast, plain = subject
    template, reference = fast.chat_template, Reference(folder, fast.chat_template)
    expected = []
    for request in requests(model_type):
        inputs = official.inputs(model_type, folder, template.tokenizer, request, 2.0)
        prompt = fast.prompt(request)
        ours = model_inputs(reference.model, prompt)
        assert prompt.ids == inputs["input_ids"][0].tolist()
        there = inputs["feature_attention_mask"].bool()
        assert ours["feature_attention_mask"].sum(1).tolist() == there.sum(1).tolist()
        theirs = inputs["input_features"].transpose(1, 2)[there]
        found = ours["input_features"].transpose(1, 2)[ours["feature_attention_mask"].bool()]
        assert (found - theirs).abs().max() < 1e-5
        expected.append(reference.generate(inputs, request))
    assert len({tuple(tokens) for tokens in expected}) == len(expected)
    for backend in (fast, plain):
        with recorded_ids() as answered:
            responses = backend.generate(requests(model_type))
        assert [answered[index] for index in range(len(expected))] == expected
        assert all(response.error is None for response in responses)


def test_a_second_question_about_a_sound_hears_it_no_more(
    subject: tuple[str, Path, LocalBackend, LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, fast, _ = subject
    fast.prefix_cache.clear()
    sound, words = noise(2.5, 7), ("What?", "And who?")
    alone = [fast.generate([asked(sound, each)])[0].ids for each in words]
    fast.prefix_cache.clear()
    first = fast.generate([asked(sound, words[0])])[0]
    hits = fast.prefix_cache.hits
    equal = Audio(sound.samples.clone(), sound.rate)
    second = fast.generate([asked(equal, words[1])])[0]
    assert fast.prefix_cache.hits > hits and [first.ids, second.ids] == alone
    # As many tokens of another sound are not taken for it.
    other = fast.generate([asked(noise(2.5, 8), words[1])])[0]
    assert other.ids != second.ids


def test_a_long_sound_is_encoded_in_parts_as_it_is_whole(
    subject: tuple[str, Path, LocalBackend, LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of half a second, where they are of a minute otherwise."""
    from qwen_vl_suite.qwenvl.media import audio_processor

    _, _, fast, _ = subject
    request = asked(noise(9.15, 9), "What?")
    whole = fast.generate([request])[0]
    fast.prefix_cache.clear()
    monkeypatch.setattr(audio_processor, "_FRAMES_AT_ONCE", 50)
    processor = fast.audio_processor
    assert processor is not None
    parts = processor.parts(processor.features(request.sounds[0]))
    assert len(parts) > 3 and sum(part.shape[1] for part in parts) == 915
    assert fast.generate([request])[0].ids == whole.ids


def test_what_no_model_can_hear_is_refused_alone(
    subject: tuple[str, Path, LocalBackend, LocalBackend], backend: Any
) -> None:
    model_type, _, fast, _ = subject
    good, short, broken = (
        asked(noise(1.0), "?"),
        asked(noise(0.01), "?"),
        asked(Audio(torch.full((1, 16_000), torch.nan), 16_000), "?"),
    )
    found = fast.generate([good, short, broken])
    assert found[0].error is None and isinstance(found[1].error, BadAudio)
    assert "too short" in str(found[1].error) and "no numbers" in str(found[2].error)
    if model_type == "qwen2_5_omni":
        with pytest.raises(BadAudio, match="hears at most 30 s"):
            fast.generate([asked(noise(31), "?")])
    with pytest.raises(BadOption, match="no audio tower"):
        backend("qwen3_vl").generate([good])
