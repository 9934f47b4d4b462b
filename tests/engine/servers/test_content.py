"""Content of requests: what a server is sent, and that it shows it to the model as it is."""

from __future__ import annotations

import base64
import dataclasses
import io
import wave

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PIL_Image
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, UnsuitableModel
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.media.image_processor import resize, target_size
from qwen_vl_suite.qwenvl.servers import picture_files
from qwen_vl_suite.qwenvl.servers.content import plan
from qwen_vl_suite.qwenvl.servers.kinds import kind, kinds
from qwen_vl_suite.qwenvl.servers.picture_sizes import pixel_bounds, planned_size, tokens_of
from qwen_vl_suite.qwenvl.types import Audio, Generated, Image, Message, Request, Video

QWEN25, QWEN3, OMNI = (
    FAMILIES[name] for name in ("qwen2_5_vl", "qwen3_vl", "qwen2_5_omni_thinker")
)


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def shown(part):
    """The pixels of a part of a message that shows a picture, and its format."""
    head, _, data = part["image_url"]["url"].partition(";base64,")
    image = PIL_Image.open(io.BytesIO(base64.b64decode(data)))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).movedim(-1, 0), head


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.sampled_from(sorted(kinds())),
    st.sampled_from([QWEN25, QWEN3]),
    st.sampled_from([None, 4, 300, 5000]),
    st.sampled_from([None, 4, 300, 5000]),
)
def test_every_server_shows_what_it_is_sent_as_it_is(height, width, name, family, least, most):
    """The server's own resize is the identity, whichever way it rounds."""
    if max(height, width) > 200 * min(height, width) or (least or 0) > (most or 9999):
        return
    square = family.patch_factor**2
    wanted = least and least * square, most and most * square
    limits = kind(name).pictures
    bounds = pixel_bounds(*wanted, family, kind(name))
    size = planned_size((height, width), bounds, family, limits)
    for rounding in ("half_up", "half_even"):
        assert dataclasses.replace(limits, rounding=rounding).resized(size, family) == size
    low, high = limits.bounds(family)
    assert not size[0] % family.patch_factor and not size[1] % family.patch_factor
    assert low <= size[0] * size[1] <= high
    assert max(size) <= 200 * min(size)
    assert not limits.longest_side or max(size) <= limits.longest_side


@settings(max_examples=60, deadline=None)
@given(st.integers(28, 3000), st.integers(28, 3000))
def test_where_a_server_has_no_limits_of_its_own_sizes_are_the_engine_s(height, width):
    vllm = kind("vllm")
    bounds = pixel_bounds(None, None, QWEN25, vllm)
    size = planned_size((height, width), bounds, QWEN25, vllm.pictures)
    assert size == target_size(height, width, 28, *QWEN25.pixel_bounds)


def test_no_pixel_is_touched_before_the_messages_are_wanted():
    class Untouched:
        shape = (3, 480, 640)

    content = plan(Request.ask([Untouched()], "What?"), QWEN25, kind("vllm"))
    assert content.input_sizes == ((476, 644),) and content.tokens == 17 * 23
    with pytest.raises(AttributeError):
        content.messages()


def test_pictures_arrive_as_the_engine_resizes_them():
    wide, small = picture(100, 300), picture(60, 56, 1)
    request = Request(
        (
            Message("system", ("Be brief.",)),
            Message("user", (Image(wide), "This one?")),
            Message("assistant", ("Noise.",)),
            Message("user", ("And ", Image(small), " this?")),
        )
    )
    content = plan(request, QWEN25, kind("llama.cpp"))
    assert content.input_sizes == ((112, 308), (84, 84))  # at least 8 tokens
    system, first, answer, second = content.messages()
    assert system == {"role": "system", "content": "Be brief."}
    assert answer == {"role": "assistant", "content": "Noise."}
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert second["content"][0] == {"type": "text", "text": "And "}
    for part, source, size in (
        (first["content"][0], wide, (112, 308)),
        (second["content"][1], small, (84, 84)),
    ):
        pixels, head = shown(part)
        assert head == "data:image/png"
        assert torch.equal(pixels, resize(source, size))


@pytest.mark.parametrize("limit", ["MAX_PNG_PIXELS", "MAX_PNG_BYTES"])
def test_long_files_are_sent_as_jpeg(limit, monkeypatch):
    monkeypatch.setattr(picture_files, limit, 20_000)
    flat = torch.full((3, 280, 280), 90, dtype=torch.uint8)
    flat[0, 100:180] = 200
    source = flat if limit == "MAX_PNG_PIXELS" else picture(280, 280)
    (message,) = plan(Request.ask([source]), QWEN25, kind("llama.cpp")).messages()
    pixels, head = shown(message["content"][0])
    assert head == "data:image/jpeg"
    if source is flat:
        assert (pixels.int() - flat.int()).abs().max() <= 6


def test_pictures_and_single_frames_are_sent_in_the_format_that_is_asked_for():
    flat = torch.full((3, 280, 280), 90, dtype=torch.uint8)
    video = Video(torch.stack((flat, flat)), (0.0, 0.5))
    request = Request((Message("user", (Image(flat), video, "What is it?")),))
    (message,) = plan(request, QWEN25, kind("llama.cpp"), picture_format="jpeg").messages()
    found = [shown(part) for part in message["content"] if part["type"] == "image_url"]
    assert [head for _, head in found] == ["data:image/jpeg"] * 3
    for pixels, _ in found:
        assert (pixels.int() - 90).abs().max() <= 2


