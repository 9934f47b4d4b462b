"""Prompt: a request rendered by the chat template into token ids, its media still pixels."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ..checkpoints import transformers_version
from ..errors import BadOption
from ..media.audio_processor import AudioProcessor
from ..media.image_processor import ImageProcessor
from ..media.spans import Kind, Span, plan_all, with_sounds
from ..media.video_processor import VideoProcessor
from ..types import THINKING_TOKENS, Audio, Image, Request, Sampling, Size, Video, Watching
from ..yarn import longest_context
from .chat_template import ChatTemplate

_MIN_IMAGE_TOKENS = 64  # an image is not shrunk below this for want of memory


class Prompt:
    """``request`` as token ids ``ids``, with the ``spans`` of its media.
    ``context``: the model's context length (None: unknown). ``video_processor`` and
    ``audio_processor``: None where the model sees no videos, and hears no sounds. Raises
    ``BadImage`` for a medium that no model can be given, and ``BadOption`` for a prompt that fills
    the context."""

    def __init__(
        self,
        request: Request,
        chat_template: ChatTemplate,
        image_processor: ImageProcessor,
        context: int | None = None,
        video_processor: VideoProcessor | None = None,
        audio_processor: AudioProcessor | None = None,
    ):
        self.request, self.chat_template, self.context = request, chat_template, context
        self._unbounded = image_processor, video_processor
        self.audio_processor = audio_processor
        self.image_processor = image_processor.bounded(request.min_pixels, request.max_pixels)
        self.video_processor = video_processor and video_processor.bounded(
            request.frame_pixels, request.video_tokens, context, request.least_frame_pixels
        )
        watching = chat_template.family.watching
        self.spans = plan_all(
            request.media, self.image_processor, self.video_processor, watching, audio_processor
        )
        _check_together(self.spans, watching)
        self.thinking = chat_template.thinks(request.thinking, request.reasoning_effort)
        self.ids = chat_template.encode(request, self.spans)
        if context is not None and len(self.ids) >= context:
            raise BadOption(self._too_long(context))

    def _too_long(self, context: int) -> str:
        shown, smaller = "", ""
        if self.spans:
            hears = any(span.kind == "audio" for span in self.spans)
            media = "pictures and sounds" if hears else "pictures"
            shown = f" ({self.image_tokens} of them {media})"
            smaller = ", or show fewer or smaller pictures (max_pixels in the Loader) or frames"
            smaller += ", or let it hear less at once" if hears else ""
        longest = longest_context(self.chat_template.family) or 0
        stretch = (
            f" With yarn in the Loader the context can be stretched to {longest}, at some loss."
            if longest > context
            else ""
        )
        return (
            f"The prompt is {len(self.ids)} tokens long{shown}, but this model's context holds "
            f"{context} with the answer. Shorten the prompt{smaller}.{stretch}"
        )

    @cached_property
    def sampling(self) -> Sampling:
        """The request's, its limits such that the answer ends within the model's context."""
        asked = self.request.sampling
        if self.context is None:
            return asked
        left = self.context - len(self.ids)
        thought = 0
        if self.thinking:
            left -= len(self.chat_template.think_end_ids)
            limit = asked.max_thinking_tokens
            thought = THINKING_TOKENS if limit is None else limit
            thought = min(thought, max(left - asked.max_new_tokens, left // 2, 0))
        answer = min(asked.max_new_tokens, max(1, left - thought))
        limits = {"max_new_tokens": answer}
        if self.thinking:
            limits["max_thinking_tokens"] = thought
        return dataclasses.replace(asked, **limits)

    @property
    def notes(self) -> tuple[str, ...]:
        """Of an answer that was cut at its limit, where that is not the one that was asked for."""
        limit = self.sampling.max_new_tokens
        if limit == self.request.sampling.max_new_tokens:
            return ()
        return (
            f"The reply was cut at {limit} tokens: with its prompt of {len(self.ids)} it fills "
            f"this model's context of {self.context}. Shorten the prompt, or show smaller "
            "pictures.",
        )

    @property
    def image_tokens(self) -> int:
        """Tokens of all its media."""
        return sum(span.tokens for span in self.spans)

    @property
    def encoded_tokens(self) -> int:
        """The most of them that are put through a tower together, counting all pictures."""
        videos = [0, *(self._chunk_tokens(span) for span in self.spans if span.kind == "video")]
        others = sum(span.tokens for span in self.spans if span.kind != "video")
        return max(others, *videos)

    def _chunk_tokens(self, span: Span) -> int:
        assert self.video_processor is not None
        chunk = min(self.video_processor.chunk_steps(span.grid), span.grid[0])
        return span.tokens // span.grid[0] * chunk

    @property
    def input_sizes(self) -> tuple[Size, ...]:
        """What each picture, and each frame of a video, is resized to."""
        return tuple(span.input_size for span in self.spans if span.kind != "audio")

    @property
    def nbytes(self) -> int:
        """Of its pictures and frames."""
        return sum(pixels_of(part).nbytes for part in self.request.media)

    @cached_property
    def image_ends(self) -> list[int]:
        """For each medium, how many tokens the prompt has up to its end."""
        ends: list[int] = []
        at, token_ids = 0, self.chat_template.token_ids
        for span, sound in with_sounds(self.spans):
            if sound:  # neither is there whole before the other
                first = min(self.ids.index(token_ids[s.kind], at) for s in (span, sound))
                at = first + span.tokens + sound.tokens
                ends += [at + 2] * 2
                continue
            for run in span.runs:
                at = self.ids.index(token_ids[span.kind], at) + run
            ends.append(at + 1)  # the vision end token included
        return ends

    @property
    def image_prefix(self) -> int:
        """Length in tokens of the prefix that ends with the last medium: what questions about it
        have in common; 0 without media."""
        return self.image_ends[-1] if self.spans else 0

    @cached_property
    def last_message_end(self) -> int | None:
        """Tokens up to the end of the last message, before the model's turn is opened: what the
        conversation will have in common with its next turn, whatever becomes of a thought. None
        where the chat template does not tell."""
        ids = self.chat_template.encode(self.request, self.spans, answer=False)
        length = len(ids)
        return length if 0 < length < len(self.ids) and self.ids[:length] == ids else None

    def without_thought(self) -> Prompt:
        """The same with an empty thought, where it ends inside one."""
        if not self.thinking:
            return self
        closed = copy.copy(self)
        closed.ids, closed.thinking = self.chat_template.without_thought(self.ids), False
        return closed

    def shrunk(self) -> Prompt | None:
        """The same with half the pixels; None where the request does not allow that or too little
        would be left to see."""
        largest = max((span.tokens for span in self.spans), default=0)
        if not self.request.may_shrink or largest < 2 * _MIN_IMAGE_TOKENS:
            return None
        halved: dict[str, Any] = {}
        if most := self._half_area("image"):
            least = self.request.min_pixels
            low = None if least is None else min(least, most)
            halved |= {"min_pixels": low, "max_pixels": most}
        if most := self._half_area("video"):
            most = max(most, self.image_processor.factor**2)
            least = self.request.least_frame_pixels
            low = None if least is None else min(least, most)
            halved |= {"least_frame_pixels": low, "frame_pixels": most}
        smaller = dataclasses.replace(self.request, **halved)
        images, videos = self._unbounded
        made = Prompt(
            smaller, self.chat_template, images, self.context, videos, self.audio_processor
        )
        return made if made.image_tokens < self.image_tokens else None

    def _half_area(self, kind: Kind) -> int:
        """Half the pixels of the largest picture, or of the largest frame; 0 without any."""
        sizes = [span.input_size for span in self.spans if span.kind == kind]
        return max((height * width for height, width in sizes), default=0) // 2


def _check_together(spans: Sequence[Span], watching: Watching | None) -> None:
    """Raises ``BadOption`` for pictures beside videos where the library fails on them."""
    since = watching.alone_before if watching else ""
    kinds = {span.kind for span in spans}
    if since and {"image", "video"} <= kinds and transformers_version.is_older(since):
        raise BadOption(
            f"transformers {transformers_version.installed()} cannot show this model pictures and "
            f"videos in one prompt; release {since} can. Update it (pip install -U transformers), "
            "or show them one after the other."
        )


def pixels_of(part: Image | Video | Audio) -> Any:
    """The tensor that a medium is made of."""
    if isinstance(part, Image):
        return part.pixels
    return part.frames if isinstance(part, Video) else part.samples
