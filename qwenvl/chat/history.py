"""History: a conversation as JSON text, with its pictures, videos and sounds by reference.

::

    {"qwen_vl_chat": 1, "system": "Be brief.", "turns": [
        {"text": "What is it?", "answer": "A cat.", "ids": [32, 8251, 13],
         "media": [{"type": "image", "folder": "output", "path": "qwen_vl_chat/….png",
                    "digest": "…", "width": 640, "height": 480}]}]}

``ids`` may be left out: the answer is then read as text. So may the ``digest``, as of a picture
that was named by hand. A video has its ``fps``, frames a second that are shown, where these are not
two, and ``sound``, true where it is heard. Thoughts are there only where the conversation keeps
them.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ..errors import BadOption
from ..media.frame_times import FPS
from ..types import Image, Video
from ..unicode import well_formed
from .conversation import Attachment, Conversation, Media, Reference, Turn, digest

VERSION = 1
MAX_CHARACTERS = 50_000_000
"""Of a history; a context of a million tokens takes a fifth of it."""
MAX_PATH = 4096

Kind = Literal["image", "video", "audio"]

Open = Callable[[Kind, Reference], Media]
"""Reads a picture, a video or a sound. Raises ``BadOption`` for a place where none may be read,
``BadImage`` for a file that is none."""

_READ: dict[str, Any] = {"fps": FPS, "sound": False}
"""How videos are read unless a history says otherwise."""

_NAMES: dict[Kind, str] = {"image": "picture", "video": "video", "audio": "sound"}


def dumps(conversation: Conversation) -> str:
    """The conversation as JSON. What has no reference is told of but not kept: ``loads`` says that
    it is missing."""
    turns = [_turn_values(turn) for turn in conversation.turns]
    values = {"qwen_vl_chat": VERSION, "system": conversation.system, "turns": turns}
    text = json.dumps(values, ensure_ascii=False)
    # Half a character, as in a path that is not UTF-8, becomes its escape of JSON's.
    return text.encode("utf-8", "backslashreplace").decode()


def loads(text: str, open_media: Open) -> Conversation:
    """The conversation in ``text``. Raises ``BadOption`` for what is no history and for a picture,
    video or sound that is missing, has changed or may not be read, naming its turn; and what
    ``open_media`` raises for a file that is none."""
    values = _values(text)
    turns = tuple(_turn(turn, number, open_media) for number, turn in enumerate(values["turns"], 1))
    return Conversation(_text(values, "system", "the history"), turns)


def references(text: str) -> list[Reference]:
    """Where the files that a history names lie. No file is read; what ``loads`` refuses has none,
    or some."""
    found = []
    try:
        turns = _values(text)["turns"] if text.strip() else []
    except BadOption:
        return []
    for turn in turns:
        media = turn.get("media") if isinstance(turn, Mapping) else None
        for shown in media if isinstance(media, list) else ():
            place = shown if isinstance(shown, Mapping) else {}
            path, folder = place.get("path"), place.get("folder", "")
            if isinstance(path, str) and isinstance(folder, str):
                found.append(Reference(path, folder))
    return found


def _values(text: str) -> dict[str, Any]:
    """Of a history, with a list of turns. Raises ``BadOption`` for what is none."""
    if len(text) > MAX_CHARACTERS:
        raise BadOption(f"The history is longer than {MAX_CHARACTERS:,} characters.")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadOption(f"The history is not valid JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("turns"), list):
        raise BadOption(
            "The history is no conversation: it should be an object with turns, as the node's "
            "history_json output and the chat command's --save write it."
        )
    if values.get("qwen_vl_chat", VERSION) != VERSION:
        raise BadOption(
            f"The history has the version {reprlib.repr(values['qwen_vl_chat'])}, which this "
            f"release does not know; it reads {VERSION}."
        )
    return values


def _turn_values(turn: Turn) -> dict[str, Any]:
    values: dict[str, Any] = {"text": turn.text}
    if turn.attachments:
        values["media"] = [_media_values(shown) for shown in turn.attachments]
    values["answer"] = turn.answer
    lists = {"ids": list(turn.ids), "thought_ids": list(turn.thought_ids)}
    kept = {"thinking": turn.thinking, **lists}
    return {**values, **{name: value for name, value in kept.items() if value}}


def _media_values(shown: Attachment) -> dict[str, Any]:
    values: dict[str, Any] = {"type": type(shown.part).__name__.lower()}
    if shown.reference:
        folder = {"folder": shown.reference.folder} if shown.reference.folder else {}
        values |= {**folder, "path": shown.reference.path}
        if isinstance(shown.part, Video):
            read = {"fps": shown.reference.fps, "sound": shown.reference.sound}
            values |= {name: value for name, value in read.items() if value != _READ[name]}
    values["digest"] = shown.digest
    if isinstance(shown.part, Image):
        height, width = shown.part.pixels.shape[-2:]
        values |= {"width": width, "height": height}
    return values


def _turn(values: Any, number: int, open_media: Open) -> Turn:
    where = f"turn {number} of the history"
    if not isinstance(values, Mapping) or not values.keys() & {"text", "answer"}:
        raise BadOption(f"Turn {number} of the history is no object with text and answer.")
    media = values.get("media") or []
    if not isinstance(media, list):
        raise BadOption(f"The media of {where} are no list.")
    return Turn(
        _text(values, "text", where),
        tuple(_attachment(shown, where, open_media) for shown in media),
        _text(values, "answer", where),
        _ids(values, "ids", where),
        _text(values, "thinking", where),
        _ids(values, "thought_ids", where),
    )


def _attachment(values: Any, where: str, open_media: Open) -> Attachment:
    kind = values.get("type") if isinstance(values, Mapping) else values
    if not isinstance(kind, str) or kind not in _NAMES:
        raise BadOption(
            f"The media of {where} hold {reprlib.repr(kind)}; the type of each is one of "
            f"{', '.join(_NAMES)}."
        )
    path, name = _string(values, "path", where), _NAMES[kind]
    if not path:
        raise BadOption(
            f"A {name} of {where} was not kept. Turn save_pictures on where the history is made, "
            "which keeps pictures; or go on by the history output itself, which holds all."
        )
    if len(path) > MAX_PATH:
        raise BadOption(f"The path of a {name} of {where} is longer than {MAX_PATH} characters.")
    reference = Reference(path, _text(values, "folder", where), *_reading(values, where))
    part = open_media(kind, reference)
    wanted = _text(values, "digest", where)
    if wanted and wanted != digest(part):
        raise BadOption(
            f"The {name} {path[:200]!r} of {where} is another one now. Put the old file back, "
            "or take its digest out of the history to go on with the new one."
        )
    return Attachment(part, reference)


def _reading(values: Mapping[str, Any], where: str) -> tuple[float, bool]:
    """How a video is read: its frames a second, and whether with its sound."""
    fps, sound = (values.get(name, value) for name, value in _READ.items())
    if type(fps) not in (int, float) or type(sound) is not bool:
        raise BadOption(
            f"A medium of {where} has fps {reprlib.repr(fps)} and sound {reprlib.repr(sound)}; use "
            "a number, and true or false."
        )
    return fps, sound


def _text(values: Mapping[str, Any], name: str, where: str) -> str:
    return well_formed(_string(values, name, where))


def _string(values: Mapping[str, Any], name: str, where: str) -> str:
    """As it is: half characters stand for bytes of file names that are not UTF-8."""
    value = values.get(name) or ""
    if not isinstance(value, str):
        raise BadOption(f"The {name} of {where} is {type(value).__name__}, not text.")
    return value


def _ids(values: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    found: Sequence[Any] = values.get(name) or ()
    if not isinstance(found, list | tuple) or any(type(number) is not int for number in found):
        raise BadOption(f"The {name} of {where} are no list of whole numbers.")
    return tuple(found)