def test_ollama_shows_no_picture_smaller_than_1024_tokens():
    """It would enlarge it itself, by a filter of its own."""
    request = Request.ask([picture(200, 300)], max_pixels=100_000)
    content = plan(request, QWEN25, kind("ollama"))
    (size,) = content.input_sizes
    assert tokens_of(size, QWEN25) >= 1024
    (note,) = content.notes
    assert "max_pixels is 100000, but Ollama shows" in note and "802816" in note


def test_what_is_too_large_for_the_server_is_said_where_it_was_asked_for():
    big = torch.zeros(3, 3000, 4000, dtype=torch.uint8)
    (note,) = plan(Request.ask([big], max_pixels=9_000_000), QWEN25, kind("llama.cpp")).notes
    assert "at most 3211264 pixels" in note
    assert plan(Request.ask([big]), QWEN25, kind("llama.cpp")).notes == ()


def film(times, size=(64, 96), sound=None):
    frames = torch.stack([picture(*size, seed) for seed in range(len(times))])
    return Video(frames, tuple(times), sound)


def test_vllm_gets_frames_with_their_true_times():
    request = Request.ask([film([1.0, 1.5, 4.25])], "What happens?")
    content = plan(request, QWEN3, kind("vllm"))
    (size,) = content.input_sizes
    video = content.fields["media_io_kwargs"]["video"]
    assert [index / video["fps"] for index in video["frames_indices"]] == [1.0, 1.5, 4.25]
    assert video["num_frames"] == 3 and not video["do_sample_frames"]
    assert video["total_num_frames"] > video["frames_indices"][-1]
    (message,) = content.messages()
    head, _, frames = message["content"][0]["video_url"]["url"].partition(";base64,")
    assert head == "data:video/jpeg"
    shapes = [PIL_Image.open(io.BytesIO(base64.b64decode(one))).size for one in frames.split(",")]
    assert shapes == [size[::-1]] * 3


def test_families_that_count_seconds_are_told_the_rate_of_the_frames():
    """The number of frames divided by the length is two a second, wherever the clip begins."""
    content = plan(Request.ask([film([7.0, 7.5, 8.0, 8.5])]), QWEN25, kind("vllm"))
    video = content.fields["media_io_kwargs"]["video"]
    assert video["frames_indices"] == [0, 500, 1000, 1500]
    assert len(video["frames_indices"]) / video["total_num_frames"] * video["fps"] == 2.0


def test_one_frame_is_sent_twice():
    content = plan(Request.ask([film([3.0])]), QWEN3, kind("vllm"))
    assert content.fields["media_io_kwargs"]["video"]["num_frames"] == 2
    (message,) = content.messages()
    assert len(message["content"][0]["video_url"]["url"].split(",")) == 3


def test_several_videos_have_one_place_for_their_times():
    with pytest.raises(BadOption, match="one video a request only, and this one shows 2"):
        plan(Request.ask([film([0.0, 1.0]), film([0.0, 2.0])]), QWEN3, kind("vllm"))


@pytest.mark.parametrize("family", [QWEN3, QWEN25], ids=["qwen3", "qwen2.5"])
def test_elsewhere_frames_are_pictures_with_their_times_in_words(family):
    content = plan(Request.ask([film([0.5, 1.5])], "What?"), family, kind("llama.cpp"))
    (message,) = content.messages()
    words = [part.get("text") for part in message["content"]]
    assert words == ["<0.5 seconds>", None, "<1.5 seconds>", None, "What?"]
    pixels, _ = shown(message["content"][1])
    assert pixels.shape[1:] == content.input_sizes[0]
    assert bool(content.notes) == (family is QWEN25)
    several = plan(Request.ask([film([0.5, 1.5])]), family, kind("ollama")).notes
    assert "a message of its own of each frame" in several[-1]


def test_sounds_are_wav_files_in_the_server_s_own_part():
    tone = Audio(torch.sin(torch.arange(8000) / 5)[None], 8000)
    for name, form in (("vllm", "input_audio"), ("sglang", "audio_url")):
        request = Request.ask([tone, film([0.0, 1.0], sound=tone)], "What?")
        (message,) = plan(request, OMNI, kind(name)).messages()
        kinds_of_parts = [part["type"] for part in message["content"]]
        assert kinds_of_parts.count(form) == 2
        part = message["content"][0][form]
        data = part["data"] if form == "input_audio" else part["url"].partition(";base64,")[2]
        with wave.open(io.BytesIO(base64.b64decode(data))) as file:
            assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (
                16000,
                16000,
                1,
            )


def test_what_cannot_be_sent_is_refused_by_name():
    tone = Audio(torch.zeros(1, 8000), 8000)
    with pytest.raises(BadOption, match="hears no sounds"):
        plan(Request.ask([tone]), QWEN3, kind("vllm"))
    with pytest.raises(BadOption, match="LM Studio takes no sounds"):
        plan(Request.ask([tone]), OMNI, kind("lmstudio"))
    for shown_to_it in (picture(30, 30), film([0.0, 1.0])):
        with pytest.raises(UnsuitableModel, match=r"my-model .* reads text only"):
            plan(Request.ask([shown_to_it]), FAMILIES["qwen3"], kind("vllm"), "my-model")
    with pytest.raises(BadOption, match="token ids"):
        plan(Request((Message("assistant", (Generated((1, 2)),)),)), QWEN3, kind("vllm"))
    with pytest.raises(BadImage, match="200 times"):
        plan(Request.ask([picture(2, 1000)]), QWEN3, kind("vllm"))
    with pytest.raises(BadOption, match="max_pixels is 5"):
        plan(Request.ask([picture(30, 30)], max_pixels=5), QWEN3, kind("vllm"))


def test_what_a_check_raises_ends_the_work():
    def check():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan(Request.ask([picture(30, 30)]), QWEN3, kind("vllm")).messages(check)
