"""Replies of words for people: a caption, a prompt or tags, without the headings, quotes and
opening words that models put around them."""

from __future__ import annotations

import re

from .answer import strip_fence

_KIND = r"(?:prompt|title|alt[ -]text|tags?|caption|description)"
_HEADING = re.compile(
    r"[\s*_#]*(?:(?:image|video|text-to-image|text-to-video|rewritten|revised|enhanced|final) )*"
    rf"{_KIND}(?: (?:for|of) (?:the|this) image)?[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
# "Sure, here are some tags for this image:"
_PREAMBLE = re.compile(
    r"[\s*_#]*(?:(?:sure|certainly|of course|okay|ok|absolutely)[,.!]*\s+)?"
    r"(?:here(?:['’]s| is| are)|below (?:is|are)|this is) "
    rf"(?:(?!(?:with|of|on|in|that|under)\b)[\w,'-]+ ){{0,6}}(?:list of )?{_KIND}"
    r"(?: (?:for|of|based on|describing|to recreate|that)\b[^\n:.]{0,80})?[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("「", "」"), ("**", "**"), ("`", "`"))
_TAG_SEPARATOR = re.compile(r"[,，、\n]")
_BULLET = re.compile(r"^(?:(?:[-*•+]\s+|\d+[.)]\s+)+|[-*•](?=[^\W_]))?(?:#+\s*(?=\w))?")
_HASHTAG = re.compile(r"(?<=\w)[ \t]+#(?=\w)")
_FINAL_FULL_STOP = re.compile(r"([^\W_])\.\s*(?=\n|\Z)")


def unwrapped(answer: str) -> str:
    """``answer`` without a code fence, preamble, heading and quotes around the whole of it."""
    answer = strip_fence(without_preamble(strip_fence(answer)))
    heading = _HEADING.match(answer)
    answer = answer[heading.end() :].strip() if heading else answer
    for opening, closing in _QUOTES:
        inner = answer.removeprefix(opening).removesuffix(closing)
        if len(answer) - len(inner) == len(opening + closing) and closing not in inner:
            return inner.strip()
    return answer


def without_preamble(answer: str) -> str:
    """``answer`` without opening words such as "Sure, here is a caption:"."""
    preamble = _PREAMBLE.match(answer)
    return answer[preamble.end() :] if preamble else answer


def tag_list(answer: str) -> str:
    """The tags in ``answer``, each once, with commas between them."""
    unique: dict[str, str] = {}
    # If tags have another separator, a semicolon may be part of a tag such as ";)".
    answer = _HASHTAG.sub("\n#", _FINAL_FULL_STOP.sub(r"\1", answer))
    separator = _TAG_SEPARATOR if _TAG_SEPARATOR.search(answer) else re.compile(r";(?![)D(P])\s*")
    for part in dict.fromkeys(separator.split(answer)):
        tag = _unquoted(_BULLET.sub("", part.strip(), count=1).strip())
        unique.setdefault(tag.lower(), tag)
    return ", ".join(filter(None, unique.values()))


def _unquoted(tag: str) -> str:
    for opening, closing in _QUOTES:
        inner = tag.removeprefix(opening).removesuffix(closing)
        if inner and len(tag) - len(inner) == len(opening + closing):
            return inner.strip()
    return tag
