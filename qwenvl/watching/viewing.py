"""Viewing: one wish about one video, and how it is answered."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..backends.base import Backend
from ..errors import BadOption
from ..media.frame_times import FPS, FrameChoice
from ..media.video import DEFAULT_CHOICE, MAX_FRAME_PIXELS
from ..query import Query, Steps
from ..run import expected_tokens
from ..types import Box, Result, Task, Video
from .footage import Footage

MOST_BYTES = 1 << 30
"""Of the frames of one request; of many frames each is read smaller. 768 of them are still twice as
large as models see them."""

SILENT = "There is no sound in the video, or in a part of it: the model only saw that."

Told = Callable[[str, int, int], None]
"""Is told of a video before it is asked about: its title, and how many frames and tokens of it the
model will see."""


@dataclass(frozen=True)
class Viewed(Result):
    """A result about a video. ``times``: of the frames that the model saw, in seconds from its
    beginning; ``frame_boxes``: of something followed, the boxes in each of these frames, in pixels
    of the video."""

    times: tuple[float, ...] = ()
    frame_boxes: tuple[tuple[Box, ...], ...] = ()


class Wish(Protocol):
    """What is wanted of a video."""

    @property
    def task(self) -> Task:
        """How it is asked for, for a video of any length."""
        ...

    def steps(self, viewing: Viewing, backend: Backend, query: Query) -> Steps:
        """The way to the answer, a ``Viewed`` (see ``Query``)."""
        ...


@dataclass(frozen=True, eq=False)
class Viewing:
    """``wish`` about ``footage``, of which the model sees the frames of ``choice``. ``check`` is
    called while frames are read; what it raises reaches the caller. ``told``: see ``Told``.
    ``sound``: the model hears the video too, where the wish shows it as one. ``frame_pixels``: the
    most with which a frame is read."""

    footage: Footage
    wish: Wish
    choice: FrameChoice = DEFAULT_CHOICE
    check: Callable[[], None] = lambda: None
    told: Told = lambda title, frames, tokens: None
    sound: bool = False
    frame_pixels: int = MAX_FRAME_PIXELS

    def steps(self, backend: Backend, query: Query) -> Steps:
        """How a query about the video is answered: its ``Method``. Raises ``BadOption`` for the
        sound of a video where the model hears none."""
        if self.sound and backend.family.hearing is None:
            raise BadOption(
                f"The model is to hear the video's sound, but {backend.family.title} hears "
                "nothing. Turn sound off, or choose a Qwen2.5-Omni or Qwen3-Omni model."
            )
        return self.wish.steps(self, backend, query)

    def query(self, **fields: Any) -> Query:
        """To be asked. ``fields``: those of ``Query`` besides its task, picture and method."""
        asked = Query(self.wish.task, None, **fields)
        # Frames that are to be shown larger than Qwen's own tools show them are read larger too.
        most = max(self.frame_pixels, asked.min_pixels or 0, asked.max_pixels or 0)
        viewing = dataclasses.replace(self, frame_pixels=most)
        return dataclasses.replace(asked, method=viewing.steps, holds=viewing._nbytes)

    @property
    def _nbytes(self) -> int:
        """Of the frames that are read, about."""
        frames = most_frames(self.choice, self.footage.length)
        height, width = self.footage.size
        return frames * 3 * min(height * width, _bounded(self.frame_pixels, frames))

    def read(self, start: float = 0.0, end: float | None = None) -> Video:
        """The frames of a part of the video, with times counted from its beginning, and its sound.
        Raises ``BadVideo``."""
        last = self.footage.length if end is None else end
        most = self.frame_pixels
        return _read(self.footage, self.choice, start, last, most, self.check, self.sound)

    def tell(self, backend: Backend, asked: Sequence[Query], frames: int) -> None:
        """Of what the model will see, once it is known."""
        tokens = sum(expected_tokens(backend, query) for query in asked)
        self.told(self.footage.title, frames, tokens)


def most_frames(choice: FrameChoice, seconds: float) -> int:
    """At most so many frames are chosen of a video of ``seconds``."""
    wanted = {
        "fps": seconds * choice.value,
        "every": seconds / choice.value + 1,
        "count": choice.value,
        "scenes": choice.max_frames,
    }[choice.mode]
    least = 1 if choice.mode == "count" else choice.min_frames
    return max(1, math.ceil(max(least, min(wanted, choice.max_frames))))


def viewed(result: Result, /, **fields: Any) -> Viewed:
    """``result`` with more that is known of it."""
    own = {part.name: getattr(result, part.name) for part in dataclasses.fields(Result)}
    return Viewed(**{**own, **fields})


def read_whole(
    footage: Footage,
    check: Callable[[], None] = lambda: None,
    fps: float = FPS,
    sound: bool = False,
) -> Video:
    """The frames that Qwen's own tools would show of a whole video, ``fps`` a second, and its
    ``sound``. Raises ``BadVideo``, and ``BadOption`` for an ``fps`` outside its range."""
    choice = FrameChoice("fps", fps)
    return _read(footage, choice, 0.0, footage.length, MAX_FRAME_PIXELS, check, sound)


def _read(
    footage: Footage,
    choice: FrameChoice,
    start: float,
    end: float,
    frame_pixels: int,
    check: Callable[[], None],
    sound: bool,
) -> Video:
    most = _bounded(frame_pixels, most_frames(choice, end - start))
    found = footage.read(choice, start, end, most, check, sound)
    if sound and found.audio is None:
        return dataclasses.replace(found, notes=(*found.notes, SILENT))
    return found


def _bounded(frame_pixels: int, frames: int) -> int:
    """The most pixels with which each of so many frames is read."""
    return min(frame_pixels, MOST_BYTES // (3 * frames))
