"""Pictures to words: captions, tags, prompts for image models, or one's own question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from ..errors import BadOption, UnreadableReply
from ..replies import answer_of, strip_fence
from ..types import Result, Seen, Task

STYLES: Mapping[str, str] = MappingProxyType(
    {
        "short": "Describe this image in one sentence.",
        "detailed": "Describe this image in detail.",
        "title": "Write a short title for this image, of at most eight words. Output only the "
        "title.",
        "alt_text": "Write alt text for this image, for people who cannot see it: one or two plain "
        "sentences of what it shows and any text that matters, without opening words such as "
        '"image of". Output only the alt text.',
        "tags": "List tags for this image: subjects, attributes, actions, setting, style, colors. "
        "Output only the tags, in lower case, separated by commas.",
        "prompt": "Write a text-to-image prompt that would recreate this image: subject, "
        "appearance, action, setting, composition, lighting, colors, style. One flowing paragraph "
        "in natural language. Output only the prompt.",
        "prompt_tags": "Write a text-to-image prompt that would recreate this image as a list of "
        "short tags in the style of image boards: number and kind of subjects first, then "
        "appearance, clothing, pose, setting, composition, lighting, style. Output only the tags, "
        "in lower case, separated by commas.",
        "cinematic": "Describe this image as a shot of a film: subject and action, framing, camera "
        "angle, lens, depth of field, lighting, color grade and mood. One paragraph. Output only "
        "the description.",
        "training": "Write a caption for training an image model with this image: state plainly "
        "everything that is visible, in one paragraph, without guesses, opinions or opening words "
        'such as "this image shows". Output only the caption.',
        "style": "Describe only the visual style of this image, not its content: medium, "
        "technique, palette, light, line, texture, era or movement. One paragraph.",
    }
)
"""What to write, and the words that ask for it."""

_TAGS = frozenset(("tags", "prompt_tags"))
_PARAGRAPHS = frozenset(("detailed", "style"))

_KIND = r"(?:prompt|title|alt[ -]text|tags?|caption|description)"
_HEADING = re.compile(
    rf"[\s*_#]*(?:image |text-to-image )?{_KIND}(?: (?:for|of) (?:the|this) image)?[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
# "Sure, here are some tags for this image:" tells of the answer, not of the picture.
_TALK = re.compile(
    r"[\s*_#]*(?:(?:sure|certainly|of course|okay|ok|absolutely)[,.!]*\s+)?"
    r"(?:here(?:['’]s| is| are)|below (?:is|are)|this is) "
    rf"(?:(?!(?:with|of|on|in|that|under)\b)[\w,'-]+ ){{0,6}}(?:list of )?{_KIND}"
    r"(?: (?:for|of|based on|describing|to recreate|that)\b[^\n:.]{0,80})?[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("「", "」"), ("**", "**"), ("`", "`"))
_BETWEEN_TAGS = re.compile(r"[,，、;\n]")
_BULLET = re.compile(r"^(?:[-*•#][-*•#\s]*|\d+[.)]\s+)")


def describe(style: str = "detailed", prompt: str = "", system: str = "") -> Task:
    """A question about what a picture shows; ``prompt``, where it says anything, takes the place
    of ``style``.

    The reply to a style of one line comes without the fences, quotes and headings that models put
    around it; tags come as one list with commas, each once. The reply to one's own prompt comes
    as it is. Raises ``BadOption`` for a style that is not in ``STYLES``.
    """
    if prompt.strip():
        return Task("describe", prompt.strip(), partial(_read, style=""), system=system)
    if style not in STYLES:
        raise BadOption(
            f"There is no style {style!r}. Choose one of {', '.join(STYLES)}, or write a prompt of "
            "your own."
        )
    parse = partial(_read, style=style)
    return Task("describe", STYLES[style], parse, system=system)


def _read(text: str, seen: Seen, style: str) -> Result:
    answer = answer_of(text)
    if style in _TAGS:
        answer = _tag_list(_bare(answer))
    elif style in _PARAGRAPHS:
        answer = _without_talk(strip_fence(answer))
    elif style:
        answer = " ".join(_bare(answer).split())
    if not answer:
        raise UnreadableReply(
            "The model wrote no description. If it was still thinking, raise "
            "max_new_tokens; else try another seed.",
            text,
        )
    return Result(text=answer)


def _bare(answer: str) -> str:
    """``answer`` without fence, talk, heading and the quotes around the whole of it."""
    answer = strip_fence(_without_talk(strip_fence(answer)))
    heading = _HEADING.match(answer)
    answer = answer[heading.end() :].strip() if heading else answer
    for opening, closing in _QUOTES:
        inner = answer.removeprefix(opening).removesuffix(closing)
        if len(answer) - len(inner) == len(opening + closing) and closing not in inner:
            return inner.strip()
    return answer


def _without_talk(answer: str) -> str:
    talk = _TALK.match(answer)
    return answer[talk.end() :] if talk else answer


def _tag_list(answer: str) -> str:
    unique: dict[str, str] = {}
    for part in _BETWEEN_TAGS.split(answer):
        tag = _BULLET.sub("", part.strip()).strip(" \t\"'`*.")
        unique.setdefault(tag.lower(), tag)
    return ", ".join(filter(None, unique.values()))
