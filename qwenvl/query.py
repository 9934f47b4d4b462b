"""Query: one task about one picture, video or sound, how it is asked, and in how many requests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .backends.base import Backend
from .errors import BadImage
from .types import Audio, Result, Sampling, Size, Task, Video

if TYPE_CHECKING:
    from torch import Tensor

Steps = Generator[Sequence["Query"], Sequence[Result], Result]
"""The way from several requests to one result: yields queries (about parts of the picture, say),
is sent a result for each, in order, and may yield more; returns the result. All pictures' queries
of one step are asked in one batch."""

Method = Callable[[Backend, "Query"], Steps]
"""How a query is answered in several requests."""


@dataclass(frozen=True, eq=False)
class Query:
    """One task about one picture (uint8 ``[3, H, W]``), video or sound, or the error of one that no
    model can be shown: that query alone has no answer. ``picture``: None where there is text alone,
    or where the method brings what is shown.
    ``sampling``: None for ``run.sampling_for``.
    The pixel bounds, ``thinking``, ``may_shrink`` and ``reasoning_effort`` are those of
    ``Request``; they bound each frame of a video too, and ``video_tokens`` all of it.
    ``keep_unreadable``: a reply that is unreadable or missing becomes a result with ``error`` and
    its text, instead of an exception. ``logprobs``: the result has the reply's tokens with their
    log-probabilities, and its boxes and points have scores.
    ``others``: pictures that are shown behind it, such as a document's other pages; the question is
    about all of them, and places in the reply are taken for those in ``picture``.
    ``voice``: see ``Request``. ``method``: None for one request. One of a method's own queries that
    fails, fails the whole query, unless it has ``keep_unreadable``: then the method is sent its
    failed result too. ``holds``: bytes of what the method reads and holds until it has its answer,
    about; see ``rounds.portions``."""

    task: Task
    picture: Tensor | Video | Audio | BadImage | None
    system: str = ""
    sampling: Sampling | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    may_shrink: bool = False
    keep_unreadable: bool = False
    logprobs: bool = False
    method: Method | None = None
    others: tuple[Tensor | BadImage, ...] = ()
    reasoning_effort: str = ""
    voice: str | None = None
    video_tokens: int | None = None
    holds: int = 0

    @property
    def problem(self) -> BadImage | None:
        """Of the first picture that no model can be shown."""
        return next((shown for shown in self.pictures if isinstance(shown, BadImage)), None)

    @property
    def pictures(self) -> tuple[Tensor | Video | Audio | BadImage, ...]:
        """All that are shown, in order."""
        return () if self.picture is None else (self.picture, *self.others)

    @property
    def size(self) -> Size:
        """Height and width of the picture or of the video's frames; zeros where there is none."""
        return size_of(self.picture)


def size_of(shown: Tensor | Video | Audio | BadImage | None) -> Size:
    """Height and width in pixels; zeros of what is no picture."""
    if shown is None or isinstance(shown, (Audio, BadImage)):
        return 0, 0
    height, width = (shown.frames if isinstance(shown, Video) else shown).shape[-2:]
    return height, width
