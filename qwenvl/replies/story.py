"""Stories across pictures, in the tags that QwenStoryteller writes: ``<gdi image2>`` around what is
told of the second picture, and in it ``<gdo char1>`` around people and things, ``<gda char1>``
around what they do, ``<gdl lm1>`` around places, each with one name or several.

The form is that of the StoryReasoning dataset (https://github.com/daniel3303/StoryReasoning).
"""

from __future__ import annotations

import re
from typing import Any

_KINDS = {"gdo": "entity", "gda": "action", "gdl": "place"}
_PICTURE = re.compile(r"<gdi\s+image\s?(\d{1,4})\s*>", re.I)
_TAG = re.compile(r"<(/?)(gd[oal])((?:\s+[\w-]{1,40}){0,20})\s*>", re.I)
_ANY_TAG = re.compile(r"</?gd[ioal](?:\s[^<>]{0,1000})?>", re.I)


def read_story(text: str) -> tuple[str, list[dict[str, Any]]] | None:
    """The story without its tags, a paragraph a picture, and of each picture its ``image``, counted
    from 1, its ``text`` and its ``mentions``: their ``kind`` (entity, action, place), ``names`` and
    ``text``. None for a text without such tags."""
    openings = list(_PICTURE.finditer(text))
    if not openings:
        return None
    ends = [*(opening.start() for opening in openings[1:]), len(text)]
    pictures = [
        _picture(int(opening[1]), text[opening.end() : end])
        for opening, end in zip(openings, ends, strict=True)
    ]
    before = _plain(text[: openings[0].start()])
    told = [before, *(picture["text"] for picture in pictures)]
    return "\n\n".join(part for part in told if part), pictures


def _picture(number: int, text: str) -> dict[str, Any]:
    mentions: list[dict[str, Any]] = []
    opened: list[tuple[str, list[str], int]] = []
    for tag in _TAG.finditer(text):
        name = tag[2].lower()
        if not tag[1]:
            opened.append((name, tag[3].split(), tag.end()))
        elif opened and opened[-1][0] == name:
            _, names, start = opened.pop()
            words = _plain(text[start : tag.start()])
            if words and names:
                mentions.append({"kind": _KINDS[name], "names": names, "text": words})
        else:  # a tag that was not closed before another
            opened.clear()
    return {"image": number, "text": _plain(text), "mentions": mentions}


def _plain(text: str) -> str:
    """``text`` without tags; their indented lines were one paragraph."""
    return " ".join(_ANY_TAG.sub("", text).split())
