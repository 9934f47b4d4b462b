"""Times in replies: seconds and clock times ("12.5 seconds", "01:32.40", "1 min 5 s"), and ranges
of two of them, to seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NUMBER = r"\d{1,7}(?:\.\d{1,9})?"
_CLOCK = r"\d{1,3}(?::\d{1,2}){1,2}(?:[.,]\d{1,9})?"
_HOURS = r"(?:hours?\b|hrs?\b|h\b|h(?=\d)|小时)"
_MINUTES = r"(?:minutes?\b|mins?\b|m\b|m(?=\d)|分钟?)"
_SECONDS = r"(?:seconds?\b|secs?\b|s\b|秒钟?)"
_UNITS = (
    rf"(?:{_NUMBER}\s?{_HOURS}(?:[\s,]*{_NUMBER}\s?{_MINUTES})?"
    rf"|{_NUMBER}\s?{_MINUTES})(?:[\s,]*(?:and\s)?{_NUMBER}\s?{_SECONDS})?"
    rf"|{_NUMBER}[\s-]?{_SECONDS}"
)
_TIME = rf"(?:{_CLOCK}|{_UNITS}|{_NUMBER})"
_OPEN, _CLOSE = r"(?:[<\[(\"'*]{0,3})", r"(?:[>\])\"'*]{0,3})"
_BEFORE = r"(?:(?:second|timestamp|time|t\s?=|第)s?\s?)?"
_TO = r"(?:-{1,2}>|=>|→|[-–—−~～]|\b(?:to|until|till|through|up to)\b|至|到)"

_PART = re.compile(rf"({_NUMBER})\s?(?:({_HOURS})|({_MINUTES})|({_SECONDS}))")
_CLOCK_ONLY = re.compile(_CLOCK)
_WHOLE = re.compile(rf"\s*{_OPEN}\s*{_BEFORE}({_TIME})\s*{_CLOSE}\s*", re.IGNORECASE)
# Repeats that can share characters are bounded: two of them over a long run take quadratic time.
_GAP = r"\s{0,12}"
_RANGE = re.compile(
    rf"(?<![\w.:])(?:"
    rf"{_OPEN}{_BEFORE}({_TIME}){_GAP}{_CLOSE}{_GAP}{_TO}{_GAP}{_OPEN}{_BEFORE}({_TIME}){_CLOSE}(?!\w)(?!\.\d)"
    rf"|[\[(]\s*({_TIME})\s*,\s*({_TIME})\s*[\])]"
    rf"|\bbetween\s+({_TIME})\s+and\s+({_TIME})(?!\w)(?!\.\d)"
    r")",
    re.IGNORECASE,
)
_NAME = r"(?:[ _]?(?:time|timestamp|sec|seconds|s))?[\"'*`]*\s*[:=]\s*[\"'<*`]*"
_NAMED = re.compile(
    rf"\b(?:start|begin)(?:ning)?{_NAME}({_TIME})[\"'>*`]{{0,4}}(?:{_GAP}(?:s|sec|seconds)\b)?"
    rf"[\s,;|*\-•]{{0,80}}\bend(?:ing)?{_NAME}({_TIME})[\"'>*`]{{0,4}}(?!\.?\d)",
    re.IGNORECASE,
)
_MOMENT = re.compile(
    rf"^[\s>#*_\-•]*(?:\d{{1,3}}[.)]\s+)?(?:at\s+)?{_OPEN}({_CLOCK}|{_UNITS})(?!\w){_CLOSE}",
    re.IGNORECASE,
)
# Numbers alone are a range of time only where a line begins with them as with a heading.
_HEADING = re.compile(r"\s*(?:[:：\]|>]|[-–—]\s)")
_UNIT_AFTER = re.compile(rf"[\s-]?{_SECONDS}", re.IGNORECASE)
_LINE_START = re.compile(r"[\s>#*_|\"'{\-•]*(?:\d{1,3}[.)]\s+)?[\[(<\"'*]*")
_LEAD_LENGTH = 40  # characters, of bullets and numbers before a range
_MARK = re.compile(r"[:<\[]|\d\s?[a-z秒分小]", re.IGNORECASE)


@dataclass(frozen=True)
class Range:
    """From ``begin`` to ``end`` seconds, written in a text from ``start`` up to ``stop``. ``end``
    is None of a single moment."""

    begin: float
    end: float | None
    start: int = 0
    stop: int = 0


def seconds(value: Any) -> float | None:
    """A time in seconds, from a number or from text that is a time and nothing else; None for
    anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # an integer beyond any float
            return None
    if not isinstance(value, str) or len(value) > 60:
        return None
    sign = -1 if value.strip().startswith("-") else 1
    found = _WHOLE.fullmatch(value.strip().removeprefix("-"))
    return sign * _seconds(found[1]) if found else None


def _seconds(text: str) -> float:
    """Of what ``_TIME`` matches."""
    if _CLOCK_ONLY.fullmatch(text):
        total = 0.0
        for part in text.replace(",", ".").split(":"):
            total = total * 60 + float(part)
        return round(total, 6)
    parts = [found for found in _PART.finditer(text.replace("-", " "))]
    if not parts:
        return float(text)
    scales = [3600 if found[2] else 60 if found[3] else 1 for found in parts]
    return sum(float(found[1]) * scale for found, scale in zip(parts, scales, strict=True))


def whole_range(text: str) -> Range | None:
    """The range that ``text`` is, and nothing else: ``00:23.00 - 00:48.00``, ``[0, 5.2]``."""
    text = text.strip()
    found = next(_ranges(_RANGE, text), None) if len(text) <= 120 else None
    if found is None:
        return None
    rest = (text[: found.start] + text[found.stop :]).lower()
    is_whole = re.fullmatch(rf"\s*(?:from|{_SECONDS})?[\s.:>\])]*", rest)
    return found if is_whole else None


def ranges(text: str) -> list[Range]:
    """All ranges of time in ``text``, in order: with clock times or units, in brackets, named
    (``start: 1, end: 2``), or numbers that a line begins with as with a heading."""
    named = list(_ranges(_NAMED, text))
    if named:
        return named
    return [found for found in _ranges(_RANGE, text) if _is_time(text, found)]


def _ranges(pattern: re.Pattern[str], text: str) -> Iterator[Range]:
    for found in pattern.finditer(text):
        first, second = (group for group in found.groups() if group)
        begin, end = _seconds(first), _seconds(second)
        if _is_number(first) and (last := list(_PART.finditer(second))) and last[0][3]:
            begin *= 60  # "1 to 2 minutes"
        yield Range(begin, end, found.start(), found.end())


def _is_number(text: str) -> bool:
    return re.fullmatch(_NUMBER, text) is not None


def _is_time(text: str, found: Range) -> bool:
    """Whether a range is one of time, and not one of anything else ("2-3 people")."""
    if _MARK.search(text, found.start, found.stop) or _UNIT_AFTER.match(text, found.stop):
        return True
    before = text[max(0, found.start - _LEAD_LENGTH) : found.start].rpartition("\n")
    is_first = bool(before[1]) or found.start <= _LEAD_LENGTH
    return bool(is_first and _LINE_START.fullmatch(before[2]) and _HEADING.match(text, found.stop))


def moment(line: str) -> Range | None:
    """The single time that a line begins with: ``[00:12] A dog``, ``At 3 seconds, …``."""
    found = _MOMENT.match(line)
    return Range(_seconds(found[1]), None, found.start(), found.end()) if found else None
