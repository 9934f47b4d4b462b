"""Prompts of a local model: requests to tokens and media, and why one cannot be asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import makers_prompts
from ..errors import BadImage, BadOption, QwenVLError, UnsuitableModel, without_frames
from ..families import check_sees
from ..inference.constraints import matcher
from ..inference.memory_model import TokenNeed, token_need
from ..media.spans import plan_all
from ..models.speech import require_voice
from ..prompting.prompt import Prompt
from ..types import Message, Request, Response
from .local_model import LocalModel


class Prompts:
    """Makes the prompts of ``model``, as its files are now."""

    def __init__(self, model: LocalModel):
        self._model = model

    def of(self, request: Request) -> Prompt:
        """The prompt of ``request``. Raises ``BadOption`` and ``BadImage``, see ``Prompt``; also
        where the request's constraint cannot be enforced, see ``constraints.matcher``; and
        ``UnsuitableModel`` for pictures that the model cannot be shown, and for speech that it
        cannot give."""
        model = self._model
        if request.media:
            check_sees(model.family, model.name)
        if request.voice is not None:
            request = self._spoken(request, request.voice)
        if request.constraint:
            matcher(request.constraint, model.chat_template, request.sampling.max_new_tokens)
        return Prompt(
            request,
            model.chat_template,
            model.image_processor,
            model.context_length,
            model.video_processor,
            model.audio_processor,
        )

    def _spoken(self, request: Request, wish: str) -> Request:
        """``request`` with a voice of the checkpoint, and with the system prompt that its speech
        was trained with, unless it has its own. Raises as ``speech.require_voice``, and
        ``BadOption`` for videos that it cannot speak about together."""
        spec, family = self._model.spec, self._model.family
        if spec is None:
            raise UnsuitableModel("This model was not loaded from files, and cannot speak.")
        if len({video.audio is None for video in request.videos}) > 1:
            raise BadOption(
                "The answer cannot be spoken: the model is shown videos some with their sound and "
                "some without, and its speaking half takes them all alike. Ask about them one "
                "after the other, or turn speech off."
            )
        voice = require_voice(Path(spec.checkpoint), spec, family, wish)
        speech, messages = family.speech, request.messages
        if speech and speech.prompt and not request.system:
            system = makers_prompts.words(speech.prompt, "speech")
            messages = (Message("system", (system,)), *messages)
        return dataclasses.replace(request, voice=voice, messages=messages)

    def media_tokens(self, request: Request) -> int:
        """See ``Planner.media_tokens``."""
        model = self._model
        if request.media:
            check_sees(model.family, model.name)
        images = model.image_processor.bounded(request.min_pixels, request.max_pixels)
        videos = model.video_processor and model.video_processor.bounded(
            request.frame_pixels,
            request.video_tokens,
            model.context_length,
            request.least_frame_pixels,
        )
        watching, sounds = model.family.watching, model.audio_processor
        return sum(
            span.tokens for span in plan_all(request.media, images, videos, watching, sounds)
        )

    def all_of(self, requests: Sequence[Request]) -> tuple[dict[int, Prompt], dict[int, Response]]:
        """By the index of the request: prompts, and the responses to those that cannot be asked.
        Raises the first error where no request can be asked."""
        prompts, refused = self.each_of(dict(enumerate(requests)))
        if refused and not prompts:
            raise refused.pop(0)
        return prompts, {index: Response.failed(error) for index, error in refused.items()}

    def each_of(
        self, requests: Mapping[int, Request]
    ) -> tuple[dict[int, Prompt], dict[int, QwenVLError]]:
        """By the index of the request: prompts, and why the others cannot be asked."""
        prompts: dict[int, Prompt] = {}
        refused: dict[int, QwenVLError] = {}
        for index, request in requests.items():
            try:
                prompts[index] = self.of(request)
            except (BadOption, BadImage, UnsuitableModel) as error:
                refused[index] = without_frames(error)
        return prompts, refused

    def without_thought(self, request: Request) -> Request:
        """``request`` with thinking turned off, where the model leaves the choice."""
        template = self._model.chat_template
        if not template.thinks(request.thinking, request.reasoning_effort):
            return request
        try:
            return dataclasses.replace(request, thinking=template.thinks(False))
        except BadOption:
            return dataclasses.replace(request, thinking=None)


def lengths(prompts: Mapping[int, Prompt], count: int) -> tuple[list[int], list[int]]:
    """Tokens of the prompt and of the longest answer of each of ``count`` requests; 0 of those
    without a prompt."""
    nothing = TokenNeed(0, 0)
    needs = [token_need(prompts[at]) if at in prompts else nothing for at in range(count)]
    return [need.prompt for need in needs], [need.answer for need in needs]
