"""Conversation: turns of questions and their answers, as a value.

An answer stays the token ids that the model generated: its text might not become the same tokens
again, and a model that has those tokens' states in its prefix cache need not read them once more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..media.frame_times import FPS
from ..prompting.chat_template import THINK_END, THINK_START
from ..types import Audio, Generated, Image, Message, Part, Video

if TYPE_CHECKING:
    from ..backends.base import Backend

Media = Image | Video | Audio


@dataclass(frozen=True)
class Reference:
    """Where the file of a picture lies: its ``path`` in ``folder``, a name that whoever reads the
    history knows (ComfyUI's ``input`` and ``output``); empty for a path of the system's. Of a
    video also how it is read: so many frames a second (``fps``), with its ``sound`` or without."""

    path: str
    folder: str = ""
    fps: float = FPS
    sound: bool = False


@dataclass(frozen=True, eq=False)
class Attachment:
    """What is shown in a turn. ``reference``: where its file lies; None for what is only in
    memory."""

    part: Media
    reference: Reference | None = None

    @cached_property
    def digest(self) -> str:
        """See ``digest``; computed once, however many turns follow."""
        return digest(self.part)


@dataclass(frozen=True, eq=False)
class Turn:
    """What the user said, behind what was shown, and the answer: its ``answer`` as text, its token
    ``ids`` where the backend told them, and the thought before it where that is to be kept."""

    text: str
    attachments: tuple[Attachment, ...] = ()
    answer: str = ""
    ids: tuple[int, ...] = ()
    thinking: str = ""
    thought_ids: tuple[int, ...] = ()

    @property
    def question(self) -> Message:
        shown = (attachment.part for attachment in self.attachments)
        return Message("user", (*shown, self.text))


@dataclass(frozen=True, eq=False, repr=False)
class Conversation:
    """Turns under a system prompt. A value: to go on is to make another one."""

    system: str = ""
    turns: tuple[Turn, ...] = ()

    def __repr__(self) -> str:
        """What a node that shows any value prints."""
        lines = [f"System: {self.system}"] if self.system else []
        for turn in self.turns:
            lines += [f"User: {turn.text}", f"Assistant: {turn.answer}"]
        return "\n".join(lines)

    def with_turn(self, turn: Turn) -> Conversation:
        return replace(self, turns=(*self.turns, turn))

    def messages(self, question: Turn, backend: Backend) -> tuple[Message, ...]:
        """Messages of a request that asks ``question`` next. Answers are token ids where they are
        of this model's vocabulary, and text where they are not; see ``reread``."""
        system = (Message("system", (self.system,)),) if self.system else ()
        talk = [
            message
            for turn in self.turns
            for message in (turn.question, Message("assistant", (_answer(turn, backend),)))
        ]
        return (*system, *talk, question.question)

    def reread(self, backend: Backend) -> list[int]:
        """Numbers, from 1, of the turns whose answers this model gets as text, although their token
        ids are there: another model gave them, or the history was edited."""
        return [
            number
            for number, turn in enumerate(self.turns, 1)
            if turn.ids and not isinstance(_answer(turn, backend), Generated)
        ]


def _answer(turn: Turn, backend: Backend) -> Part:
    from ..backends.base import Vocabulary

    if not isinstance(backend, Vocabulary):
        # A thought that was kept stands before the answer as chat templates read it.
        thought = f"{THINK_START}\n{turn.thinking}\n{THINK_END}\n\n" if turn.thinking else ""
        return thought + turn.answer
    if not backend.reads(turn.ids, turn.answer):
        return turn.answer
    is_known = turn.thought_ids and backend.reads(turn.thought_ids, turn.thinking)
    return Generated(turn.ids, turn.thought_ids if is_known else ())


def digest(part: Media) -> str:
    """Of all pixels, frames with their times and sound, or samples: equal for equal ones only."""
    found = hashlib.blake2b(digest_size=16)
    if isinstance(part, Image):
        tensors, facts = [part.pixels], ""
    elif isinstance(part, Video):
        # Frame by frame: a copy of them all would double what a long video takes.
        tensors, facts = list(part.frames), repr(part.times)
        if part.audio is not None:
            tensors, facts = [*tensors, part.audio.samples], facts + repr(part.audio.rate)
    else:
        tensors, facts = [part.samples], repr(part.rate)
    for tensor in tensors:
        # Channels last, as ``media`` lays pictures out: then nothing is copied.
        plain = (tensor.movedim(0, -1) if tensor.ndim > 2 else tensor).contiguous().cpu()
        found.update(repr(tuple(plain.shape)).encode())
        found.update(plain.view(-1).numpy().data)
    found.update(facts.encode())
    return found.hexdigest()
