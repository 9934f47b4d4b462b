"""Orders of prompts: an idea, pictures or both, to be written out for a target; asked again where
the reply does not keep to what was wished."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backends.base import Backend
from ..checkpoints import library
from ..errors import BadOption, UnreadableReply
from ..query import Query, Steps, size_of
from ..replies import STILL_THINKING, extract_answer, loose_json
from ..replies.wording import tag_list, unwrapped
from ..types import Constraint, ReplyContext, Result, Size, Task
from . import ratios
from .length import count
from .target import MAX_PIXELS, MIN_PIXELS, SAME, Target, Wording
from .wishes import Faults, Wishes, quoted, stands_in

MOST_TRIES = 10
_WORDS_PER_TOKEN = 0.7  # of English, so that a prompt of that many words surely fits


@dataclass(frozen=True)
class Order:
    """A prompt for ``target`` from ``idea``, its choices drawn already, and the pictures of the
    query. ``triggers`` stand before it as they are. Where a reply goes against ``wishes`` or is too
    long, it is asked for again, ``ask_again`` times at most. ``megapixels``: area of pictures of a
    ratio that the reply names; 0: the target's. ``model``: the writing model's name; ``folder``:
    where its checkpoint lies, where that is here. ``tokenizers``: folders, by kind of encoder.

    Raises ``BadOption`` where there is nothing to write about, and for numbers out of range."""

    target: Target
    idea: str = ""
    has_pictures: bool = False
    wishes: Wishes = field(default_factory=Wishes)
    triggers: str = ""
    ask_again: int = 2
    megapixels: float = 0
    model: str = ""
    folder: Path | None = None
    tokenizers: Mapping[str, Path] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.idea.strip() and not self.has_pictures:
            raise BadOption("There is no idea to write a prompt of, and no picture. Give one.")
        if not self.idea.strip() and not self.wording.no_idea:
            raise BadOption(
                f"The target {self.target.name!r} needs an idea beside the pictures, such as what "
                "is to be changed in them."
            )
        if not 0 <= self.ask_again <= MOST_TRIES:
            raise BadOption(f"ask_again is {self.ask_again}; it may be 0 to {MOST_TRIES}.")
        low, high = MIN_PIXELS / 1e6, MAX_PIXELS / 1e6
        if self.megapixels != 0 and not low <= self.megapixels <= high:
            raise BadOption(
                f"megapixels is {self.megapixels}; it may be 0, or {low:g} to {high:g}."
            )

    @property
    def wording(self) -> Wording:
        return self.target.pictures if self.has_pictures else self.target.text

    @property
    def task(self) -> Task:
        return Task(
            "prompt",
            self._question,
            self._parse,
            system=self._own_system or self.wording.system,
            max_new_tokens=self.target.max_new_tokens,
            constraint=self._constraint,
            sampling=self._sampling,
            thinking=self.target.thinking,
        )

    def method(self, backend: Backend, query: Query) -> Steps:
        """How a query of the task is answered: asked again until the prompt is as wished."""
        question = query.task.prompt
        query = dataclasses.replace(query, method=None, max_pixels=self._most_pixels(query))
        tries: list[tuple[Faults, Result]] = []
        while not tries or (tries[-1][0].count and len(tries) <= self.ask_again):
            (reply,) = yield [query]
            if reply.error and not tries:
                return reply
            if reply.error:
                break  # what was there before stays
            found = self._finished(reply, query)
            tries.append((self._faults(found), found))
            again = _again(reply.text, tries[-1][0], question)
            query = dataclasses.replace(query, task=dataclasses.replace(query.task, prompt=again))
        faults, best = min(tries, key=lambda pair: pair[0].count)
        return self._told(best, faults, len(tries), _unmet(backend, query, self.target))

    def _most_pixels(self, query: Query) -> int | None:
        """Of each picture: the query's own bound, or a lower one of the target."""
        bounds = [bound for bound in (query.max_pixels, self.wording.max_pixels) if bound]
        return min(bounds) if bounds else None

    @property
    def _sampling(self) -> Mapping[str, Any]:
        thoughts = self.target.max_thinking_tokens
        limit = {} if thoughts is None else {"max_thinking_tokens": thoughts}
        return {**self.wording.sampling, **limit}

    @property
    def _question(self) -> str:
        """What the user says: the idea, and behind it what is wished of the prompt."""
        idea = self.idea.strip() or self.wording.no_idea
        target, said = self.target, list(self.wishes.instructions)
        if target.language != SAME:
            said.append(f"Write the prompt in {target.language}.")
        if target.max_tokens and target.reply != "json":
            words = int(target.max_tokens * _WORDS_PER_TOKEN)
            said.append(f"The prompt must be no longer than {words} words.")
        return "\n\n".join([self.wording.user.replace("{idea}", idea), *said])

    @property
    def _own_system(self) -> str:
        """The words that the writing model's checkpoint brings itself."""
        if not self.wording.system_file or self.folder is None:
            return ""
        path = self.folder / self.wording.system_file
        try:
            return path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise BadOption(f"{path} cannot be read as UTF-8 text: {error}") from error

    @property
    def _constraint(self) -> Constraint | None:
        """JSON is held to its form from its opening brace on, behind a thought or a fence."""
        if self.target.reply != "json":
            return None
        names = [
            name
            for key, name in self.target.keys.items()
            if key != "ratio_follow" or self.has_pictures
        ]
        schema = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in names},
            "required": names,
            "additionalProperties": False,
        }
        return Constraint("json_schema", json.dumps(schema), opening=("{",))

    def _parse(self, text: str, context: ReplyContext) -> Result:
        answer = extract_answer(text)
        form, data = self.target.reply, {"negative": "", "ratio": "", "ratio_follow": ""}
        if form == "json":
            data |= self._members(answer, text)
            prompt = " ".join(data.pop("prompt").split())
        elif form == "tags":
            prompt = tag_list(unwrapped(answer))
        elif form == "paragraph":
            prompt = " ".join(unwrapped(answer).split())
        else:
            prompt = answer
        if not prompt:
            raise _nothing(text)
        return Result(prompt, data=data)

    def _members(self, answer: str, text: str) -> dict[str, str]:
        keys = self.target.keys
        objects = [
            found.value for found in loose_json.values(answer) if isinstance(found.value, dict)
        ]
        for members in reversed(objects):
            prompt = members.get(keys["prompt"])
            if isinstance(prompt, str) and prompt.strip():
                values = {key: members.get(name) for key, name in keys.items()}
                return {key: "" if value is None else str(value) for key, value in values.items()}
        if not answer:
            raise _nothing(text)
        name = keys["prompt"]
        raise UnreadableReply(
            f"The reply has no {name!r}, where the target {self.target.name!r} expects the prompt. "
            f"{self._made_for} Choose another target, or another model.",
            text,
        )

    @property
    def _made_for(self) -> str:
        made_for = self.target.made_for
        if not made_for or made_for.lower() in self.model.lower():
            return ""
        return (
            f"This target's form is that of {made_for} checkpoints; other models were not trained "
            "on it."
        )

    def _finished(self, reply: Result, query: Query) -> Result:
        """A reply with the triggers before its prompt, and all that is known of it."""
        said, target = reply.data, self.target
        prompt = self._triggered(reply.text)
        negative = said["negative"].strip() or target.negative or ""
        if target.negative is not None:
            more = [words for words in self.wishes.must_not if not stands_in(words, negative)]
            negative = ", ".join(filter(None, [negative, *more]))
        length = count(prompt, target.encoder, self.tokenizers) if target.encoder else None
        ratio, note = _ratio(said, _sizes(query))
        pixels = int(self.megapixels * 1e6) or target.pixels
        size = ratios.size_of(ratio, pixels, target.multiple) if ratio else None
        data = {
            "target": target.name,
            "idea": self.idea,
            "prompt": prompt,
            "negative": negative,
            "ratio": said["ratio"].strip() or said["ratio_follow"].strip(),
            "width": size[1] if size else None,
            "height": size[0] if size else None,
            "tokens": length.tokens if length else None,
            "tokens_are_estimated": not length.is_exact if length else None,
            "max_tokens": target.max_tokens or None,
        }
        told = (f"The prompt is {length} of {target.max_tokens}.",) if length else ()
        return dataclasses.replace(
            reply, text=prompt, data=data, notes=(*reply.notes, *told, *filter(None, [note]))
        )

    @property
    def _given(self) -> str:
        """The triggers, as they begin every prompt."""
        return self.triggers.strip().rstrip(",").rstrip()

    def _triggered(self, prompt: str) -> str:
        triggers = self._given
        if not triggers or re.match(rf"{re.escape(triggers)}(?!\w)", prompt):
            return prompt
        if self.target.reply == "tags":
            known = {tag.strip().casefold() for tag in triggers.split(",")}
            prompt = ", ".join(tag for tag in prompt.split(", ") if tag.casefold() not in known)
        return ", ".join(filter(None, [triggers, prompt]))

    def _faults(self, found: Result) -> Faults:
        tokens, most = found.data["tokens"], self.target.max_tokens
        excess = f"It is too long: {tokens} tokens, and {most} fit." if (tokens or 0) > most else ""
        return self.wishes.faults(found.text, excess if most else "", self._given)

    def _told(self, found: Result, faults: Faults, tries: int, unmet: str) -> Result:
        """``found`` with notes on what it came to."""
        notes = list(found.notes)
        if faults.count and tries > 1:
            notes.append(f"Asked {tries} times, and still not as wished.")
        elif tries > 1:
            notes.append(f"As wished at try {tries}.")
        notes += [*faults.sentences, self._unwanted_triggers, unmet]
        notes += [self._made_for, self._missing_file, self._too_small]
        data = {
            **found.data,
            "missing": list(faults.missing),
            "forbidden": list(faults.forbidden),
            "tries": tries,
        }
        return dataclasses.replace(found, data=data, notes=tuple(filter(None, notes)))

    @property
    def _unwanted_triggers(self) -> str:
        found = self.wishes.forbidden_in(self._given)
        return f"The trigger words hold {quoted(found)}, and stay as they are." if found else ""

    @property
    def _missing_file(self) -> str:
        file = self.wording.system_file
        if not file or self.folder is None or self._made_for or self._own_system:
            return ""
        return (
            f"The checkpoint has no {file} with the words that it was trained on; the target's own "
            "were sent. Download that file too for replies as its makers mean them."
        )

    @property
    def _too_small(self) -> str:
        if self.folder != library.BUNDLED:
            return ""
        return (
            "The bundled model knows simple drawn scenes only and cannot write prompts: choose "
            "another one."
        )


