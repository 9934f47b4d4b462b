"""Questions about one picture or clip of a folder, and what of the replies is a caption."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backends.base import Backend
from ..errors import BadOption
from ..media.frame_times import FrameChoice
from ..media.pixel_bounds import with_longest_side
from ..media.video import MAX_FRAME_PIXELS
from ..prompt_writing.wishes import Faults, Wishes, stands_in
from ..query import Method, Query, Steps, size_of
from ..run import sampling_for
from ..types import Result, Task
from .refusals import is_refusal

MOST_TRIES = 10

Filled = Callable[[str, str], str]
"""A caption made of what the model wrote and of tags, either of which may be empty."""

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
    that captions must hold, or must not; asked again up to ``ask_again`` times, what still is
    not as wished is no caption. ``fields``: more fields of each ``Query``; ``sampling``: fields
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

    @property
    def frame_pixels(self) -> int:
        """The most pixels with which frames of clips are read (see ``watching.Viewing``)."""
        bounds = (self.fields.get("min_pixels"), self.fields.get("max_pixels"))
        return max(MAX_FRAME_PIXELS, *(bound or 0 for bound in bounds))

    def query(
        self,
        backend: Backend,
        media: Any,
        is_clip: bool,
        old: str = "",
        filled: Filled = lambda text, tags: text,
        has_text: bool = True,
    ) -> Query:
        """About ``media``: a picture, a ``Video`` or a ``BadImage``. ``old``: the caption that is
        there, to be refined. ``filled``: the caption that a reply and tags make, which is to be as
        wished; ``has_text``: whether it holds the reply, without which only tags are asked for.
        Answered with a ``Reply``."""
        task = (self.clip_task if is_clip else self.task) or self.task
        tags = self.clip_tags if is_clip else self.tags
        method = None if is_clip else self.method
        given = filled("", "")
        missing = tuple(phrase for phrase in self.wishes.must if not stands_in(phrase, given))
        wishes = dataclasses.replace(self.wishes, must=missing)
        parts = [_Part(task, method)] if has_text or tags is None else []
        if tags:
            parts.append(_Part(tags, None, is_tags=True))
        for number, part in enumerate(parts):
            told = wishes if number == 0 else dataclasses.replace(wishes, must=())
            prompt = "\n\n".join([part.task.prompt, *told.instructions])
            if number == 0 and self.refine and old:
                prompt = REFINE.format(prompt=prompt, old=old)
            part.query = self._query(backend, dataclasses.replace(part.task, prompt=prompt), media)

        def steps(backend: Backend, query: Query) -> Steps:
            return self._steps(backend, parts, filled)

        return dataclasses.replace(parts[0].query, method=steps)

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

    def _steps(self, backend: Backend, parts: Sequence[_Part], filled: Filled) -> Steps:
        """The reply and the tags in one round; again what is not as wished."""
        asked, tries = list(parts), 0
        while asked:
            yield from _ask(backend, asked)
            tries += 1
            failure = next(filter(None, (part.failure for part in parts)), "")
            self._look_for_faults(parts, filled)
            asked = [part for part in parts if part.faults.count and not failure]
            if tries > self.ask_again:
                break
        if asked:
            sentences = [one for part in asked for one in part.faults.sentences]
            failure = f"It is not as wished after {tries} tries. {' '.join(sentences)}"
        reply = parts[0].reply
        own = {field.name: getattr(reply, field.name) for field in dataclasses.fields(Result)}
        return Reply(**own, tags=_tags(parts), failure=failure, tries=tries)

    def _look_for_faults(self, parts: Sequence[_Part], filled: Filled) -> None:
        """What must not be written is looked for in each part; what must, in the whole caption,
        for which the first part is asked again."""
        text = "" if parts[0].is_tags else parts[0].reply.text
        missing = self.wishes.faults(filled(text, _tags(parts))).missing
        for part in parts:
            part.faults = Faults(missing, self.wishes.forbidden_in(part.reply.text))
            missing = ()


@dataclass(eq=False)
class _Part:
    """One of the questions about a picture, and what has become of it."""

    task: Task
    method: Method | None
    is_tags: bool = False
    query: Query = field(init=False)
    reply: Result = field(init=False, default_factory=lambda: Result(""))
    faults: Faults = field(init=False, default_factory=Faults)

    @property
    def failure(self) -> str:
        why = why_no_caption(self.reply, self.task)
        return f"Tags: {why}" if why and self.is_tags else why

    @property
    def next(self) -> Query:
        """To be asked now."""
        if not self.faults.count:
            return self.query
        prompt = _again(self.query.task.prompt, self.reply.text, self.faults)
        task = dataclasses.replace(self.query.task, prompt=prompt)
        return dataclasses.replace(self.query, task=task)


def _ask(
    backend: Backend, parts: Sequence[_Part]
) -> Generator[Sequence[Query], Sequence[Result], None]:
    """In one round, but for those with a method, which go before."""
    for part in parts:
        if part.method:
            part.reply = yield from part.method(backend, part.next)
    single = [part for part in parts if not part.method]
    if single:
        replies = yield [part.next for part in single]
        for part, reply in zip(single, replies, strict=True):
            part.reply = reply


def _tags(parts: Sequence[_Part]) -> str:
    return next((part.reply.text for part in parts if part.is_tags), "")


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
