"""Questions about one picture or clip of a folder, and what of the replies is a caption."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..backends.base import Backend
from ..errors import BadOption
from ..media.frame_times import FrameChoice
from ..media.pixel_bounds import with_longest_side
from ..prompt_writing.wishes import Faults, Wishes
from ..query import Method, Query, Steps, size_of
from ..run import sampling_for
from ..types import Result, Task
from .refusals import is_refusal

MOST_TRIES = 10

REFINE = (
    "{prompt}\n\nThere is a caption already. Keep what is right in it, correct what is wrong, and "
    "add what is missing; write the whole caption anew, in the same form:\n{old}"
)


@dataclass(frozen=True)
class Reply(Result):
    """A result with the ``tags`` of the same picture, where they were asked for, and with
    ``failure``, why it is no caption: its text is then what the model wrote. ``tries``: how often
    it was asked for."""

    tags: str = ""
    failure: str = ""
    tries: int = 1


@dataclass(frozen=True, eq=False)
class Asking:
    """What is asked about each picture and each clip.

    ``task``: about pictures, answered by ``method`` where it takes several requests; the method
    asks in the words of its query's task, or adds to its own what stands behind them there.
    ``clip_task``: about clips; None: they are passed over. ``clip_frames``: which of their frames
    are shown. ``tags``, ``clip_tags``: asked besides, where a template has a place for tags.
    ``refine``: the model is shown the caption that is there, and corrects it. ``wishes``: words
    that replies must hold, or must not; asked again up to ``ask_again`` times, a reply that still
    is not as wished is no caption. ``fields``: more fields of each ``Query``; ``sampling``: fields
    of ``Sampling`` in place of the model's own values. Raises ``BadOption``."""

    task: Task
    method: Method | None = None
    clip_task: Task | None = None
    clip_frames: FrameChoice = field(default_factory=FrameChoice)
    tags: Task | None = None
    clip_tags: Task | None = None
    refine: bool = False
    wishes: Wishes = field(default_factory=Wishes)
    ask_again: int = 2
    fields: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.ask_again <= MOST_TRIES:
            raise BadOption(f"ask_again is {self.ask_again}; it may be 0 to {MOST_TRIES}.")

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that replies depend on besides the model, as plain values."""
        tasks = (self.task, self.clip_task, self.tags, self.clip_tags)
        words = [(task.name, task.prompt, task.system) if task else None for task in tasks]
        given = sorted((name, repr(value)) for name, value in self.fields.items())
        own = sorted((name, repr(value)) for name, value in self.sampling.items())
        wishes = (self.wishes.must, self.wishes.must_not)
        return (words, repr(self.clip_frames), self.refine, wishes, given, own)

    def query(self, backend: Backend, media: Any, is_clip: bool, old: str = "") -> Query:
        """About ``media``: a picture, a ``Video`` or a ``BadImage``. ``old``: the caption that is
        there, to be refined. Answered with a ``Reply``."""
        task = (self.clip_task if is_clip else self.task) or self.task
        prompt = "\n\n".join([task.prompt, *self.wishes.instructions])
        if self.refine and old:
            prompt = REFINE.format(prompt=prompt, old=old)
        tags = self.clip_tags if is_clip else self.tags
        method = None if is_clip else self.method
        query = self._query(backend, dataclasses.replace(task, prompt=prompt), media)
        more = [self._query(backend, tags, media)] if tags else []

        def steps(backend: Backend, query: Query) -> Steps:
            return self._steps(backend, dataclasses.replace(query, method=None), more, method)

        return dataclasses.replace(query, method=steps)

    def _query(self, backend: Backend, task: Task, media: Any) -> Query:
        thinking = self.fields.get("thinking")
        effort = self.fields.get("reasoning_effort", "")
        own = sampling_for(backend, task, thinking, effort=effort)
        fields = dict(self.fields)
        if task.longest_side and not fields.get("max_pixels"):
            fields["min_pixels"], fields["max_pixels"] = with_longest_side(
                (fields.get("min_pixels"), None),
                size_of(media),
                task.longest_side,
                token_pixels=backend.family.patch_factor**2,
                own_max=backend.max_pixels,
            )
        sampling = dataclasses.replace(own, **self.sampling)
        return Query(task, media, sampling=sampling, **fields)

    def _steps(
        self, backend: Backend, query: Query, more: list[Query], method: Method | None
    ) -> Steps:
        """The reply and the tags in one round; the reply again where it is not as wished."""
        replies: list[Result] = []
        if method is None:
            replies = list((yield [query, *more]))
        else:
            replies.append((yield from method(backend, query)))
            replies += (yield more) if more else []
        reply, tries = replies[0], 1
        faults = self.wishes.faults(reply.text)
        question = query.task.prompt
        while faults.count and tries <= self.ask_again and not why_no_caption(reply, query.task):
            task = dataclasses.replace(query.task, prompt=_again(question, reply.text, faults))
            again = dataclasses.replace(query, task=task)
            if method is None:
                (reply,) = yield [again]
            else:
                reply = yield from method(backend, again)
            faults, tries = self.wishes.faults(reply.text), tries + 1
        failure = why_no_caption(reply, query.task)
        if not failure and faults.count:
            failure = f"It is not as wished after {tries} tries. {' '.join(faults.sentences)}"
        if more and not failure and (why := why_no_caption(replies[1], more[0].task)):
            failure = f"Tags: {why}"
        own = {part.name: getattr(reply, part.name) for part in dataclasses.fields(Result)}
        return Reply(**own, tags=replies[1].text if more else "", failure=failure, tries=tries)


def _again(question: str, text: str, faults: Faults) -> str:
    return "\n\n".join(
        [question, f"An earlier try was:\n{text}", *faults.sentences, "Write the whole anew."]
    )


_ENDS = {
    "length": "The reply was cut at its limit of tokens: raise max_new_tokens.",
    "repetition": "The reply went round in a circle.",
}


def why_no_caption(reply: Result, task: Task) -> str:
    """Why ``reply`` to ``task`` is no caption: there is none, it was cut, it repeats itself, it
    refuses; empty where it is one. What was read off a page may be anybody's refusal."""
    if reply.error:
        return reply.error
    if reply.finish_reason in _ENDS:
        return _ENDS[reply.finish_reason]
    if not reply.text.strip():
        return "The reply is empty."
    if not task.greedy and is_refusal(reply.text):
        return f"The model refused: {' '.join(reply.text.split())[:120]}"
    return ""