def _nothing(text: str) -> UnreadableReply:
    """The error about a reply, ``text``, that holds no prompt."""
    still = text.lstrip().startswith("<think>")
    return UnreadableReply(STILL_THINKING if still else "The model answered nothing.", text)


def _again(prompt: str, faults: Faults, question: str) -> str:
    """What to ask, once ``prompt`` was found wanting."""
    return "\n\n".join(
        [
            question,
            f"An earlier try was:\n{prompt}",
            *faults.sentences,
            "Write the whole prompt anew, in the same form, so that all of this is right.",
        ]
    )


def _unmet(backend: Backend, query: Query, target: Target) -> str:
    """A note where the model does not think, though the target's form needs it."""
    if not target.thinking or query.thinking is not None:
        return ""
    try:
        backend.thinks(True)
    except BadOption:
        return "The target asks for thinking before the reply, which this model cannot do."
    return ""


def _sizes(query: Query) -> list[Size]:
    return [size_of(picture) for picture in query.pictures]


def _ratio(said: Mapping[str, Any], sizes: list[Size]) -> tuple[float | None, str]:
    """Width by height that a reply asks for, and a note where it cannot be told."""
    ratio, follow = said["ratio"].strip(), said["ratio_follow"].strip()
    found = ratios.ratio_of(ratio) if ratio else None
    if found is None and follow:
        found = ratios.followed(follow, sizes)
    if found is None and (ratio or follow):
        return None, f"The reply asks for the ratio {quoted([ratio or follow])}, which is none."
    return found, ""
