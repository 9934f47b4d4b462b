"""Video files: opening them with PyAV, and what they say of themselves. No frame is decoded but
the first."""

from __future__ import annotations

import heapq
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..errors import BadOption, BadVideo, Unavailable
from ..types import Size
from .pyav import container_of

log = logging.getLogger(__name__)

_STATISTICS = "_STATISTICS_TAGS"
_DURATION = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")

Check = Callable[[], None]

MAX_THREADS = 4
"""Threads of a decoder: each holds frames of the full size."""


MOST_REORDERED = 16
"""Frames that H.264 and H.265 store before one that is shown before them, at most."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A video, or a part of it. ``source``: the path of a file, or an open binary file that can be
    searched, such as a ``BytesIO``, which is read from its beginning. ``start`` and ``end``: in
    seconds from the first frame of the file; None: to its end. ``name``: what messages call it;
    by default the file's name. ``measured``: what was counted out of the file, which parts of it
    share. Raises ``BadOption`` for an end that is not behind the start."""

    source: str | Path | IO[bytes]
    start: float = 0.0
    end: float | None = None
    name: str = ""
    measured: dict[str, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            until = "the end" if self.end is None else f"{self.end:g} s"
            raise BadOption(
                f"The part of a video from {self.start:g} s to {until} is empty. Let it begin at 0 "
                "or later, and end behind that."
            )

    @property
    def title(self) -> str:
        if self.name:
            return self.name
        is_path = isinstance(self.source, (str, os.PathLike))
        return Path(str(self.source)).name if is_path else "The video"

    def part(self, start: float, end: float | None = None) -> Clip:
        """A part of this part, with times from where this one begins."""
        last = self.end if end is None else self.start + end
        if self.end is not None and last is not None:
            last = min(last, self.end)
        return Clip(self.source, self.start + start, last, self.name, self.measured)


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a clip without decoding it. ``duration`` in seconds, of the clip alone;
    ``size``: height and width of its frames as they are shown, turned as ``rotation`` says
    (degrees counter-clockwise: 0, 90, 180 or 270); ``rate``: frames a second on average, 0 where
    unknown; ``frames``: about how many it has; ``codec``: as FFmpeg calls it."""

    duration: float
    size: Size
    rate: float
    frames: int
    has_audio: bool
    rotation: int
    codec: str


class OpenVideo:
    """An open video file: its ``container`` and its video ``stream``, and ``origin``: the pts of
    its first frame, in ``time_base`` seconds each. Times of frames are counted from there.
    ``is_damaged``: something could not be decoded. ``skip_before``: a pts before which frames of
    video that no other is made from are not decoded (None: all are), and ``skipped`` the latest pts
    that this may have held back. ``unsure``: within so many pts behind the first frame of a search
    the times are not sure."""

    def __init__(self, clip: Clip, container: Any):
        self.clip, self.container = clip, container
        self.is_damaged = self._lacks_times = False
        self.skip_before: int | None = None
        self.skipped = -(1 << 63)
        self.unsure = 0
        self.stream = _video_stream(clip, container)
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
        self.time_base = float(self.stream.time_base)
        first = self._first_frame()
        self.origin: int = first.pts
        if "avi" in container.format.name and self.stream.codec_context.has_b_frames:
            self.unsure = MOST_REORDERED
        self.rotation = round(first.rotation / 90) * 90 % 360
        height, width = first.height, first.width
        self.size: Size = (width, height) if self.rotation % 180 else (height, width)

    def seconds(self, pts: int) -> float:
        """Of a frame, from the first frame of the file."""
        return (pts - self.origin) * self.time_base

    def ticks(self, seconds: float) -> int:
        """The pts that is ``seconds`` behind the first frame."""
        return self.origin + int(seconds / self.time_base)

    def facts(self, check: Check = lambda: None) -> VideoFacts:
        """Of the clip. ``check`` is called for every packet where they are counted through. Raises
        ``BadVideo`` where it begins behind the end of the file."""
        rate = float(self.stream.average_rate or self.stream.guessed_rate or 0)
        whole = self._duration(rate, check)
        start, end = self.clip.start, min(self.clip.end or whole, whole)
        if start >= end:
            raise BadVideo(
                f"{self.clip.title} is {whole:.3g} s long, and nothing of it is left from "
                f"{start:g} s on. Choose an earlier start."
            )
        return VideoFacts(
            duration=end - start,
            size=self.size,
            rate=rate,
            frames=max(1, round((end - start) * rate)),
            has_audio=bool(self.container.streams.audio),
            rotation=self.rotation,
            codec=self.stream.codec_context.name,
        )

    def decoded(self, stream: Any, check: Check = lambda: None) -> Iterator[Any]:
        """Frames of ``stream`` with a time, from where the file was searched to, without what is
        damaged: then ``is_damaged`` is set. ``check`` is called for every packet."""
        frames = self._decoded(stream, check)
        return in_order_of_time(frames) if self.unsure and stream is self.stream else frames

    def _decoded(self, stream: Any, check: Check) -> Iterator[Any]:
        av = load_av()
        packets = self.container.demux(stream)
        is_over = False
        while not is_over:
            check()
            frames: list[Any] = []
            try:
                packet = next(packets, None)
                is_over = packet is None  # behind damage, with frames left in the decoder
                if packet is not None and stream is self.stream:
                    self._skip_or_not(packet.pts)
                frames = stream.decode(None) if packet is None else packet.decode()
            except av.EOFError:
                return
            except av.FFmpegError as error:
                log.debug("%s is damaged: %s", self.clip.title, reason(error))
                self.is_damaged = True
            self._lacks_times = self._lacks_times or any(frame.pts is None for frame in frames)
            yield from (frame for frame in frames if frame.pts is not None)

    def _skip_or_not(self, pts: int | None) -> None:
        """Tells the decoder whether it need not decode the next packet."""
        skips = pts is not None and self.skip_before is not None and pts < self.skip_before
        self.stream.codec_context.skip_frame = "NONREF" if skips else "DEFAULT"
        if skips and pts is not None:
            self.skipped = max(self.skipped, pts)

    def _first_frame(self) -> Any:
        first = next(self.decoded(self.stream), None)
        if first is not None:
            return first
        if self._lacks_times:
            raise BadVideo(
                f"{self.clip.title} has no timestamps, so the times of its frames are unknown. Put "
                "it into a container: ffmpeg -i FILE -c copy FILE.mkv"
            )
        raise BadVideo(f"{self.clip.title} holds no frame that can be decoded.")

    def _duration(self, rate: float, check: Check) -> float:
        """Seconds of the whole file."""
        av = load_av()
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        if named := _named_duration(self.stream.metadata, self.origin * self.time_base):
            return named
        if self.container.duration:
            return float(self.container.duration / av.time_base)
        known = self.clip.measured
        if "duration" not in known:
            known["duration"] = self._measured_duration(rate, check)
        return known["duration"]

    def _measured_duration(self, rate: float, check: Check) -> float:
        """Of a file that does not tell, such as a browser's recording: its packets are counted
        through, and none is decoded."""
        av = load_av()
        last = self.origin
        try:
            for packet in self.container.demux(self.stream):
                check()
                last = max(last, packet.pts or last)
        except av.FFmpegError as error:  # the video is as long as what comes before the damage
            log.debug("%s is damaged: %s", self.clip.title, reason(error))
        return self.seconds(last) + (1 / rate if rate else 0)


def in_order_of_time(frames: Iterator[Any]) -> Iterator[Any]:
    """``frames`` as they are shown, from a container that numbers them as they are stored, as AVI
    does: the times are right, but each belongs to another frame. Of a search into the middle the
    first may stay too early, where frames that are shown before it are stored behind it."""
    waiting: deque[Any] = deque()
    times: list[int] = []
    for frame in frames:
        waiting.append(frame)
        heapq.heappush(times, frame.pts)
        if len(waiting) > MOST_REORDERED:
            yield _timed(waiting.popleft(), heapq.heappop(times))
    while waiting:
        yield _timed(waiting.popleft(), heapq.heappop(times))


def _timed(frame: Any, pts: int) -> Any:
    frame.pts = pts
    return frame


@contextmanager
def opened(clip: Clip) -> Iterator[OpenVideo]:
    """``clip``'s file while the block runs. Raises ``BadVideo`` for what is no video, has no
    frames, or is damaged from its beginning, and ``Unavailable`` without PyAV. What PyAV raises in
    the block becomes a ``BadVideo`` too."""
    av = load_av()
    try:
        with _container(av, clip) as container:
            video = OpenVideo(clip, container)
            try:
                yield video
            finally:
                # Freed with threads at work, a decoder waits for them with Python's lock held; they
                # wait for that lock where some other code has turned on PyAV's log.
                video.stream.codec_context.flush_buffers()
    except av.FFmpegError as error:
        raise BadVideo(f"{clip.title} cannot be read as a video: {reason(error)}.") from error


def probe(clip: Clip, check: Check = lambda: None) -> VideoFacts:
    """What is known of ``clip`` without decoding it. Raises as ``opened`` does."""
    with opened(clip) as video:
        return video.facts(check)


def first_time(clip: Clip) -> float:
    """Seconds on the clock of ``clip``'s file at which its first frame is shown: often 0, but 1.4
    in MPEG-TS, say. Raises as ``opened`` does."""
    with opened(clip) as video:
        return float(video.origin * video.time_base)


def load_av() -> Any:
    """The library. Raises ``Unavailable`` without it."""
    try:
        import av
    except ImportError as error:
        raise Unavailable(
            "Videos need the package av (PyAV). Install it with: pip install av"
        ) from error
    return av


def reason(error: Any) -> str:
    """Why FFmpeg failed, without a name of a file."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def _container(av: Any, clip: Clip) -> Any:
    file = _file(clip)
    try:
        return container_of(av, file)
    except av.ArgumentError as error:
        raise BadVideo(
            f"{clip.title} cannot be read as a video: it is damaged, or a playlist that names "
            "other files. Choose one of those."
        ) from error


def _file(clip: Clip) -> Any:
    """What PyAV opens. A path is never taken for an address or a protocol of FFmpeg's."""
    source = clip.source
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if os.path.isdir(path):
            raise BadVideo(f"{clip.title} is a folder. Name the video files in it.")
        if not os.path.isfile(path):
            raise BadVideo(f"{clip.title} cannot be read: there is no such file.")
        return f"file:{path}"
    if not (hasattr(source, "read") and hasattr(source, "seek")):
        raise BadVideo(f"{clip.title} is no file that can be searched: {type(source).__name__}.")
    source.seek(0)
    return source


def _named_duration(metadata: Mapping[str, str], begins: float) -> float:
    """Seconds of a Matroska track, which ``begins`` at so many on the file's clock, by its tag,
    such as ``00:01:02.500000000``; 0 without one. The file's own duration is that of its longest
    track, the sound perhaps. FFmpeg writes down when the track ends, mkvmerge, among its
    statistics, how long it is."""
    named = {key.upper(): value for key, value in metadata.items()}
    # Perhaps with a language behind the names.
    counted = (key for key in named if key.startswith(_STATISTICS) and "DURATION" in named[key])
    length = next((key.replace(_STATISTICS, "DURATION") for key in counted), "")
    found = _DURATION.fullmatch(named.get(length, "") or named.get("DURATION", ""))
    if not found:
        return 0.0
    hours, minutes, seconds = found.groups()
    told = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return told if length in named else told - begins


def _video_stream(clip: Clip, container: Any) -> Any:
    covers = [
        stream
        for stream in container.streams.video
        if stream.disposition & type(stream.disposition).attached_pic
    ]
    streams = [stream for stream in container.streams.video if stream not in covers]
    if not streams:
        kind = "sound only" if container.streams.audio else "no video stream"
        raise BadVideo(f"{clip.title} holds {kind}: there is nothing to see in it.")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise BadVideo(f"{clip.title} is encoded in a way that this PyAV cannot decode.")
    return stream
