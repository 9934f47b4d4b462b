"""Videos: the official processors' inputs, and the same answer by whatever road."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import official
import pytest
import tiny
import torch
from asking import picture
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.checkpoints.transformers_version import is_older
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.inference.generic import PlainExecutor, model_inputs
from qwen_vl_suite.qwenvl.inference.loaded_model import position_rule
from qwen_vl_suite.qwenvl.inference.memory_model import MemoryModel
from qwen_vl_suite.qwenvl.inference.mrope import rope_positions
from qwen_vl_suite.qwenvl.inference.scheduler import Scheduler
from qwen_vl_suite.qwenvl.inference.scoring import PromptEmbedder
from qwen_vl_suite.qwenvl.media import video_processor
from qwen_vl_suite.qwenvl.media.image_processor import ImageProcessor
from qwen_vl_suite.qwenvl.media.video_processor import VideoProcessor
from qwen_vl_suite.qwenvl.models.patches import patch_embedding
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.prompting.tokenizer import load_tokenizer
from qwen_vl_suite.qwenvl.types import Image, LocalSpec, Message, Request, Sampling, Video

FPS = 2.0
FAMILY_NAMES = list(tiny.CONFIGS)


def clip(frames: int, height: int, width: int, seed: int = 0, step: float = 1 / FPS) -> Video:
    generator = torch.Generator().manual_seed(frames + height + width + seed)
    shape = (frames, height, width, 3)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Video(pixels.movedim(-1, 1), tuple(number * step for number in range(frames)))


def ask(*parts: Any, tokens: int = 12, **fields: Any) -> Request:
    return Request((Message("user", parts),), Sampling(tokens), **fields)


def mixed(model_type: str) -> Request:
    """Pictures and videos of even, odd and single frames between words."""
    shown = [] if must_be_apart(model_type) else [Image(picture(50, 80))]
    videos = [clip(6, 70, 100), clip(3, 64, 64), clip(1, 90, 40)]
    return ask("First", videos[0], "then", *shown, videos[1], "and", videos[2], "What happens?")


def must_be_apart(model_type: str) -> bool:
    watching = FAMILIES[model_type].watching
    return bool(watching and watching.alone_before and is_older(watching.alone_before))


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_inputs_are_those_of_the_official_processor(
    checkpoint: Callable[..., Path], backend: Callable[..., LocalBackend], model_type: str
) -> None:
    folder, subject = checkpoint(model_type), backend(model_type)
    request = mixed(model_type)
    theirs = official.inputs(model_type, folder, load_tokenizer(folder), request, FPS)
    prompt = subject.prompt(request)
    assert prompt.ids == theirs["input_ids"][0].tolist()
    ours = model_inputs(subject.model, prompt)
    kinds = [("pixel_values_videos", "video_grid_thw"), ("pixel_values", "image_grid_thw")]
    for pixels, grids in kinds[: 1 + bool(request.images)]:
        assert ours[grids].tolist() == theirs[grids].tolist()
        torch.testing.assert_close(ours[pixels], theirs[pixels], atol=1e-5, rtol=0)
    if must_be_apart(model_type):
        with pytest.raises(BadOption, match="one after the other"):
            subject.prompt(ask(Image(picture(50, 80)), *request.videos))


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_positions_are_those_of_the_library(
    backend: Callable[..., LocalBackend], model_type: str
) -> None:
    """Where it counts as the models were trained: release 5 lets text behind a video of Qwen2-VL
    and Qwen2.5-VL go on before the video's last time, and release 4 cuts off parts of seconds."""
    subject = backend(model_type)
    model = subject.model
    holder = model.model if hasattr(model.model, "get_rope_index") else model
    # Whole seconds a step, and fewer positions of time than of height.
    shown = clip(4, 200, 60, step=0.5)
    others = [] if must_be_apart(model_type) else [Image(picture(50, 80))]
    request = ask("A", shown, "and", *others, "?", frame_pixels=24 * 28**2)
    prompt = subject.prompt(request)
    rule = position_rule(model, subject)
    ours, following = rope_positions(prompt.ids, prompt.spans, rule)
    given = model_inputs(model, prompt)
    names = inspect.signature(holder.get_rope_index).parameters
    seconds = {"second_per_grid_ts": [1.0], "second_per_grids": torch.tensor([1.0])}
    known = {k: v for k, v in {**given, **seconds}.items() if k in names}
    expected, deltas = holder.get_rope_index(**known)
    if rule.per_second >= 13:  # in so many steps a second, a video is longer than high
        assert int(ours[0].max()) > rule.per_second
    assert torch.equal(ours, expected[-3:, 0].to(ours.dtype))
    assert following == float(deltas) + len(prompt.ids)


