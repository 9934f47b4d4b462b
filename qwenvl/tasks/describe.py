"""Pictures to words: captions, tags, prompts for image models, or one's own question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from ..errors import BadOption, UnreadableReply
from ..replies import STILL_THINKING, answer_of, loose_json, strip_fence
from ..types import ReplyContext, Result, Task

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
_BETWEEN_TAGS = re.compile(r"[,，、\n]")
_BULLET = re.compile(r"^(?:(?:[-*•+]\s+|\d+[.)]\s+)+|[-*•](?=[^\W_]))?(?:#+\s*(?=\w))?")
# Members of a JSON object that can hold the whole of a caption.
_CAPTIONS = (
    "caption", "image_caption", "description", "text", "title", "alt_text", "alt", "prompt",
    "answer", "output", "response", "result", "content", "summary", "tags", "keywords",
)  # fmt: skip
_HASHTAG = re.compile(r"(?<=\w)[ \t]+#(?=\w)")
_END_OF_SENTENCE = re.compile(r"([^\W_])\.\s*(?=\n|\Z)")


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


def _read(text: str, context: ReplyContext, style: str) -> Result:
    answer = answer_of(text)
    if not answer and text.lstrip().startswith("<think>"):
        raise UnreadableReply(STILL_THINKING, text)
    if style:
        answer = _from_json(strip_fence(answer), style)
    if style in _TAGS:
        answer = _tag_list(_bare(answer))
    elif style in _PARAGRAPHS:
        answer = _without_talk(strip_fence(answer))
    elif style:
        answer = " ".join(_bare(answer).split())
    return Result(text=answer, notes=() if answer else ("The model answered nothing.",))


def _from_json(answer: str, style: str) -> str:
    """The caption in ``answer`` where it is JSON of nothing else, tags one a line; else
    ``answer``."""
    if answer[:1] not in ("{", "["):
        return answer
    found = loose_json.values(answer)
    if len(found) != 1 or found[0].key is not None or answer[found[0].end :].strip():
        return answer
    value = found[0].value
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        members = {str(name).lower(): member for name, member in value.items() if member}
        value = next((members[name] for name in _CAPTIONS if name in members), None)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
    if isinstance(value, str):
        return value.strip()
    is_list = isinstance(value, list) and value and all(isinstance(tag, str) for tag in value)
    if is_list and style in _TAGS:
        return "\n".join(value)
    return answer


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
    # A semicolon is a part of tags such as ";)" where something else is between them.
    answer = _HASHTAG.sub("\n#", _END_OF_SENTENCE.sub(r"\1", answer))
    between = _BETWEEN_TAGS if _BETWEEN_TAGS.search(answer) else re.compile(r";(?![)D(P])\s*")
    for part in dict.fromkeys(between.split(answer)):
        tag = _unquoted(_BULLET.sub("", part.strip(), count=1).strip())
        unique.setdefault(tag.lower(), tag)
    return ", ".join(filter(None, unique.values()))


def _unquoted(tag: str) -> str:
    for opening, closing in _QUOTES:
        inner = tag.removeprefix(opening).removesuffix(closing)
        if inner and len(tag) - len(inner) == len(opening + closing):
            return inner.strip()
    return tag
