"""Video writing: parts of a file cut out to files of their own, frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from ..errors import BadOption, Unavailable
from .frame_reader import FrameReader, rgb
from .video_files import Clip, OpenVideo, load_av, opened, reason
from .video_sound import sound_blocks

_VIDEO_CODECS = ("libx264", "libopenh264", "mpeg4")
"""Encoders for MP4, best first: not every build of FFmpeg has them all."""

_SOUND_CODEC = "aac"
_SOUND_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_TIME_BASE = Fraction(1, 90_000)  # fine enough for every frame rate


def cut(
    source: Clip,
    start: float,
    end: float,
    out: str | Path | IO[bytes],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Writes ``source`` from ``start`` to ``end`` seconds, with its sound, to ``out``, an MP4 file
    (a path, or an open binary file that can be searched).

    It is encoded anew, so that it begins with exactly the frame that is shown at ``start``; frames
    keep their size and their distances in time. Memory does not grow with the length. Raises
    ``BadOption`` for an end that is not behind the start, ``BadVideo`` as ``video_files.opened``,
    ``Unavailable`` where nothing can be written.
    """
    if not 0 <= start < end:
        raise BadOption(f"A clip from {start:g} s to {end:g} s has no length.")
    av = load_av()
    part = source.part(start, end)
    target = str(out) if isinstance(out, (str, Path)) else out
    try:
        with av.open(target, "w", format="mp4") as container:
            _write(container, part, check)
    except OSError as error:
        raise Unavailable(f"The clip cannot be written: {reason(error)}.") from error


def _write(container: Any, part: Clip, check: Callable[[], None]) -> None:
    with opened(part) as video:
        facts = video.facts()
        output = _video_output(container, video, facts.rate)
        has_sound = facts.has_audio
    # Encoded first, since it is small, and a file is read by one reader at a time.
    sound = deque(_encoded_sound(container, part, check) if has_sound else ())
    with opened(part) as video:
        for packet in _encoded_frames(output, video, part, check):
            while sound and sound[0].pts * sound[0].time_base <= packet.dts * packet.time_base:
                _mux(container, sound.popleft())
            _mux(container, packet)
    for packet in sound:
        _mux(container, packet)


def _mux(container: Any, packet: Any) -> None:
    """Writes a packet. Raises ``Unavailable`` where the file cannot be written: the errors of
    reading are others."""
    try:
        container.mux(packet)
    except OSError as error:
        raise Unavailable(f"The clip cannot be written: {reason(error)}.") from error


def _encoded_frames(
    output: Any, video: OpenVideo, part: Clip, check: Callable[[], None]
) -> Iterator[Any]:
    av = load_av()
    size = (output.height, output.width)
    origin = None
    end = part.start + video.facts().duration
    for frame in FrameReader(video, check).between(part.start, end):
        origin = frame.pts if origin is None else origin
        if video.rotation:  # else it stays as it is, without a detour by RGB
            shown = av.VideoFrame.from_ndarray(rgb(frame, size, video.rotation).numpy(), "rgb24")
        else:
            shown = frame.reformat(output.width, output.height, "yuv420p")
        shown.pts = round((frame.pts - origin) * video.stream.time_base / _TIME_BASE)
        shown.time_base = _TIME_BASE
        shown.pict_type = av.video.frame.PictureType.NONE  # the encoder chooses its own keyframes
        yield from output.encode(shown)
    yield from output.encode(None)


def _encoded_sound(container: Any, part: Clip, check: Callable[[], None]) -> list[Any]:
    av = load_av()
    packets: list[Any] = []
    with opened(part) as video:
        source = video.container.streams.audio[0]
        layout = "mono" if source.channels == 1 else "stereo"
        rate = source.rate if source.rate in _SOUND_RATES else 48_000
        output = container.add_stream(_SOUND_CODEC, rate=rate, layout=layout)
        end = part.start + video.facts().duration
        position = 0
        for block in sound_blocks(video, part.start, end, check):
            mixed = block.T.reshape(1, -1)  # PyAV takes no more than eight planes
            frame = av.AudioFrame.from_ndarray(mixed, "flt", source.layout.name)
            frame.rate, frame.pts, frame.time_base = source.rate, position, Fraction(1, source.rate)
            position += block.shape[1]
            packets += output.encode(frame)
    return packets + output.encode(None)


def _video_output(container: Any, video: OpenVideo, rate: float) -> Any:
    av = load_av()
    codec = next((name for name in _VIDEO_CODECS if name in av.codecs_available), None)
    if codec is None:
        raise Unavailable("This PyAV has no encoder for MP4. Install another: pip install -U av")
    stream = container.add_stream(codec, rate=Fraction(rate or 25).limit_denominator(1001))
    # Encoders of 4:2:0 want even sides.
    stream.height, stream.width = (max(2, side // 2 * 2) for side in video.size)
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = _TIME_BASE
    return stream