def test_text_goes_on_behind_the_last_time_of_a_video(
    backend: Callable[..., LocalBackend],
) -> None:
    """The example in transformers' own documentation of Qwen2.5-VL: 25 positions a second, a step
    of two seconds; in Qwen2-VL steps are counted. The makers' training code (``rope2d.py`` of
    ``qwen-vl-finetune``) multiplies the seconds of Qwen2.5-VL first, here by 4, and then cuts off
    parts."""
    examples = {
        "qwen2_5_omni": (1, [0, 50, 100], 101),
        "qwen2_vl": (1, [0, 1, 2], 3),
        "qwen2_5_vl": (0.3125, [0, 2, 5], 6),
    }
    for model_type, (step, times, behind) in examples.items():
        subject = backend(model_type)
        prompt = subject.prompt(ask(clip(6, 56, 56, step=step), frame_pixels=56 * 56, tokens=1))
        rule = position_rule(subject.model, subject)
        positions, _ = rope_positions(prompt.ids, prompt.spans, rule)
        start = prompt.ids.index(subject.chat_template.token_ids["video"])
        block = positions[:, start : start + 12] - positions[0, start]
        assert block[0].tolist() == [time for time in times for _ in range(4)]
        assert block[1].tolist() == [0, 0, 1, 1] * 3 and block[2].tolist() == [0, 1] * 6
        after = positions[:, start + 12] - positions[0, start]
        assert after.tolist() == [behind] * 3


def requests(model_type: str) -> list[Request]:
    shown = clip(5, 64, 96)
    return [
        ask(shown, "What happens?", tokens=9),
        ask(Image(picture(50, 80)), "What is it?", tokens=6),
        ask("Only words.", tokens=6),
        mixed(model_type),
        ask(shown, "Who is it?", tokens=7, continues=True),
    ]


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_answers_do_not_depend_on_the_road(
    checkpoint: Callable[..., Path], backend: Callable[..., LocalBackend], model_type: str
) -> None:
    """Together in a batch, one by one, behind what is cached, and by transformers' ``generate``."""
    if is_older("5") and model_type not in ("qwen2_5_vl", "qwen3_omni_moe"):
        pytest.skip("release 4 is given videos in two ways, and each is tested on one")
    subject, asked = backend(model_type), requests(model_type)
    subject.prefix_cache.clear()
    together = [response.ids for response in subject.generate(asked)]
    assert len(set(together)) > 2
    subject.prefix_cache.clear()
    for request, expected in zip(asked, together, strict=True):
        assert subject.generate([request])[0].ids == expected
    again = subject.generate([asked[0]])[0]
    assert again.ids == together[0] and again.usage.reused_tokens > again.usage.image_tokens
    assert subject.media_tokens(asked[0]) == again.usage.image_tokens
    plain = load(LocalSpec(str(checkpoint(model_type)), device="cpu", optimize="off"))
    late = ask(clip(4, 90, 60, step=0.4), "When?", tokens=6)
    expected_plain = [together[3], subject.generate([late])[0].ids]
    assert [response.ids for response in plain.generate([asked[3], late])] == expected_plain


