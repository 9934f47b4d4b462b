"""Words that a prompt must have, or must not have: told to the model, and looked for in its
reply."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadOption

_SEPARATOR = re.compile(r"[,，、;；\n]")
# Scripts that put no blanks between words.
_DENSE = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTER = rf"(?:(?![{_DENSE}])[^\W_])"
# End in s and are no plurals, or such as have another sense.
_NO_PLURALS = frozenset(
    ("atlas", "bias", "canvas", "chaos", "christmas", "gas", "lens", "news", "series", "species")
)


def listed(text: str) -> tuple[str, ...]:
    """The words or phrases in ``text``, with commas or line ends between them, each once."""
    found: dict[str, str] = {}
    for part in _SEPARATOR.split(text):
        phrase = " ".join(part.strip().strip("\"'“”").split())
        found.setdefault(phrase.casefold(), phrase)
    return tuple(filter(None, found.values()))


def stands_in(phrase: str, text: str, plural: bool = False) -> bool:
    """Whether ``text`` has ``phrase`` as whole words, in any case, with blanks or underscores
    between them. ``plural``: the regular English plural and singular of its last word count too."""
    phrase, text = (unicodedata.normalize("NFC", words) for words in (phrase, text))
    *before, last = [word for word in re.split(r"[\s_]+", phrase) if word] or [""]
    if not last:  # of underscores alone
        return phrase in text
    ends_in_letter = re.match(_LETTER, phrase[-1:]) is not None
    lasts = _numbers(last) if plural and ends_in_letter else [last]
    either = f"(?:{'|'.join(map(re.escape, lasts))})"
    pattern = r"[\s_]+".join([*map(re.escape, before), either])
    if re.match(_LETTER, phrase):
        pattern = rf"(?:^|(?<=[\W_{_DENSE}])){pattern}"
    if ends_in_letter:
        pattern += rf"(?!{_LETTER})"
    return re.search(pattern, text, re.IGNORECASE) is not None


def _numbers(word: str) -> list[str]:
    """``word`` with its regular English plurals, and, where it may be one itself, its singulars
    with theirs."""
    low, singulars = word.lower(), [word]
    if low.endswith("s") and not low.endswith(("ss", "us", "is")) and low not in _NO_PLURALS:
        stems = [word[:-1]]
        if low.endswith("es"):
            stems.append(word[:-2])
        if low.endswith("ies"):
            stems.append(f"{word[:-3]}y")
        singulars += [stem for stem in stems if len(stem) > 2]
    found = [form for one in singulars for form in (one, f"{one}s", f"{one}es")]
    found += [f"{one[:-1]}ies" for one in singulars if re.search("[^aeiou]y$", one, re.IGNORECASE)]
    return list(dict.fromkeys(found))


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
    describe, and words that it is not to hold. Raises ``BadOption`` where one is within another,
    so that no prompt could be as wished."""

    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for phrase in self.must:
            if within := self.forbidden_in(phrase):
                raise BadOption(
                    f'"{phrase}" must appear, and {quoted(within)} must not. Take one of them out.'
                )

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

    def faults(self, prompt: str, excess: str = "", given: str = "") -> Faults:
        """``given``: the beginning of the prompt, not by the model, which may hold any words."""
        missing = tuple(phrase for phrase in self.must if not stands_in(phrase, prompt))
        return Faults(missing, self.forbidden_in(prompt.removeprefix(given)), excess)

    def forbidden_in(self, text: str) -> tuple[str, ...]:
        return tuple(phrase for phrase in self.must_not if stands_in(phrase, text, plural=True))


def quoted(phrases: Sequence[str]) -> str:
    return ", ".join(f'"{phrase}"' for phrase in phrases)
