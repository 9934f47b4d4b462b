"""Times of video steps in words: how Qwen3-VL and later families are told when a frame is shown."""

from __future__ import annotations

from collections.abc import Sequence

from ..checkpoints import transformers_version
from ..media.spans import Span
from ..types import Family

_KEPT_SINCE = "5.10"


def with_times(text: str, spans: Sequence[Span], family: Family) -> str:
    """A rendered prompt with a place for each step of every video of ``spans`` whose times are
    told, instead of one for the video: ``<1.5 seconds>``, the mean of the step's frames, and then a
    place between the tokens that begin and end a picture.

    The tokens that the chat template put around the whole video stay where transformers itself
    leaves them there, since release 5.10; the models' own code dropped them.
    """
    start, place, end = family.vision_start, family.video_token, family.vision_end
    whole = f"{start}{place}{end}"
    is_dropped = transformers_version.is_older(_KEPT_SINCE)
    made: list[str] = []
    for span in (span for span in spans if span.kind == "video" and span.is_told):
        mark = whole if is_dropped and whole in text else place
        before, found, text = text.partition(mark)
        if not found:  # the template has no place for videos, which is told when tokens are counted
            return "".join([*made, before])
        steps = (f"<{(first + last) / 2:.1f} seconds>{whole}" for first, last in span.steps)
        made += [before, *steps]
    return "".join([*made, text])
