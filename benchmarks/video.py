"""Frames out of long videos, against decoding all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import ROOT, load_pack
from .figures import Figure, compare

RATE, SIZE, FRAMES = 24, (360, 640), 128
MOST_BYTES = 200_000_000
"""Of resident memory beside the frames, whatever the file's length."""


def long_video(name: str, wanted: float | None, seconds: int, keyframes: int) -> Figure:
    """128 frames spread over a generated file of ``seconds`` with a keyframe every ``keyframes``
    frames. Raises ``AssertionError`` where reading them takes more memory beside the frames than
    ``MOST_BYTES``, or in the whole file clearly more than in a tenth of it."""
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder, "whole.mp4"), Path(folder, "part.mp4")
        write(whole, seconds, keyframes)
        write(part, seconds // 10, keyframes)
        held, held_of_part = memory(whole), memory(part)
        assert held <= MOST_BYTES, f"{held:,} bytes beside the frames"
        assert held <= held_of_part + 20_000_000, f"{held:,} bytes, of a tenth {held_of_part:,}"
        return compare(
            name,
            lambda: seen(whole),
            lambda: seen_of_all(whole),
            wanted=wanted,
            repeats=2,
            note=f"against decoding all of it; {held // 10**6} MB of memory beside the frames, "
            f"{held_of_part // 10**6} MB of a file a tenth as long",
            warm_up=lambda: seen(part),
        )


def seen(path: Path) -> list[tuple[float, int]]:
    """Times and check sums of the frames that the engine reads."""
    shown = _read(path)
    return [
        (round(time, 3), zlib.crc32(frame.movedim(0, -1).contiguous().numpy()))
        for time, frame in zip(shown.times, shown.frames, strict=True)
    ]


def seen_of_all(path: Path) -> list[tuple[float, int]]:
    """The same, of every frame decoded one after the other."""
    from qwen_vl_suite.qwenvl.media.frame_reader import rgb
    from qwen_vl_suite.qwenvl.media.frame_times import FrameChoice, frame_times
    from qwen_vl_suite.qwenvl.media.video_files import Clip, opened

    with opened(Clip(path)) as video:
        facts = video.facts()
        times = frame_times(FrameChoice("count", FRAMES), facts.duration, facts.rate)
        wanted = {round(time * RATE) for time in times}
        video.container.seek(0)
        found = []
        for number, frame in enumerate(video.container.decode(video.stream)):
            if number in wanted:
                pixels = rgb(frame, video.size).contiguous().numpy()
                found.append((round(video.seconds(frame.pts), 3), zlib.crc32(pixels)))
        return found


def _read(path: Path) -> Any:
    from qwen_vl_suite.qwenvl.media import video
    from qwen_vl_suite.qwenvl.media.frame_times import FrameChoice
    from qwen_vl_suite.qwenvl.media.video_files import Clip

    return video.read(Clip(path), FrameChoice("count", FRAMES))


def memory(path: Path) -> int:
    """Bytes that a process grows by while it reads the frames, these left out."""
    command = [sys.executable, "-m", "benchmarks.video", str(path)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout))


def write(path: Path, seconds: int, keyframes: int) -> None:
    """A file of a minute's moving squares again and again, of which only the first is encoded."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=RATE, options={"preset": "veryfast", "crf": "28"}
        )
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = keyframes
        minute = [packet for frame in _frames(60 * RATE) for packet in stream.encode(frame)]
        minute += stream.encode()
        ticks = round(60 / stream.codec_context.time_base)
        times = [(packet.pts, packet.dts) for packet in minute]
        for number in range(seconds // 60):
            for packet, (pts, dts) in zip(minute, times, strict=True):
                packet.time_base = stream.codec_context.time_base
                packet.pts, packet.dts = pts + number * ticks, dts + number * ticks
                packet.stream = stream
                container.mux(packet)


def _frames(count: int) -> Iterator[Any]:
    import av
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    wide = noise.repeat(48, 0).repeat(48, 1)
    for number in range(count):
        shown = np.roll(wide, (number, 3 * number), (0, 1))[: SIZE[0], : SIZE[1]]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
        frame.pts = number
        yield frame


def main() -> None:
    """Prints what ``memory`` gives."""
    load_pack()
    path = Path(sys.argv[1])
    with open("/proc/self/clear_refs", "w") as file:  # forgets the peak of the imports
        _read_one(path)
        file.write("5")
    before = _peak()
    shown = _read(path)
    print(json.dumps(_peak() - before - shown.frames.nbytes))


def _read_one(path: Path) -> None:
    """Brings in what the first call needs."""
    from qwen_vl_suite.qwenvl.media import video
    from qwen_vl_suite.qwenvl.media.video_files import Clip

    video.frames_at(Clip(path), [0])


def _peak() -> int:
    """Peak of resident memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main()
