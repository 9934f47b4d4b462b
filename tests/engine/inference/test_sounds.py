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
from qwen_vl_suite.qwenvl.inference.loaded_model import position_rule
from qwen_vl_suite.qwenvl.inference.mrope import rope_positions
from qwen_vl_suite.qwenvl.types import (
    Audio,
    Image,
    LocalSpec,
    Message,
    Part,
    Request,
    Sampling,
    Video,
)
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


def with_sound(frames: int, seconds: float, size: int = 64, seed: int = 0) -> Video:
    """A clip of two frames a second, with a sound of so many seconds."""
    generator = torch.Generator().manual_seed(frames + seed)
    shape = (frames, 3, size, 96)
    shown = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Video(shown, tuple(number / 2 for number in range(frames)), noise(seconds, seed))


def watched(model_type: str) -> list[Request]:
    """Sounds as long as their video, longer and shorter, by themselves and among others."""
    found = [
        asked(with_sound(10, 5.0), "What happens?"),
        asked("First", with_sound(4, 6.3, 128, seed=1), "and?"),
        asked(with_sound(13, 1.2, seed=2), "Who?"),
        asked(with_sound(2, 0.4, 224, seed=3), "When?"),
    ]
    if model_type == "qwen2_5_omni":  # see ``requests``
        several = (with_sound(6, 3.3, seed=4), "then", noise(1.0, 5), with_sound(4, 2.0, seed=6))
        found.append(asked(*several, "?"))
    return found


def test_a_video_with_its_sound_is_that_of_the_official_processor(
    subject: tuple[str, Path, LocalBackend, LocalBackend],
) -> None:
    """Ids, positions, features and answers, of ``use_audio_in_video``."""
    model_type, folder, fast, plain = subject
    template, reference = fast.chat_template, Reference(folder, fast.chat_template)
    rule = position_rule(reference.model, fast)
    expected = []
    for request in watched(model_type):
        inputs = official.inputs(model_type, folder, template.tokenizer, request, 2.0)
        prompt = fast.prompt(request)
        ours = model_inputs(reference.model, prompt)
        assert prompt.ids == inputs["input_ids"][0].tolist()
        there = inputs["feature_attention_mask"].bool()
        theirs = inputs["input_features"].transpose(1, 2)[there]
        found = ours["input_features"].transpose(1, 2)[ours["feature_attention_mask"].bool()]
        assert (found - theirs).abs().max() < 1e-5
        pixels = "pixel_values_videos"
        torch.testing.assert_close(ours[pixels], inputs[pixels], atol=1e-5, rtol=0)
        positions, following = rope_positions(prompt.ids, prompt.spans, rule)
        known = {
            "audio_seqlens": there.sum(1),
            "second_per_grids": torch.as_tensor(inputs["video_second_per_grid"]),
        }
        names = ("input_ids", "attention_mask", "video_grid_thw", "use_audio_in_video")
        theirs, deltas = reference.model.get_rope_index(**known, **{n: inputs[n] for n in names})
        assert torch.equal(positions, theirs[:, 0].to(positions.dtype))
        assert following == float(deltas) + len(prompt.ids)
        expected.append(reference.generate(inputs, request))
    assert len({tuple(tokens) for tokens in expected}) == len(expected)
    for backend in (fast, plain):
        with recorded_ids() as answered:
            responses = backend.generate(watched(model_type))
        assert [answered[index] for index in range(len(expected))] == expected
        assert all(response.error is None for response in responses)


def test_a_video_with_its_sound_beside_one_without(
    subject: tuple[str, Path, LocalBackend, LocalBackend], backend: Any
) -> None:
    """Which the official processors do not take. By both roads, and behind what is cached. (One
    sound alone of the second family: see ``requests``.)"""
    model_type, _, fast, plain = subject
    loud = with_sound(4, 2.5, seed=7)
    silent = Video(with_sound(6, 1.0, seed=8).frames, (0.0, 0.5, 1.0, 1.5, 2.0, 2.5))
    parts: tuple[Part, ...] = ("A", silent, "B", loud)
    if model_type == "qwen2_5_omni":
        parts += (noise(0.7, 9), "C", with_sound(4, 2.0, seed=10))
    requests = [asked(*parts, words) for words in ("Which?", "And why?")]
    fast.prefix_cache.clear()
    expected = [response.ids for response in plain.generate(requests)]
    found = [fast.generate([request])[0] for request in requests]
    assert [response.ids for response in found] == expected
    usage = found[1].usage
    assert usage.reused_tokens > usage.image_tokens == fast.media_tokens(requests[1])
    # With another sound, all else being equal, it is another video.
    other = Video(loud.frames, loud.times, noise(2.5, 11))
    one, two = (asked(video, "What?") for video in (loud, other))
    assert fast.prompt(one).ids == fast.prompt(two).ids
    fast.generate([one])
    assert fast.generate([two])[0].usage.reused_tokens == 0
    assert fast.generate([one])[0].usage.reused_tokens > 0
    with pytest.raises(BadOption, match="comes with its sound, but this model has no audio tower"):
        backend("qwen3_vl").generate([one])
