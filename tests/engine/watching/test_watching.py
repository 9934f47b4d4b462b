"""Watching: what is asked of a video, and what becomes of the answers."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import videos
from footages import watched
from qwen_vl_suite.qwenvl import rounds, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, BadVideo, UnreadableReply
from qwen_vl_suite.qwenvl.media.frame_times import FrameChoice
from qwen_vl_suite.qwenvl.media.video_files import Clip
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.tasks.describe_video import describe_video
from qwen_vl_suite.qwenvl.tasks.events import events
from qwen_vl_suite.qwenvl.types import Audio, Event, Request, Response, Result, Video
from qwen_vl_suite.qwenvl.watching import (
    Captions,
    FileFootage,
    FrameFootage,
    Track,
    Viewing,
    Whole,
)

FIND = Whole(lambda length: events("a dog", length))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, 12 frames each, that show their numbers; 64 by 96 pixels."""
    path: Path = videos.write(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=48, rate=12)
    return path


def shown(request: Request) -> Video:
    (part,) = request.media
    assert isinstance(part, Video)
    return part


def test_a_model_that_hears_is_given_the_sound(clip: Path, tmp_path: Path) -> None:
    """Of each segment its own; where there is none a note says so, and a model that does not hear
    is not asked."""
    loud = videos.write(tmp_path / "loud.mp4", frames=48, rate=12, sound=True)
    every = FrameChoice("every", 1.0)
    hearing = {"choice": every, "sound": True, "family": "qwen2_5_omni"}
    captions = Captions(describe_video("short"), 2.0)
    (result,), backend = watched(["a", "b"], captions, [FileFootage(Clip(loud))], **hearing)
    found = [request.sounds[0] for request in backend.requests]
    assert [sound.samples.shape[1] // 3200 for sound in found] == [10, 10] and not result.notes
    assert found[0].samples.std() < found[1].samples.std() / 2  # it gets louder
    tone = Audio(torch.rand(2, 8_000), 8_000)
    frames = torch.zeros(8, 3, 64, 96, dtype=torch.uint8)
    footages = [FileFootage(Clip(clip)), FrameFootage(frames, 4.0, sound=tone)]
    results, backend = watched(["c", "d"], Whole(lambda _: describe_video()), footages, **hearing)
    assert [len(request.sounds) for request in backend.requests] == [0, 1]
    assert ["no sound" in "".join(result.notes) for result in results] == [True, False]
    with pytest.raises(BadOption, match="Qwen3-VL hears nothing"):
        watched("", FIND, footages, sound=True, family="qwen3_vl")


def test_events_are_asked_of_frames_with_their_true_times(clip: Path) -> None:
    told: list[tuple[str, int, int]] = []
    (result,), backend = watched(
        '{"00:01.00 - 00:09.00": "it runs"}',
        FIND,
        [FileFootage(Clip(clip))],
        choice=FrameChoice("every", 1.0),
        told=lambda *what: told.append(what),
    )
    video = shown(backend.requests[0])
    assert video.times == result.times == (0.0, 1.0, 2.0, 3.0)
    assert [videos.number_of(frame) for frame in video.frames] == [0, 12, 24, 36]
    assert result.events == (Event(1, 4, "it runs"),)  # the clip ends at 4 s
    # Two steps of two frames, which are shown with 4 tokens at least.
    assert told == [("clip.mp4", 4, backend.media_tokens(backend.requests[0]))]
    assert told[0][2] >= 8


def test_a_trimmed_clip_counts_from_its_own_beginning(clip: Path) -> None:
    footage = FileFootage(Clip(clip, 1.0, 3.0))
    (result,), backend = watched(
        "At 0.5 - 7 seconds.", FIND, [footage], choice=FrameChoice("count", 2)
    )
    video = shown(backend.requests[0])
    assert [videos.number_of(frame) for frame in video.frames] == [12, 35]
    assert result.times[0] == 0.0 and result.events == (Event(0.5, 2.0, "a dog"),)


def test_a_video_that_cannot_be_read_costs_only_its_own_answer(clip: Path) -> None:
    gone = BadVideo("gone.mp4 cannot be read: there is no such file.")
    damaged = FileFootage(Clip(clip))
    damaged.clip = Clip(clip.with_name("moved.mp4"))
    (first, second, third), _ = watched("[[1, 2]]", FIND, [gone, FileFootage(Clip(clip)), damaged])
    assert "gone.mp4" in first.error and "moved.mp4" in third.error
    assert second.events == (Event(1, 2, "a dog"),)


def test_an_unreadable_reply_stays_one(clip: Path) -> None:
    (result,), _ = watched("A dog runs.", FIND, [FileFootage(Clip(clip))])
    assert "no times" in result.error and result.text == "A dog runs."
    backend = ScriptedBackend("A dog runs.")
    with pytest.raises(UnreadableReply):
        run.answer_all(backend, [Viewing(FileFootage(Clip(clip)), FIND).query()])


def test_a_caption_a_segment_in_one_batch(clip: Path) -> None:
    def caption(request: Request) -> str:
        return f"number {videos.number_of(shown(request).frames[0])}"

    wish = Captions(describe_video("detailed"), seconds=1.5)
    choice = FrameChoice("count", 2)
    (result,), backend = watched(caption, wish, [FileFootage(Clip(clip))], choice=choice)
    assert backend.batches == [3]
    assert result.events == (
        Event(0, 1.5, "number 0"),
        Event(1.5, 3, "number 18"),
        Event(3, 4, "number 36"),
    )
    assert result.text.splitlines()[1] == "00:01.5 - 00:03.0  number 18"
    assert len(result.times) == 6 and result.times[2] == pytest.approx(1.5, abs=0.01)


def test_a_segment_that_fails_costs_only_its_own_caption(clip: Path) -> None:
    wish = Captions(describe_video("detailed"), seconds=2.0)
    replies = [BadOption("too long"), "a caption"]
    (result,), _ = watched(replies, wish, [FileFootage(Clip(clip))])
    assert not result.error and result.events == (Event(2, 4, "a caption"),)
    assert "1 of 2 segments" in result.notes[0] and "0 s to 2 s" in result.notes[0]


def test_a_segment_that_cannot_be_read_costs_only_its_own_caption(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "cut.ts", form="mpegts", frames=96, rate=12)
    content = path.read_bytes()
    footage = FileFootage(Clip(path))
    path.write_bytes(content[: len(content) // 2])
    wish = Captions(describe_video("detailed"), seconds=1.0)
    (result,), backend = watched(lambda request: "a caption", wish, [footage])
    assert not result.error and len(result.events) == len(backend.requests) >= 3
    assert result.events[0].start == 0 and "of 8 segments have no caption" in " ".join(result.notes)
    footage.clip = Clip(tmp_path / "gone.ts")
    with pytest.raises(BadVideo, match="gone"):
        run.answer_all(backend, [Viewing(footage, wish).query()])


def test_pixel_bounds_hold_for_the_frames_of_a_video(clip: Path) -> None:
    backend = ScriptedBackend("a clip", family="qwen3_vl")
    wish = Whole(lambda length: describe_video("short"))
    tokens, told = [], []
    side = 32**2
    bounds = [(None, None), (2 * side, None), (None, 24 * side)]
    for (most, least), limit in [(bound, None) for bound in bounds] + [(bounds[2], 12)]:
        viewing = Viewing(FileFootage(Clip(clip)), wish, told=lambda *what: told.append(what[2]))
        query = viewing.query(max_pixels=most, min_pixels=least, video_tokens=limit)
        run.answer_all(backend, [query])
        tokens.append(backend.media_tokens(backend.requests[-1]))
    assert tokens == told == [24, 4, 96, 8]


def test_frames_are_read_as_large_as_they_are_to_be_shown() -> None:
    read: list[int] = []

    class Large(Counted):
        def read(self, choice: FrameChoice, *how: object) -> Video:
            read.append(how[2])
            return super().read(choice)

    wish = Whole(lambda length: describe_video("short"))
    for bounds in {}, {"max_pixels": 100_000}, {"max_pixels": 2_000_000}, {"min_pixels": 900_000}:
        run.answer_all(ScriptedBackend("a"), [Viewing(Large(0, set(), []), wish).query(**bounds)])
    assert read == [768 * 32**2] * 2 + [2_000_000, 900_000]


def test_a_limit_of_a_video_that_leaves_no_token_a_frame_costs_its_answer_alone(
    clip: Path,
) -> None:
    footage, backend = FileFootage(Clip(clip)), ScriptedBackend("a clip")
    track = Track("a dog")
    for wish, least in (Whole(lambda length: describe_video("short")), 4), (track, 8):
        for tokens, answers in (least, True), (least - 1, False):
            query = Viewing(footage, wish).query(video_tokens=tokens, keep_unreadable=True)
            (result,) = run.answer_all(backend, [query])
            assert answers != ("max_video_tokens" in result.error)
    assert [backend.media_tokens(request) for request in backend.requests[1:]] == [1] * 8


class Counted:
    """Footage of which the frames that are held anywhere are counted."""

    title, length, size = "counted", 4.0, (64, 96)

    def __init__(self, name: int, held: set[int], most: list[int], error: bool = False):
        self.name, self.held, self.most, self.error = name, held, most, error

    def read(self, choice: FrameChoice, *_: object) -> Video:
        pixels = np.full((8, 64, 96, 3), self.name, np.uint8)
        self.held.add(self.name)
        weakref.finalize(pixels, self.held.discard, self.name)
        self.most.append(len(self.held))
        frames = torch.from_numpy(pixels).movedim(-1, 1)
        if self.error:
            raise BadVideo(f"{frames.shape} is damaged.")
        return Video(frames, tuple(number / 2 for number in range(8)))


def test_videos_are_read_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two here: in order, the answers of a portion in a batch, shown as one run, and those that
    fail alone hold nothing, whether they cannot be read or not be asked."""
    monkeypatch.setattr(rounds, "PORTION", 2 * 8 * 3 * 64 * 96)
    held: set[int] = set()
    most: list[int] = []
    footages = [Counted(number, held, most, error=number == 2) for number in range(8)]
    wish = Whole(lambda length: describe_video("short"))
    queries = [
        Viewing(footage, wish).query(keep_unreadable=True, video_tokens=3 if at in (4, 5) else None)
        for at, footage in enumerate(footages)
    ]

    class Recorder(Observer):
        def __init__(self) -> None:
            self.started: list[int] = []
            self.finished: list[int] = []

        def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
            self.started.append(len(prompt_tokens))
            assert len(set(max_new_tokens)) == 1 and max_new_tokens[0] > 1

        def done(self, index: int, response: Response) -> None:
            self.finished.append(index)

    def number_of(request: Request) -> int:
        return int(shown(request).frames[0, 0, 0, 0])

    class Forgetful(ScriptedBackend):
        def generate(self, requests: Sequence[Request], *observer: Observer) -> list[Response]:
            if min(map(number_of, requests)) >= 6:
                raise BadOption("too long.")
            answers = super().generate(requests, *observer)
            self.requests.clear()
            return answers

    backend, seen = Forgetful(lambda request: f"number {number_of(request)}"), Recorder()
    told: list[int] = []
    results: dict[int, Result] = {}

    def on_result(number: int, result: Result) -> None:
        told.append(number)
        results[number] = result

    run.answer_each(backend, queries, on_result, seen)
    assert max(most) == 2 and not held and backend.batches == [2, 1]
    assert told == seen.finished and sorted(told) == list(range(8)) and seen.started == [8]
    expected = {2: "is damaged", 4: "max_video_tokens", 5: "max_video_tokens"}
    expected |= {6: "too long.", 7: "too long."}
    for number, result in results.items():
        assert expected.get(number, "") in result.error
        assert bool(result.error) != (result.text == f"number {number}")


def test_captions_by_scenes_of_frames() -> None:
    frames = torch.zeros(40, 3, 48, 64, dtype=torch.uint8)
    frames[25:] = 200
    wish = Captions(describe_video("short"), seconds=0)
    (result,), _ = watched(lambda request: "a scene", wish, [FrameFootage(frames, 10.0)])
    assert [(e.start, e.end) for e in result.events] == [(0, 2.5), (2.5, 4.0)]


def test_frames_are_shrunk_one_at_a_time_and_each_can_stop_it() -> None:
    frames = torch.randint(0, 256, (6, 3, 64, 96), dtype=torch.uint8)
    footage = FrameFootage(frames, 2.0)
    whole = torch.nn.functional.interpolate(
        frames.float(), size=(32, 48), mode="bilinear", antialias=True
    )
    checks: list[int] = []
    small = footage.at([0, 1, 2.5], 32 * 48, lambda: checks.append(1))
    assert torch.equal(torch.stack(small), whole[[0, 2, 5]].round().to(torch.uint8))
    assert len(checks) == 3

    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    choice = FrameChoice("scenes")
    for use in (
        lambda: footage.cuts(stop),
        lambda: footage.at([0], 32 * 48, stop),
        lambda: footage.read(choice, 0, 3, 1 << 20, stop),
    ):
        with pytest.raises(Stop):
            use()
