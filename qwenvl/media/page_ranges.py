"""Page ranges of documents, as people write them. Standard library only."""

from __future__ import annotations

import re

from ..errors import BadOption

_RANGE = re.compile(r"(\d{1,9})?\s*(?:(-)\s*(\d{1,9})?)?")
# What keyboards and word processors make of a comma and a hyphen.
_SPELLINGS = str.maketrans(
    {"，": ",", "、": ",", ";": ",", "；": ",", "–": "-", "—": "-", "－": "-"}
)


def page_numbers(text: str, count: int) -> list[int]:
    """The pages, from 1, that ``text`` names of a document of ``count``: ``"3"``, ``"1-10"``,
    ``"2-"``, ``"-5"``, ``"1,4-6"``; all where it is empty.

    In the order written, each page once. A range may reach beyond the last page, but has to begin
    before it. Raises ``BadOption`` for what is no page range, or names pages that there are not.
    """
    if not text.strip():
        return list(range(1, count + 1))
    numbers: dict[int, None] = {}
    for part in filter(None, map(str.strip, text.translate(_SPELLINGS).split(","))):
        first, last = _bounds(part, text)
        if first > count:
            raise BadOption(
                f"There is no page {first}: the document has {count} "
                f"{'page' if count == 1 else 'pages'}."
            )
        numbers |= dict.fromkeys(range(first, min(last, count) + 1))
    if not numbers:
        raise _no_range(text)
    return list(numbers)


def _bounds(part: str, text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(part)
    if found is None or not (found[1] or found[3]):
        raise _no_range(text)
    first = int(found[1] or 1)
    last = int(found[3] or 10**9) if found[2] else first
    if not 1 <= first <= last:
        raise _no_range(text)
    return first, last


def _no_range(text: str) -> BadOption:
    return BadOption(
        f"{text[:60]!r} names no pages. Write them as 1-10, or 3, or 2-, or 1,4-6; the first page "
        "is 1, and nothing means all."
    )
