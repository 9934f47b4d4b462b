"""Image description: captions, tags, prompts for image models, or a prompt of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from ..errors import BadOption, UnreadableReply
from ..replies import STILL_THINKING, extract_answer, loose_json, strip_fence
from ..replies.wording import tag_list, unwrapped, without_preamble
from ..types import ReplyContext, Result, Task
from .picture_code import CODE_STYLES, read_code

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
        **{name: style.prompt for name, style in CODE_STYLES.items()},
    }
)
"""Styles, each with its prompt."""

_TAGS = frozenset(("tags", "prompt_tags"))
_PARAGRAPHS = frozenset(("detailed", "style"))

# Members of a JSON object that can hold the whole of a caption.
_CAPTIONS = (
    "caption", "image_caption", "description", "text", "title", "alt_text", "alt", "prompt",
    "answer", "output", "response", "result", "content", "summary", "tags", "keywords",
)  # fmt: skip


def describe(style: str = "detailed", prompt: str = "", system: str = "") -> Task:
    """The task to describe a picture; ``prompt``, unless it is empty, replaces ``style``.

    Replies to one-line styles are stripped of the code fences, quotes and headings that models add;
    tags are comma-separated, each once; of a style of ``CODE_STYLES`` only the code is left (see
    ``read_code``). The reply to a custom prompt stays as it is. Raises ``BadOption`` for a style
    that is not in ``STYLES``.
    """
    if prompt.strip():
        return Task("describe", prompt.strip(), partial(_read, style=""), system=system)
    if style not in STYLES:
        raise BadOption(
            f"There is no style {style!r}. Choose one of {', '.join(STYLES)}, or write a prompt of "
            "your own."
        )
    if code := CODE_STYLES.get(style):
        parse = partial(read_code, style=style)
        length = code.max_new_tokens
        return Task(
            "describe", code.prompt, parse, system=system, greedy=True, max_new_tokens=length
        )
    parse = partial(_read, style=style)
    return Task("describe", STYLES[style], parse, system=system)


def _read(text: str, context: ReplyContext, style: str) -> Result:
    answer = extract_answer(text)
    if not answer and text.lstrip().startswith("<think>"):
        raise UnreadableReply(STILL_THINKING, text)
    if style:
        answer = _from_json(strip_fence(answer), style)
    if style in _TAGS:
        answer = tag_list(unwrapped(answer))
    elif style in _PARAGRAPHS:
        answer = without_preamble(strip_fence(answer))
    elif style:
        answer = " ".join(unwrapped(answer).split())
    return Result(text=answer, notes=() if answer else ("The model answered nothing.",))


def _from_json(answer: str, style: str) -> str:
    """The caption in ``answer`` if it is JSON and nothing else, with tags one a line; else
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
