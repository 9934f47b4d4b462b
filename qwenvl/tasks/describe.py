"""Image description: captions, tags, prompts for image models, or a prompt of one's own."""

from __future__ import annotations

from functools import partial

from ..errors import UnreadableReply
from ..replies import STILL_THINKING, extract_answer, loose_json, strip_fence
from ..replies.story import read_story
from ..replies.wording import tag_list, unwrapped, without_preamble
from ..styles import Style, read_styles
from ..types import ReplyContext, Result, Task
from ..yaml_files import Found
from .picture_code import CODE_STYLES, read_code


def known_styles(own: Found[Style] | None = None) -> dict[str, str]:
    """Every style with its prompt, in the order of a list: the pack's own, those for code, users'.
    ``own``: the pack's and users' (see ``styles.read_styles``); None: the pack's."""
    pack = read_styles()
    words = {name: style.prompt for name, style in (own or pack).items.items()}
    code = {name: style.prompt for name, style in CODE_STYLES.items()}
    first = {name: words[name] for name in pack.items if name in words}
    return {**first, **code, **words}


# Members of a JSON object that can hold the whole of a caption.
_CAPTIONS = (
    "caption", "image_caption", "description", "text", "title", "alt_text", "alt", "prompt",
    "answer", "output", "response", "result", "content", "summary", "tags", "keywords",
)  # fmt: skip


def describe(
    style: str = "detailed",
    prompt: str = "",
    system: str = "",
    own: Found[Style] | None = None,
) -> Task:
    """The task to describe a picture; ``prompt``, unless it is empty, replaces ``style``, one of
    ``known_styles(own)``.

    Replies to one-line styles are stripped of the code fences, quotes and headings that models add;
    tags are comma-separated, each once; of a style of ``CODE_STYLES`` only the code is left (see
    ``read_code``). The reply to a custom prompt stays as it is. A story in tags loses them, and
    what they say is its ``data`` (see ``read_story``). Raises ``BadOption`` for a style that is not
    there.
    """
    if prompt.strip():
        return Task("describe", prompt.strip(), partial(_read, form="text"), system=system)
    words = own or read_styles()
    if style in CODE_STYLES and style not in words.items:
        code = CODE_STYLES[style]
        return Task(
            "describe",
            code.prompt,
            partial(read_code, style=style),
            system=system,
            greedy=True,
            max_new_tokens=code.max_new_tokens,
        )
    if style not in words.items:
        raise words.missing(style, known_styles(words))
    found = words.items[style]
    return Task(
        "describe",
        found.prompt,
        partial(_read, form=found.form),
        system=system,
        max_new_tokens=found.max_new_tokens,
    )


def _read(text: str, context: ReplyContext, form: str) -> Result:
    answer = extract_answer(text)
    if not answer and text.lstrip().startswith("<think>"):
        raise UnreadableReply(STILL_THINKING, text)
    if story := read_story(answer):
        return Result(text=story[0], data={"story": story[1]})
    if form != "text":
        answer = _from_json(strip_fence(answer), form)
    if form == "tags":
        answer = tag_list(unwrapped(answer))
    elif form == "paragraphs":
        answer = without_preamble(strip_fence(answer))
    elif form == "line":
        answer = " ".join(unwrapped(answer).split())
    return Result(text=answer, notes=() if answer else ("The model answered nothing.",))


def _from_json(answer: str, form: str) -> str:
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
    if is_list and form == "tags":
        return "\n".join(value)
    return answer