def test_answers_are_those_of_the_official_processor_and_generate(
    checkpoint: Callable[..., Path], backend: Callable[..., LocalBackend]
) -> None:
    """With nothing of ours but the token ids that end an answer."""
    subject, folder = backend("qwen3_vl"), checkpoint("qwen3_vl")
    request = mixed("qwen3_vl")
    theirs = official.inputs("qwen3_vl", folder, load_tokenizer(folder), request, FPS)
    theirs.pop("video_metadata", None)
    template, plain = subject.chat_template, load(LocalSpec(str(folder), optimize="off"))
    with torch.no_grad():
        out = plain.model.generate(
            **theirs,
            max_new_tokens=12,
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=sorted(template.eos_ids),
            suppress_tokens=sorted(template.media_token_ids),
            pad_token_id=template.pad_id,
        )
    new = out[0, theirs["input_ids"].shape[1] :].tolist()
    expected = [token for token in new if token not in template.eos_ids]
    assert list(subject.generate([request])[0].ids) == expected


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_a_long_video_is_encoded_some_steps_at_a_time(
    backend: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """With the same answer, and memory for some steps alone."""
    subject, request = backend(model_type), ask(clip(9, 64, 96), "What happens?", tokens=6)
    subject.prefix_cache.clear()
    whole = subject.generate([request])[0].ids
    grid = subject.prompt(request).spans[0].grid
    monkeypatch.setattr(video_processor, "CHUNK_TOKENS", 2 * grid[1] * grid[2] // 4)
    prompt = subject.prompt(request)
    assert prompt.encoded_tokens * 5 == prompt.image_tokens * 2
    subject.prefix_cache.clear()
    embedded: list[int] = []
    embedding = patch_embedding.of(subject.model)
    hook = embedding.register_forward_pre_hook(lambda _, given: embedded.append(len(given[0])))
    try:
        assert subject.generate([request])[0].ids == whole
    finally:
        hook.remove()
    step = grid[1] * grid[2]
    assert embedded == [2 * step, 2 * step, step]
    given = subject, {0: prompt}, MemoryModel.from_model(subject.model), Observer()
    assert Scheduler(*given)._needs[0].encoded == prompt.encoded_tokens
    # The library's own pass encodes all of it at once.
    plain = PlainExecutor(*given), PromptEmbedder(*given, plain=True)
    assert [executor._needs[0].encoded for executor in plain] == [None, None]


def test_limits_of_a_video_are_kept(backend: Callable[..., LocalBackend]) -> None:
    """Per frame, in all, and such that there is room for an answer."""
    for model_type in ("qwen2_5_vl", "qwen3_vl"):
        subject, shown = backend(model_type), clip(20, 200, 300)
        factor = subject.family.patch_factor
        assert subject.prompt(ask(shown, frame_pixels=4 * factor**2)).image_tokens <= 40
        assert subject.prompt(ask(shown, video_tokens=30)).image_tokens <= 30
        assert 30 < subject.prompt(ask(shown, video_tokens=200)).image_tokens <= 200
        with pytest.raises(BadOption, match="frame_pixels is 10"):
            subject.prompt(ask(shown, frame_pixels=10))
        smaller = subject.prompt(ask(clip(20, 200, 300), may_shrink=True, video_tokens=400))
        sizes = [smaller.image_tokens]
        while smaller := smaller.shrunk():
            sizes.append(smaller.image_tokens)
        assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 128


def test_frames_have_the_least_pixels_that_are_asked_for(
    backend: Callable[..., LocalBackend],
) -> None:
    """Also where that is more than the checkpoint shows of a video, and unless its limit in all or
    memory forbids it."""
    for model_type in ("qwen2_5_vl", "qwen3_vl"):
        subject, shown = backend(model_type), clip(5, 60, 90)
        factor = subject.family.patch_factor
        least = 200 * factor**2
        ours = VideoProcessor.bounded(subject.video_processor, None, None, None, least)
        height, width = ours.size_of(shown)
        assert least <= height * width <= 1.2 * least
        low = dataclasses.replace(ours, max_pixels=factor**2, frame_pixels=int(1.05 * least))
        assert low.size_of(shown) == (height, width)
        asked = ask(shown, least_frame_pixels=least, may_shrink=True)
        assert subject.prompt(asked).image_tokens == 3 * (height * width) // factor**2
        assert subject.media_tokens(asked) == subject.prompt(asked).image_tokens
        assert subject.prompt(dataclasses.replace(asked, video_tokens=90)).image_tokens <= 90
        assert (smaller := subject.prompt(asked).shrunk())
        assert smaller.image_tokens < 0.6 * subject.prompt(asked).image_tokens
        with pytest.raises(BadOption, match="is above max_pixels"):
            subject.prompt(ask(shown, least_frame_pixels=least, frame_pixels=least - 1))


@pytest.mark.parametrize("frames", [1, 5, 40])
def test_a_limit_in_all_holds_to_the_token_or_is_refused(frames: int) -> None:
    """With an odd number of frames, long and narrow ones, and a least size that is larger."""
    for model_type in ("qwen2_5_vl", "qwen3_vl"):
        side = FAMILIES[model_type].patch_factor
        images = ImageProcessor(patch_size=side // 2)
        own = VideoProcessor.from_config({}, images, FAMILIES[model_type].watching)
        for tokens in (20, 21, 47, 333, 5000):
            for size in ((1080, 1920), (40, 700), (500, 31)):
                shown = Video(torch.empty(frames, 3, *size, dtype=torch.uint8), ())
                for least in (None, 300 * side**2):
                    bounded = own.bounded(None, tokens, None, least)
                    steps, rows, columns = bounded.grid(shown)
                    assert 0 < steps * rows * columns // 4 <= tokens
        with pytest.raises(BadOption, match=r"take 20 tokens at the least.* may take 19"):
            own.bounded(None, 19).grid(Video(torch.empty(40, 3, 64, 64), ()))


@pytest.mark.parametrize(
    ("times", "words"), [((0.0, 0.5), "has 2 times"), ((0.0, 0.5, 0.5), "later than that")]
)
def test_frames_without_times_of_their_own_are_refused(
    backend: Callable[..., LocalBackend], times: tuple[float, ...], words: str
) -> None:
    shown = Video(clip(3, 64, 64).frames, times)
    with pytest.raises(BadOption, match=words):
        backend("qwen3_vl").prompt(ask(shown))


def test_a_video_is_told_apart_from_one_at_other_times(
    backend: Callable[..., LocalBackend],
) -> None:
    """Of Qwen2.5-VL: its prompts are the same, and its positions are not."""
    subject = backend("qwen2_5_vl")
    slow, quick = (ask(clip(5, 64, 96, step=step), "When?") for step in (3.0, 0.5))
    assert subject.prompt(slow).ids == subject.prompt(quick).ids
    subject.prefix_cache.clear()
    expected = subject.generate([quick])[0].ids
    subject.prefix_cache.clear()
    assert subject.generate([slow])[0].ids != expected
    assert subject.generate([quick])[0].ids == expected
