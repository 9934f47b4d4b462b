"""Next turns of conversations, asked in one batched run.

Requests say that they go on, so that the prefix cache keeps each conversation up to the end of its
answer: the next turn reads its own tokens alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backends.base import Backend
from ..errors import BadImage, BadOption, QwenVLError, UnsuitableModel
from ..families import free_text_sampling
from ..observer import Observer, PartialObserver, Relay
from ..run import end_notes, generate_each
from ..types import Image, Request, Response, Result, Sampling
from .conversation import Attachment, Conversation, Turn

MAX_NEW_TOKENS = 1024
"""Default length of an answer."""

_REFUSALS = (BadImage, BadOption, UnsuitableModel)
"""Of what cannot be asked; a backend raises them where it can be asked nothing of a batch."""


@dataclass(frozen=True, eq=False)
class Ask:
    """The next turn of ``conversation``: ``text``, behind ``attachments``. ``sampling`` overrides
    single fields of the model's own values. The others are those of ``Request``; with
    ``preserve_thinking`` the thought before the answer stays in the conversation too.
    ``problem``: why this turn cannot be asked (a picture that no model can be shown)."""

    conversation: Conversation
    text: str
    attachments: tuple[Attachment, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    may_shrink: bool = False
    preserve_thinking: bool = False
    reasoning_effort: str = ""
    problem: QwenVLError | None = None

    @property
    def turn(self) -> Turn:
        return Turn(self.text, self.attachments)


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to an ``Ask``. ``conversation``: with this turn, or as it was where there is no
    answer (``response.error``). ``first_token_seconds``: from when the model was loaded to the
    first token of the answer, or of the thought before it; None where none came."""

    conversation: Conversation
    response: Response
    notes: tuple[str, ...] = ()
    first_token_seconds: float | None = None

    def as_result(self) -> Result:
        """For whoever shows results."""
        response = self.response
        return Result(
            response.text,
            thinking=response.thinking,
            finish_reason=response.finish_reason,
            error=str(response.error or ""),
            notes=self.notes,
            reply=response.text,
        )


def ask_all(backend: Backend, asks: Sequence[Ask], observer: Observer | None = None) -> list[Reply]:
    """Replies in the order of ``asks``, each as if it were asked alone. One that fails has its
    error in its own response, as has one that cannot be asked: ``BadOption``, ``BadImage``,
    ``UnsuitableModel``. Raises what else ``Backend.generate`` raises."""
    clock = _Clock(observer or Observer())
    responses = _generate(backend, asks, clock)
    replies = []
    for index, (ask, response) in enumerate(zip(asks, responses, strict=True)):
        notes = () if response.error else _notes(backend, ask, response)
        seconds = clock.seconds.get(index)
        replies.append(Reply(_continued(ask, response), response, notes, seconds))
    return replies


def _generate(backend: Backend, asks: Sequence[Ask], observer: Observer) -> list[Response]:
    """A response to each; the backend is not asked about what cannot be."""
    requests: dict[int, Request] = {}
    responses: dict[int, Response] = {}
    for index, ask in enumerate(asks):
        try:
            requests[index] = _request(backend, ask)
        except QwenVLError as error:
            responses[index] = Response.failed(error)
    partial = PartialObserver(observer, responses, len(asks))
    if requests:
        answered = generate_each(backend, list(requests.values()), partial, _REFUSALS)
        responses |= zip(requests, answered, strict=True)
    else:
        partial.start([], [])
    return [responses[index] for index in range(len(asks))]


def will_think(backend: Backend, ask: Ask) -> bool:
    """Whether the answer will begin with a thought; False of what cannot be asked."""
    try:
        return backend.thinks(ask.thinking, ask.reasoning_effort)
    except BadOption:
        return False


def sampling_of(backend: Backend, ask: Ask, text_only: bool = False) -> Sampling:
    """The model makers' values for free text, or for thinking, with those of the user.
    ``text_only``: nothing is shown in the whole conversation."""
    thinks = backend.thinks(ask.thinking, ask.reasoning_effort)
    own = free_text_sampling(backend.family, thinks, text_only)
    return dataclasses.replace(own, **{"max_new_tokens": MAX_NEW_TOKENS, **ask.sampling})


def _request(backend: Backend, ask: Ask) -> Request:
    """Raises the problem of ``ask``, and ``BadOption`` for a turn that says and shows nothing and
    for what its options lack or exceed."""
    if ask.problem:
        raise ask.problem
    if not ask.text.strip() and not ask.attachments:
        raise BadOption("Nothing is asked: write a message, or show something.")
    messages = ask.conversation.messages(ask.turn, backend)
    sampling = sampling_of(backend, ask, not Request(messages).media)
    sampling.validate()
    return Request(
        messages,
        sampling=sampling,
        min_pixels=ask.min_pixels,
        max_pixels=ask.max_pixels,
        frame_pixels=ask.max_pixels,
        least_frame_pixels=ask.min_pixels,
        thinking=ask.thinking,
        may_shrink=ask.may_shrink,
        continues=True,
        preserve_thinking=ask.preserve_thinking,
        reasoning_effort=ask.reasoning_effort,
    )


def _continued(ask: Ask, response: Response) -> Conversation:
    if response.error:
        return ask.conversation
    keeps = ask.preserve_thinking
    return ask.conversation.with_turn(
        Turn(
            ask.text,
            ask.attachments,
            response.text,
            response.ids,
            response.thinking if keeps else "",
            response.thought_ids if keeps else (),
        )
    )


def _notes(backend: Backend, ask: Ask, response: Response) -> tuple[str, ...]:
    shown = (attachment.part for attachment in ask.attachments)
    told = [note for part in shown if not isinstance(part, Image) for note in part.notes]
    ends = (*dict.fromkeys(told), *end_notes(sampling_of(backend, ask), response))
    if not (numbers := ask.conversation.reread(backend)):
        return ends
    which = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
    return (
        f"Another model gave the answers of turns {which}, or they were edited: they are read "
        "as text, without their thoughts.",
        *ends,
    )


class _Clock(Relay):
    """Notes when each request's first token came, in ``seconds`` since the run began."""

    def __init__(self, inner: Observer):
        super().__init__(inner)
        self._start = time.perf_counter()
        self.seconds: dict[int, float] = {}

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self._start = time.perf_counter()
        super().start(prompt_tokens, max_new_tokens)

    def token(self, index: int, text: str) -> None:
        self.seconds.setdefault(index, time.perf_counter() - self._start)
        super().token(index, text)

    def done(self, index: int, response: Response) -> None:
        if not response.error:  # the only token was the last, which is not streamed
            self.seconds.setdefault(index, time.perf_counter() - self._start)
        super().done(index, response)
