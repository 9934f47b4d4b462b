"""Frames of video files: the right ones, at the times at which they are shown."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import av
import pytest
import torch
import videos
from qwen_vl_suite.qwenvl.errors import BadAudio, BadOption, BadVideo
from qwen_vl_suite.qwenvl.media import audio, video
from qwen_vl_suite.qwenvl.media.frame_times import FrameChoice, frame_times
from qwen_vl_suite.qwenvl.media.scene_cuts import scene_cuts
from qwen_vl_suite.qwenvl.media.video_files import Clip, probe
from qwen_vl_suite.qwenvl.media.video_sound import read_sound
from qwen_vl_suite.qwenvl.media.video_writing import cut

KINDS = {
    "h264.mp4": {},
    "h264.mkv": {"form": "matroska"},
    "h264.ts": {"form": "mpegts"},
    "vp9.webm": {"form": "webm", "codec": "libvpx-vp9", "b_frames": None},
    "mpeg4.avi": {"form": "avi", "codec": "mpeg4"},
    "h264.avi": {"form": "avi", "b_frames": 3},
    "h264 open.avi": {
        "form": "avi",
        "options": {"x264-params": "open-gop=1:keyint=22:scenecut=0:b-adapt=0"},
    },
    "long.mp4": {"keyframes": 1000},
}


def numbers(shown: Any) -> list[int]:
    return [videos.number_of(frame) for frame in shown.frames]


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_shown_at_their_times(tmp_path: Path, name: str) -> None:
    clip = Clip(videos.write(tmp_path / name, frames=120, **KINDS[name]))
    # Forwards by searching and by decoding on, and up to the last frame.
    wanted = (0, 1, 2, 30, 31, 77, 78, 100, 119)
    shown = video.frames_at(clip, [number / 24 for number in wanted])
    assert numbers(shown) == list(wanted)
    assert shown.times == pytest.approx([number / 24 for number in wanted], abs=0.002)
    assert not shown.notes
    facts = probe(clip)
    assert (facts.size, facts.has_audio, facts.rotation) == (videos.SIZE, False, 0)
    assert facts.duration == pytest.approx(5, abs=0.05)
    assert facts.rate == 24


def test_any_frame_of_an_avi_whose_keyframes_are_found_late() -> None:
    clip = Clip(videos.write(io.BytesIO(), "avi", "mpeg4", frames=24, rate=30))
    for number in (9, 11, 21, 23):
        assert numbers(video.frames_at(clip, [number / 30])) == [number]


def test_variable_rate_times_are_those_of_the_frames(tmp_path: Path) -> None:
    """A slide show: a second, then a pause of eight, then ten frames a second."""
    pts = [*range(0, 1000, 100), *range(9000, 11_000, 100)]
    clip = Clip(videos.write(tmp_path / "v.mkv", "matroska", frames=len(pts), pts=pts, rate=10))
    shown = video.frames_at(clip, [0.95, 5, 8.9, 9.05, 10.9])
    assert numbers(shown) == [9, 10, 29]
    assert shown.times == pytest.approx([0.9, 9.0, 10.9])
    (only,) = video.frames_at(clip, [8]).times
    assert only == pytest.approx(0.9), "what is shown in the pause is the frame before it"


def test_frames_before_a_pause_are_those_shown_in_it(tmp_path: Path) -> None:
    """Whatever kind of frame it is: some are not decoded where others come behind them."""
    for last in range(12, 20):
        pts = [40 * index + (7000 if index > last else 0) for index in range(30)]
        clip = Clip(videos.write(tmp_path / "v.mkv", "matroska", frames=30, pts=pts, rate=25))
        shown = video.frames_at(clip, [0.2, pts[last] / 1000 + 5, pts[29] / 1000])
        assert numbers(shown) == [5, last, 29]


@pytest.mark.parametrize("suffix", ["", "-eng"])
def test_a_track_of_mkvmerge_tells_its_length_and_not_its_end(tmp_path: Path, suffix: str) -> None:
    pts = [*range(2000, 6000, 250)]
    path = videos.write(tmp_path / "v.mkv", "matroska", frames=len(pts), pts=pts, rate=4)
    assert probe(Clip(path)).duration == pytest.approx(4)
    with av.open(str(path)) as made, av.open(str(tmp_path / "w.mkv"), "w") as out:
        stream = out.add_stream_from_template(made.streams.video[0])
        tags = {"_STATISTICS_TAGS": "BPS DURATION", "DURATION": "00:00:04.000000000"}
        stream.metadata.update({f"{name}{suffix}": value for name, value in tags.items()})
        for packet in made.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    # What FFmpeg itself writes there is the end.
    content = (tmp_path / "w.mkv").read_bytes()
    path.write_bytes(content.replace(b"00:00:06.000000000", b"00:00:04.000000000"))
    assert probe(Clip(path)).duration == pytest.approx(4)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, rotation: int) -> None:
    clip = Clip(videos.write(tmp_path / "v.mp4", frames=8, rotation=rotation))
    shown = video.read(clip)
    height, width = videos.SIZE
    assert probe(clip).size == ((width, height) if rotation % 180 else (height, width))
    upright = torch.rot90(shown.frames, -rotation // 90, (-2, -1))
    assert [videos.number_of(frame) for frame in upright] == [0, 2, 5, 7]


def test_trimmed_clip_begins_at_its_own_zero(tmp_path: Path) -> None:
    source = videos.write(io.BytesIO(), frames=96)
    clip = Clip(source, 1.0, 3.0)
    assert probe(clip).duration == 2
    shown = video.read(clip, FrameChoice("every", 0.5))
    assert numbers(shown) == [24, 36, 48, 60]
    assert shown.times == pytest.approx([0, 0.5, 1, 1.5])
    assert numbers(video.frames_at(clip.part(0.5), [0])) == [36]
    with pytest.raises(BadVideo, match="is 4 s long, and nothing of it is left from 9 s on"):
        video.read(Clip(source, 9))
    with pytest.raises(BadOption, match="empty"):
        Clip(source, 2, 1)


def test_frames_are_bounded_while_they_are_read(tmp_path: Path) -> None:
    clip = Clip(videos.write(tmp_path / "v.mp4", frames=4, size=(256, 384)))
    shown = video.read(clip, FrameChoice("count", 2), max_pixels=128 * 192)
    assert shown.frames.shape == (2, 3, 128, 192)
    assert shown.frames.movedim(1, -1).is_contiguous()
    assert numbers(shown) == [0, 3]


def test_one_frame_and_animated_pictures(tmp_path: Path) -> None:
    one = Clip(videos.write(tmp_path / "one.mp4", frames=1))
    assert numbers(video.read(one)) == [0]
    assert video.read(one).times == (0,)
    from PIL import Image

    frames = [Image.fromarray(videos.numbered(number)) for number in range(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=500)
    shown = video.read(Clip(tmp_path / "a.gif"), FrameChoice("fps", 1))
    assert shown.times == pytest.approx((0, 1, 1.5, 2.5))


def test_damaged_tail_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    for form in ("matroska", "mpegts"):
        data = videos.write(io.BytesIO(), form, frames=96).getvalue()
        shown = video.read(Clip(io.BytesIO(data[: len(data) // 2])), FrameChoice("every", 0.25))
        assert numbers(shown)[:4] == [0, 6, 12, 18]
        assert 1 < shown.times[-1] < 3
        if form == "matroska":  # whose head tells the length
            assert "its pictures end at" in shown.notes[0]


def test_damage_in_the_middle_costs_its_own_frames() -> None:
    data = bytearray(videos.write(io.BytesIO(), frames=96).getvalue())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 3
    data[middle : middle + 300] = bytes(300)
    shown = video.read(Clip(io.BytesIO(data)), FrameChoice("every", 0.25))
    assert {0, 90} <= set(numbers(shown))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a video"),
        (b"no video at all" * 100, "cannot be read as a video"),
        (None, "there is no such file"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "holiday.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadVideo, match=message) as error:
        probe(Clip(path))
    assert "holiday.mp4" in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_sound_alone_and_missing_times_are_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "s.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        videos._write_sound(container, stream, 1)
    with pytest.raises(BadVideo, match="sound only"):
        probe(Clip(tmp_path / "s.m4a"))
    raw = Clip(videos.write(tmp_path / "v.h264", "h264", frames=8))
    with pytest.raises(BadVideo, match="no timestamps"):
        probe(raw)
    with pytest.raises(BadVideo, match="is a folder"):
        probe(Clip(tmp_path))


def test_length_that_no_header_tells_is_measured() -> None:
    live = videos.write(
        io.BytesIO(), "webm", "libvpx-vp9", 48, b_frames=None, options={"live": "1"}
    )
    assert probe(Clip(live)).duration == pytest.approx(2, abs=0.05)


def test_length_is_measured_once_for_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    with av.open(live := io.BytesIO(), "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=24)
        stream.height, stream.width = videos.SIZE
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(videos.numbered(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    calls: list[int] = []
    clip = Clip(live)
    assert probe(clip, lambda: calls.append(1)).duration == pytest.approx(2, abs=0.05)
    assert len(calls) > 24  # it can be stopped
    calls.clear()
    assert probe(clip.part(0.5, 1), lambda: calls.append(1)).duration == 0.5
    assert not calls


def test_length_of_a_matroska_file_that_begins_late() -> None:
    pts = range(5000, 7000, 100)
    late = videos.write(io.BytesIO(), "matroska", frames=20, rate=10, pts=pts, b_frames=0)
    assert probe(Clip(late)).duration == pytest.approx(2, abs=0.01)
    shown = video.read(Clip(late), FrameChoice("every", 0.5))
    assert numbers(shown) == [0, 5, 10, 15] and not shown.notes


def test_a_trim_that_begins_within_the_last_frame(tmp_path: Path) -> None:
    clip = Clip(videos.write(tmp_path / "v.mp4", rate=10, frames=20), 1.95)
    assert numbers(video.read(clip)) == [19]


def test_a_frame_for_each_time() -> None:
    """At 240 frames a second, the next one is 4 ms away."""
    clip = Clip(videos.write(io.BytesIO(), "mp4", frames=24, rate=240))
    wanted = [7, 3, 3, 4, 8, 23]
    found = video.frame_for_each(clip, [number / 240 for number in wanted])
    assert [videos.number_of(frame) for frame in found] == wanted


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile {}\n"),
    ],
)
def test_files_that_name_others_are_refused(tmp_path: Path, name: str, lines: str) -> None:
    videos.write(tmp_path / "v.ts", "mpegts", frames=48, sound=True)
    playlist = tmp_path / name
    playlist.write_text(lines.format("v.ts"))
    with pytest.raises(BadVideo, match=f"{name}.*playlist"):
        probe(Clip(playlist))
    with pytest.raises(BadVideo):
        probe(Clip(io.BytesIO(playlist.read_bytes())))
    with pytest.raises(BadAudio, match="playlist"):
        audio.read(playlist)


def test_sound_is_whole_from_the_beginning() -> None:
    heard = read_sound(Clip(videos.write(io.BytesIO(), "matroska", sound=True)))
    assert heard and heard.samples[0, 100:500].abs().max() > 0.002


def test_choice_of_times() -> None:
    def numbers_of(choice: FrameChoice, duration: float, rate: float = 24) -> list[int]:
        return [round(time * rate) for time in frame_times(choice, duration, rate)]

    assert numbers_of(FrameChoice("fps", 1), 4) == [0, 32, 63, 95]
    assert len(numbers_of(FrameChoice("fps", 2), 3600)) == 768
    assert len(numbers_of(FrameChoice("fps", 2, max_frames=9), 3600)) == 8
    assert numbers_of(FrameChoice("fps", 0.1), 4) == [0, 32, 63, 95], "no fewer than 4"
    assert numbers_of(FrameChoice("count", 3), 4) == [0, 48, 95]
    assert numbers_of(FrameChoice("count", 60, 1, 3), 4) == [0, 48, 95]
    assert numbers_of(FrameChoice("every", 1), 4.5) == [0, 24, 48, 72, 96]
    assert numbers_of(FrameChoice(), 1 / 24) == [0]
    for mode in ("fps", "every", "count"):
        with pytest.raises(BadOption, match=mode):
            FrameChoice(mode, 0)


def test_scene_cuts_are_found_and_chosen(tmp_path: Path) -> None:
    """Three scenes, each of slow motion: numbers run through their three lowest bits."""
    path = tmp_path / "v.mp4"
    scenes = [0b00000000] * 24 + [0b11110000] * 36 + [0b00101000] * 36
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width = videos.SIZE
        stream.pix_fmt = "yuv420p"
        for index, scene in enumerate(scenes):
            pixels = videos.numbered(scene)
            pixels[10:20, index % 80 : index % 80 + 10] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert sorted(scene_cuts(Clip(path))) == pytest.approx([1.0, 2.5])
    opened = io.BytesIO(path.read_bytes())
    shown = video.read(Clip(opened), FrameChoice("scenes", min_frames=2))
    assert numbers(shown) == [0, 0b11110000, 0b00101000]
    part = video.read(Clip(path, 1.5), FrameChoice("scenes", min_frames=2))
    assert part.times == pytest.approx([0, 1.0])
    frames = torch.stack([videos_frame(scene) for scene in scenes])
    found = video.from_frames(frames, 24, FrameChoice("scenes", min_frames=2))
    assert found.times == pytest.approx([0, 1.0, 2.5])


def videos_frame(number: int) -> torch.Tensor:
    return torch.from_numpy(videos.numbered(number)).movedim(-1, 0)


def test_frames_that_come_as_pictures() -> None:
    frames = torch.stack([videos_frame(number) for number in range(30)])
    shown = video.from_frames(frames, 10, FrameChoice("fps", 2))
    assert numbers(shown) == [0, 6, 12, 17, 23, 29]
    assert shown.times == pytest.approx([0, 0.6, 1.2, 1.7, 2.3, 2.9])


@pytest.mark.parametrize("rotation", [0, 90])
def test_cut_keeps_frames_times_and_sound(tmp_path: Path, rotation: int) -> None:
    pts = list(itertools.accumulate([0, *[40, 80] * 30]))
    source = Clip(
        videos.write(
            tmp_path / "v.mkv", "matroska", frames=len(pts), pts=pts, rate=16, sound=True,
            rotation=rotation,
        )
    )  # fmt: skip
    out = io.BytesIO()
    cut(source, 1.2, 2.4, out)
    made = Clip(out)
    facts = probe(made)
    assert facts.has_audio and facts.size == probe(source).size and facts.rotation == 0
    assert facts.duration == pytest.approx(1.2, abs=0.09)
    whole = video.frames_at(source, [at / 1000 for at in pts if 1200 <= at < 2400])
    again = video.frames_at(made, [at - 1.2 for at in whole.times])
    assert again.times == pytest.approx([at - 1.2 for at in whole.times], abs=0.002)
    assert (again.frames.float() - whole.frames.float()).abs().mean() < 4
    loud = read_sound(Clip(source.source, 1.2, 2.4))
    kept = read_sound(made)
    assert loud and kept and kept.rate == loud.rate == 16_000
    length = min(loud.samples.shape[1], kept.samples.shape[1])
    assert length > 1.1 * 16_000
    for sound in (loud, kept):  # it rises evenly over the whole file
        rising = sound.samples[0, : length // 8 * 8].view(8, -1).pow(2).mean(1).sqrt()
        assert torch.equal(rising.argsort(), torch.arange(8))


def test_a_video_is_read_with_what_is_heard_in_it(tmp_path: Path) -> None:
    """Trimmed as its frames are, in the form in which models hear."""
    loud = Clip(videos.write(tmp_path / "loud.mp4", sound=True, frames=96))
    whole = video.read(loud, sound=True).audio
    part = video.read(Clip(loud.source, 1.0, 3.0), sound=True).audio
    assert whole and part and part.rate == whole.rate == 16_000 and part.samples.shape[0] == 1
    assert part.samples.shape[1] == pytest.approx(32_000, abs=400)
    expected = whole.samples[:, 16_000:][:, :30_000]
    assert (part.samples[:, :30_000] - expected).abs().max() < 0.02
    assert expected.std() > 0.02
    # Opening a file that has been written by blocks reads some of its sound.
    interleaved = Clip(videos.write(tmp_path / "loud.mkv", "matroska", sound=True, frames=96))
    begins = read_sound(interleaved)
    assert begins and begins.samples[0, :16_000].std() > 0.02
    assert (begins.samples[0, 1000:16_000] - whole.samples[0, 1000:16_000]).abs().max() < 0.02
    silent = Clip(videos.write(tmp_path / "silent.mp4"))
    assert video.read(silent, sound=True).audio is None and video.read(loud).audio is None
    assert video.read(Clip(loud.source, 1.0, 1.05), sound=True).audio is None  # too short


def test_sound_of_eight_channels_is_read_and_cut() -> None:
    with av.open(source := io.BytesIO(), "w", format="matroska") as container:
        pictures = container.add_stream("libx264", rate=24)
        pictures.height, pictures.width, pictures.pix_fmt = *videos.SIZE, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="7.1")
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(videos.numbered(number), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode())
        levels = (torch.arange(1, 9) / 20).repeat(1, 1024).numpy()
        for _ in range(46):
            beep = av.AudioFrame.from_ndarray(levels, "flt", "7.1")
            beep.rate = 48_000
            container.mux(sound.encode(beep))
        container.mux(sound.encode())
    heard = read_sound(Clip(source))
    assert heard and heard.samples.shape == (8, 46 * 1024)
    assert heard.samples[:, 24_000].tolist() == pytest.approx(levels[0, :8], abs=0.01)
    cut(Clip(source), 0.25, 0.75, out := io.BytesIO())
    kept = read_sound(Clip(out))
    assert kept and len(kept.samples) == 2


def test_reading_can_be_stopped(tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    clip = Clip(videos.write(tmp_path / "v.mp4"))
    with pytest.raises(Stop):
        video.read(clip, check=stop)
