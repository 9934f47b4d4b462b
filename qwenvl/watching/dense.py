"""Dense captions: a caption for each segment of a video."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..backends.base import Backend
from ..errors import BadOption, BadVideo
from ..query import Query, Steps
from ..tasks.events import result_of
from ..types import Event, Result, Task
from .viewing import Viewed, Viewing, viewed

PORTION = 512 << 20
"""Bytes of frames that are asked about in one batch."""

MOST_SEGMENTS = 5000
_LEAST_SCENE, _MOST_SCENE = 1.0, 60.0  # seconds; shorter ones belong to the one before

Segment = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Captions:
    """A caption by ``task`` for each segment of a video: for so many ``seconds``, or, where that is
    0, for each of its scenes, of which long ones are parted. Raises ``BadOption``."""

    task: Task
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not (self.seconds == 0 or 0.1 <= self.seconds < math.inf):
            raise BadOption(
                f"Segments of {self.seconds:g} s cannot be captioned: use 0 (a segment a scene), "
                "or 0.1 and more."
            )

    def steps(self, viewing: Viewing, backend: Backend, query: Query) -> Steps:
        segments = self._segments(viewing)
        replies: dict[int, Result] = {}
        unread: list[BadVideo] = []
        times: list[float] = []
        notes: list[str] = []
        rest = deque(enumerate(segments))
        while rest:
            asked: dict[int, Query] = {}
            nbytes = frames = 0
            while rest and nbytes < PORTION:
                number, (start, end) = rest.popleft()
                try:
                    video = viewing.read(start, end)
                except BadVideo as error:  # where a file is damaged, the rest has its captions
                    unread.append(error)
                    replies[number] = Result("", finish_reason="error", error=str(error))
                    continue
                nbytes += video.frames.nbytes
                frames += len(video.times)
                times += [start + time for time in video.times]
                notes += video.notes
                own = dataclasses.replace(query, task=self.task, picture=video, method=None)
                asked[number] = dataclasses.replace(own, keep_unreadable=True)
            if asked:
                viewing.tell(backend, list(asked.values()), frames)
                replies |= zip(asked, (yield list(asked.values())), strict=True)
        if len(unread) == len(segments):
            raise unread[0]
        return _joined(segments, [replies[at] for at in range(len(segments))], times, notes)

    def _segments(self, viewing: Viewing) -> list[Segment]:
        footage = viewing.footage
        if self.seconds:
            return equal_segments(footage.length, self.seconds)
        return scene_segments(footage.length, footage.cuts(viewing.check))


def equal_segments(length: float, seconds: float) -> list[Segment]:
    """Parts of ``seconds``; the rest at the end is one if it is half as long, and else belongs to
    the part before. Raises ``BadOption`` for too many."""
    number = max(1, math.floor(length / seconds + 0.5))
    if number > MOST_SEGMENTS:
        raise BadOption(
            f"A video of {length:g} s has {number:,} segments of {seconds:g} s; at most "
            f"{MOST_SEGMENTS:,} are captioned. Use longer ones."
        )
    bounds = [index * seconds for index in range(number)]
    return list(zip(bounds, [*bounds[1:], length], strict=True))


def scene_segments(length: float, cuts: Sequence[float]) -> list[Segment]:
    """Parts from cut to cut, none shorter than a second where the video is longer, none longer than
    a minute."""
    bounds = [0.0]
    for cut in cuts:
        if cut - bounds[-1] >= _LEAST_SCENE and length - cut >= _LEAST_SCENE:
            bounds.append(cut)
    found: list[Segment] = []
    for start, end in zip(bounds, [*bounds[1:], length], strict=True):
        parts = math.ceil((end - start) / _MOST_SCENE)
        step = (end - start) / max(1, parts)
        edges = [start + index * step for index in range(parts)]
        found += zip(edges, [*edges[1:], end], strict=True)
    return found


def timestamp(seconds: float) -> str:
    """``mm:ss.f``, with hours from one hour on."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown = f"{minutes:02}:{rest // 10:02}.{rest % 10}"
    return f"{hours}:{shown}" if hours else shown


def _joined(
    segments: Sequence[Segment],
    replies: Sequence[Result],
    times: Sequence[float],
    notes: Sequence[str],
) -> Viewed:
    """One result of all captions. Where all of them failed, the first; where some did, a note says
    which."""
    pairs = list(zip(segments, replies, strict=True))
    failed = [(segment, reply) for segment, reply in pairs if reply.error]
    if len(failed) == len(pairs):
        return viewed(replies[0], times=tuple(times))
    found = [
        Event(round(start, 3), round(end, 3), reply.text)
        for (start, end), reply in pairs
        if not reply.error
    ]
    if failed:
        (start, end), first = failed[0]
        notes = (
            *notes,
            f"{len(failed)} of {len(pairs)} segments have no caption, the first of them from "
            f"{start:g} s to {end:g} s. {first.error}",
        )
    lines = [f"{timestamp(e.start)} - {timestamp(e.end)}  {e.label}" for e in found]
    reasons = [reply.finish_reason for reply in replies if not reply.error]
    more = dict.fromkeys([*notes, *(note for reply in replies for note in reply.notes)])
    return viewed(
        result_of(found, tuple(more), "\n".join(lines)),
        times=tuple(times),
        thinking="\n\n".join(filter(None, (reply.thinking for reply in replies))),
        finish_reason=next((reason for reason in reasons if reason != "stop"), "stop"),
        reply="\n".join(reply.reply for reply in replies),
    )
