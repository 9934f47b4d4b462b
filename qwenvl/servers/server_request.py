"""Server request: a ``Request`` in the form that one kind of server is sent, and notes for the user
on how it was followed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ServerError, Unavailable
from ..notes import RunNote
from ..replies import STILL_THINKING
from ..types import THINKING_TOKENS, Family, Request, Response
from . import content
from .answer_form import AnswerForm, answer_form, ignored_note
from .kinds import ServerKind
from .sampling import sampling_fields, sampling_notes
from .thinking import thinking_fields, thinking_notes

_ELSEWHERE = "Turn scores off, or use vLLM, SGLang or llama.cpp."


@dataclass(frozen=True, eq=False)
class ServerRequest:
    """``request`` for a server of ``kind``. ``plan``: of what it shows. ``thinks``: the answer is
    expected to begin with a thought. ``limit``: tokens of thought and answer together, which
    servers count as one. ``fields``: of the body, beside messages and those of ``form``, to which
    the answer is to be held."""

    request: Request
    kind: ServerKind
    plan: content.Plan
    thinks: bool
    limit: int
    fields: Mapping[str, Any]
    form: AnswerForm

    @classmethod
    def of(
        cls,
        request: Request,
        family: Family,
        kind: ServerKind,
        model: str,
        thinks: bool,
        picture_format: str,
    ) -> ServerRequest:
        """For the ``model``, by its name there, of ``family``. No pixel is touched. Raises
        ``Unavailable`` for log-probabilities of a server that tells none, and as
        ``content.plan``."""
        if request.logprobs and kind.logprobs == "none":
            raise Unavailable(
                f"{kind.title} tells no log-probabilities, so there can be no scores. {_ELSEWHERE}"
            )
        plan = content.plan(request, family, kind, model, picture_format)
        limit = request.sampling.max_new_tokens + (_thought_limit(request) if thinks else 0)
        fields = {
            "model": model,
            "max_tokens": limit,
            "stream_options": {"include_usage": True},
            **sampling_fields(kind, request.sampling),
            **thinking_fields(kind, request),
            **({"logprobs": True} if request.logprobs else {}),
        }
        form = answer_form(request.constraint, kind)
        return cls(request, kind, plan, thinks, limit, fields, form)

    async def body(self) -> Mapping[str, Any]:
        """The body of the HTTP request. Pictures are compressed in another thread."""
        messages = await asyncio.to_thread(self.plan.messages)
        return {**self.fields, **self.form.fields, **self.plan.fields, "messages": messages}

    def without_form(self, reason: object) -> ServerRequest:
        """The same request with no form for its answer, since the server refused that for
        ``reason``."""
        note = f"The answer was not held to its form, which the server refused: {reason}"
        return dataclasses.replace(self, form=AnswerForm({}, (note,)))

    def finished(self, response: Response) -> Response:
        """``response`` with notes on how the request was followed. Raises ``ServerError`` for an
        answer without the log-probabilities that were asked for."""
        if self.request.logprobs and response.text and not response.tokens:
            raise ServerError(
                "The server tells no log-probabilities of this answer, so there are no scores. "
                + _ELSEWHERE
            )
        foreseen = (
            *self.plan.notes,
            *sampling_notes(self.kind, self.request.sampling),
            *thinking_notes(self.kind, self.request),
            *self.form.notes,
        )
        notes = (
            *map(RunNote, foreseen),
            *self._notes_on(response),
            *response.notes,
        )
        ending = self._end_note(response, hidden=bool(notes))
        return dataclasses.replace(response, notes=(*notes, *filter(None, [ending])))

    def _notes_on(self, response: Response) -> tuple[str, ...]:
        """Notes where the server, or the model, did not do as the request wished."""
        request, thought = self.request, bool(response.thinking)
        if response.finish_reason == "stop" and (
            note := ignored_note(self.form, request.constraint, response.text, self.kind)
        ):
            return (note,)
        if request.thinking and not thought:
            return (
                "The model was asked to think and did not, or its server does not tell thoughts.",
            )
        if request.thinking is False and thought:
            return ("The model was asked not to think, and did.",)
        if thought and request.sampling.max_thinking_tokens is not None:
            limit = (
                f"A server cannot limit thoughts alone: {self.limit} tokens were allowed for "
                "thought and answer together."
            )
            return (RunNote(limit),)
        return ()

    def _end_note(self, response: Response, hidden: bool) -> str:
        """A note on an answer that the model did not end itself. ``hidden``: other notes stand in
        the place of the usual one."""
        if response.finish_reason == "length" and response.thinking and not response.text:
            return STILL_THINKING
        if response.finish_reason == "length" and (hidden or self.thinks):
            return f"The reply was cut at {self.limit} tokens: raise max_new_tokens for the rest."
        if response.finish_reason == "repetition" and hidden:
            return "The reply repeated itself and was cut there."
        return ""


def _thought_limit(request: Request) -> int:
    limit = request.sampling.max_thinking_tokens
    return THINKING_TOKENS if limit is None else limit
