"""Tracking: one thing followed across the frames of a video, by grounding in each of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import coordinates
from ..backends.base import Backend
from ..errors import BadOption
from ..query import Query, Steps
from ..tasks.ground import ground
from ..types import Box, Event, Result, Size, Task
from .linking import between, linked, scaled
from .viewing import Viewed, Viewing, viewed

INTERPOLATE, LEAVE = "interpolate", "leave"
GAPS = (INTERPOLATE, LEAVE)

SEEN, INTERPOLATED, MISSING, UNREADABLE = "seen", "interpolated", "missing", "unreadable"
"""What is known of a frame: the model found the thing in it; it did not, and the box is put between
those of the frames around; it did not; its reply could not be read."""


@dataclass(frozen=True, eq=False)
class Track:
    """One thing, named or described by ``find``, in each frame. ``gaps``: what becomes of frames in
    which it was not found between others in which it was, one of ``GAPS``. ``strict`` as of
    ``tasks.ground``. Raises ``BadOption``.

    The result has ``frame_boxes``, and ``events``: from when to when it was found without a frame
    between that lacks it. ``data`` has an entry a frame: ``frame`` (from 0, of those that the model
    saw), ``time``, ``bbox_2d`` in whole pixels of the video or None, ``label``, and ``source``, one
    of ``seen``, ``interpolated``, ``missing`` and ``unreadable``. ``text`` is the same as JSON."""

    find: str
    gaps: str = INTERPOLATE
    strict: str = "auto"

    def __post_init__(self) -> None:
        if self.gaps not in GAPS:
            raise BadOption(f"There are no gaps {self.gaps!r}. Choose one of {', '.join(GAPS)}.")
        object.__setattr__(self, "_task", ground(self.find, strict=self.strict))

    @property
    def task(self) -> Task:
        return self._task  # type: ignore[attr-defined]

    def steps(self, viewing: Viewing, backend: Backend, query: Query) -> Steps:
        video = viewing.read()
        own = _shared(query, len(video.frames), backend)
        own = dataclasses.replace(own, task=self.task, method=None, keep_unreadable=True)
        asked = [dataclasses.replace(own, picture=frame) for frame in video.frames]
        viewing.tell(backend, asked, len(asked))
        replies = yield asked
        failed = [reply for reply in replies if reply.error]
        if len(failed) == len(replies):
            return viewed(failed[0], times=video.times)
        shown = video.frames.shape[-2:]
        found = [_in_video(reply.boxes, shown, viewing.footage.size) for reply in replies]
        sources = [UNREADABLE if reply.error else MISSING for reply in replies]
        boxes = self._followed(found, sources, video.times, viewing.check)
        notes = [*video.notes, *self._notes(found, sources, failed)]
        return self._result(boxes, sources, video.times, replies, notes)

    def _followed(
        self,
        found: Sequence[Sequence[Box]],
        sources: list[str],
        times: Sequence[float],
        check: Callable[[], None],
    ) -> list[Box | None]:
        """The box of each frame; ``sources`` is brought up to date."""
        boxes: list[Box | None] = [None] * len(found)
        for number, chosen in enumerate(linked(found, check)):
            if chosen is not None:
                boxes[number], sources[number] = found[number][chosen], SEEN
        seen = [number for number, source in enumerate(sources) if source == SEEN]
        if self.gaps == INTERPOLATE:
            for before, after in itertools.pairwise(seen):
                first, last = boxes[before], boxes[after]
                assert first is not None and last is not None
                for number in range(before + 1, after):
                    share = (times[number] - times[before]) / (times[after] - times[before])
                    boxes[number], sources[number] = between(first, last, share), INTERPOLATED
        return boxes

    def _notes(
        self, found: Sequence[Sequence[Box]], sources: Sequence[str], failed: Sequence[Result]
    ) -> list[str]:
        notes = []
        if count := sources.count(INTERPOLATED):
            notes.append(f"{count} of {len(sources)} boxes are interpolated between frames.")
        if count := sum(source in (MISSING, UNREADABLE) for source in sources):
            notes.append(f"{count} of {len(sources)} frames have no box.")
        if failed:
            notes.append(
                f"{len(failed)} of {len(sources)} frames have no reply that can be read. "
                f"{failed[0].error}"
            )
        if count := sum(len(boxes) > 1 for boxes in found):
            notes.append(
                f"In {count} of {len(sources)} frames several were found; the one that moves least "
                "is followed."
            )
        return notes

    def _result(
        self,
        boxes: Sequence[Box | None],
        sources: Sequence[str],
        times: Sequence[float],
        replies: Sequence[Result],
        notes: Sequence[str],
    ) -> Viewed:
        data = [
            _entry(number, *known)
            for number, known in enumerate(zip(times, boxes, sources, strict=True))
        ]
        more = dict.fromkeys([*notes, *(note for reply in replies for note in reply.notes)])
        reasons = [reply.finish_reason for reply in replies if not reply.error]
        return Viewed(
            json.dumps(data, ensure_ascii=False),
            data=data,
            events=tuple(_presence(self.find, boxes, times)),
            notes=tuple(more),
            finish_reason=next((reason for reason in reasons if reason != "stop"), "stop"),
            reply="\n".join(reply.reply for reply in replies),
            times=tuple(times),
            frame_boxes=tuple((box,) if box else () for box in boxes),
        )


def _shared(query: Query, frames: int, backend: Backend) -> Query:
    """``query`` for each of so many ``frames``, which are asked about as pictures: each has its
    share of the tokens of the video. Raises ``BadOption`` where that is none."""
    if query.video_tokens is None:
        return query
    if query.video_tokens < frames:
        raise BadOption(
            f"Each of {frames} frames takes a token at the least, but max_video_tokens is "
            f"{query.video_tokens}. Raise it, or show fewer frames."
        )
    family = backend.family
    most = query.video_tokens // frames * family.patch_factor**2
    most = min(most, query.max_pixels or backend.max_pixels or family.pixel_bounds[1])
    least = query.min_pixels and min(query.min_pixels, most)
    return dataclasses.replace(query, min_pixels=least, max_pixels=most, video_tokens=None)


def _entry(number: int, time: float, box: Box | None, source: str) -> dict[str, Any]:
    place = list(coordinates.integer_box(box)) if box else None
    label = box.label if box else ""
    return {
        "frame": number,
        "time": round(time, 3),
        "bbox_2d": place,
        "label": label,
        "source": source,
    }


def _presence(find: str, boxes: Sequence[Box | None], times: Sequence[float]) -> list[Event]:
    """From when to when there is a box in every frame; each lasts until the next frame that was
    looked at, for it is not known when in between the thing went."""
    found: list[Event] = []
    start: float | None = None
    label = " ".join(find.split())
    for box, time in zip(boxes, times, strict=True):
        if box and start is None:
            start = time
        elif not box and start is not None:
            found.append(Event(round(start, 3), round(time, 3), label))
            start = None
    if start is not None:
        found.append(Event(round(start, 3), round(times[-1], 3), label))
    return found


def _in_video(boxes: Sequence[Box], shown: Size, size: Size) -> list[Box]:
    """Boxes in a frame of the size ``shown``, in pixels of the video of ``size``."""
    return [scaled(box, size[1] / shown[1], size[0] / shown[0]) for box in boxes]
