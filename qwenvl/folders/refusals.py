"""Refusal detection: replies that say that there will be no caption. The words are in
``refusals.yaml``.

Either mistake costs: a refusal that is taken for a caption trains a model on "I'm sorry", and a
caption taken for a refusal is missing. So the rule is narrow. A reply refuses by how it begins,
behind marks, a greeting or "Caption:", in one of three ways:

- an apology, "As an AI" or a reason, and in the same sentence that the writer cannot, or that the
  picture is in no state: "I'm sorry, but … I cannot";
- that the writer cannot do what captioners do: "I can't describe";
- what refuses by itself: "No image was provided".

It does not where all of this is quoted: in quotation marks with more behind them, or with what it
stands on behind a comma, a colon or a dash: "I can't help you, says a note on a door". Nor does it
where the same sentence goes on to describe: "I can't tell the breed, but a dog sits on grass".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..yaml_files import read_mapping

FILE = Path(__file__).with_name("refusals.yaml")

LONGEST = 600
"""Characters of a reply that are looked at."""

_IN_SENTENCE = r"[^.!?。:;]"
_MARKS = str.maketrans("’‘ʼ＇！？：，、", "''''!?:,,")
_QUOTES = {'"': '"', "“": "”", "„": "“”", "«": "»", "「": "」", "『": "』", "'": "'", "‹": "›"}
_OPENING = re.compile(
    r"(?:[\W_]|(?:oh|well|hmm|hello|hi|hey|sure|您好|你好)(?=[ ,.!。]))*"
    r"(?:(?:caption|description|answer|response|reply|note|描述|回答) ?:\W*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Language:
    refusal: re.Pattern[str]
    caption: re.Pattern[str]


def is_refusal(reply: str) -> bool:
    """Whether ``reply`` refuses, instead of captioning."""
    text = _unquoted(" ".join(reply[:LONGEST].translate(_MARKS).split()))
    opening = _OPENING.match(text)
    text = text[opening.end() :] if opening else text
    return any(_refuses(text, language) for language in _languages())


def _refuses(text: str, language: _Language) -> bool:
    found = language.refusal.match(text)
    return found is not None and not language.caption.match(text, found.end())


def _unquoted(text: str) -> str:
    """Without quotation marks around all of it; nothing where more stands behind them."""
    end = _QUOTES.get(text[:1])
    if end is None:
        return text
    in_word = r"(?!\w)" if end == "'" else ""  # an apostrophe there ends no quotation
    closing = re.search(f"[{end}]{in_word}", text[1:])
    if closing is None:
        return text
    return "" if re.search(r"\w", text[1 + closing.end() :]) else text[1 : 1 + closing.start()]


@functools.cache
def _languages() -> list[_Language]:
    return [_language(values) for values in read_mapping(FILE).values()]


def _language(values: Mapping[str, Any]) -> _Language:
    parts: dict[str, str] = {}
    for name, pattern in values.get("parts", {}).items():
        parts[name] = _any_of([pattern], parts)
    before, cannot, whole, media = (
        _any_of(values[name], parts) for name in ("before", "cannot", "whole", "media")
    )
    behind = _any_of([*values["cannot"], *values.get("behind", ())], parts)
    first = rf"{before}[ ,.;:!–—-]*"
    ways = [
        rf"{first}{_IN_SENTENCE}{{0,80}}?{behind}",
        rf"(?:{first}{_IN_SENTENCE}{{0,40}}?)?{whole}",
    ]
    if "deeds" in values:
        ways.append(rf"{cannot}{values['between']} {_any_of(values['deeds'], parts)}")
    caption = rf"[^.!?。]{{0,80}}?(?:[,;:–—]| - )[\"' ]*{media}"
    if "goes_on" in values:
        caption += rf"|[^.!?。]{{0,80}}?[,;–—] *{_any_of(values['goes_on'], parts)}"
    return _Language(*(re.compile(one, re.IGNORECASE) for one in ("|".join(ways), caption)))


def _any_of(patterns: Iterable[str], parts: Mapping[str, str]) -> str:
    """With what ``<name>`` stands for."""
    text = "|".join(pattern.replace("\n", "") for pattern in patterns)
    return f"(?:{re.sub('<([a-z_]+)>', lambda found: parts[found[1]], text)})"
