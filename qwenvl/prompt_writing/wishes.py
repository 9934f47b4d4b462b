"""Words that a prompt must have, or must not have: told to the model, and looked for in its
reply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SEPARATOR = re.compile(r"[,，、;；\n]")
# Scripts that put no blanks between words.
_DENSE = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTER = rf"(?:(?![{_DENSE}])[^\W_])"


def listed(text: str) -> tuple[str, ...]:
    """The words or phrases in ``text``, with commas or line ends between them, each once."""
    found: dict[str, str] = {}
    for part in _SEPARATOR.split(text):
        phrase = " ".join(part.strip().strip("\"'“”").split())
        found.setdefault(phrase.casefold(), phrase)
    return tuple(filter(None, found.values()))


def stands_in(phrase: str, text: str, plural: bool = False) -> bool:
    """Whether ``text`` has ``phrase`` as whole words, in any case, with blanks or underscores
    between them. ``plural``: an English plural of its last word counts too."""
    words = [re.escape(word) for word in re.split(r"[\s_]+", phrase) if word]
    if not words:  # of underscores alone
        return phrase in text
    pattern = r"[\s_]+".join(words)
    if re.match(_LETTER, phrase):
        pattern = rf"(?:^|(?<=[\W_{_DENSE}])){pattern}"
    if re.match(_LETTER, phrase[-1:]):
        pattern += ("(?:e?s)?" if plural else "") + rf"(?!{_LETTER})"
    return re.search(pattern, text, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Faults:
    """What is wrong with a prompt: words that are ``missing``, or ``forbidden`` and there all the
    same; ``excess``: why it is too long."""

    missing: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    excess: str = ""

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.forbidden) + bool(self.excess)

    @property
    def sentences(self) -> list[str]:
        """For the person, and for the model that is asked again."""
        said = []
        if self.missing:
            said.append(f"Missing in the prompt: {quoted(self.missing)}.")
        if self.forbidden:
            said.append(f"In the prompt, but not wanted: {quoted(self.forbidden)}.")
        return [*said, self.excess] if self.excess else said


@dataclass(frozen=True)
class Wishes:
    """``must``: words that a prompt has to hold as they are; ``must_not``: things that it is not to
    describe, and words that it is not to hold."""

    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()

    @property
    def instructions(self) -> list[str]:
        said = []
        if self.must:
            said.append(f"These words must stand in the prompt as they are: {quoted(self.must)}.")
        if self.must_not:
            said.append(
                f"Do not describe or mention any of these: {quoted(self.must_not)}. Do not write "
                "that they are absent either: none of these words may stand in the prompt."
            )
        return said

    def faults(self, prompt: str, excess: str = "") -> Faults:
        missing = tuple(phrase for phrase in self.must if not stands_in(phrase, prompt))
        found = tuple(phrase for phrase in self.must_not if stands_in(phrase, prompt, plural=True))
        return Faults(missing, found, excess)


def quoted(phrases: Sequence[str]) -> str:
    return ", ".join(f'"{phrase}"' for phrase in phrases)
