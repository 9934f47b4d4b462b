"""Files of the Chat node: where pictures, videos and sounds of a history lie, read and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ..qwenvl.chat import Attachment, Kind, Media, Reference, Reply, references
from ..qwenvl.errors import BadOption, QwenVLError
from ..qwenvl.media import audio, images
from ..qwenvl.media.video_files import Clip
from ..qwenvl.types import Image
from ..qwenvl.watching import FileFootage
from ..qwenvl.watching.viewing import read_whole
from . import host


def opened(kind: Kind, reference: Reference) -> Media:
    """What lies in one of ComfyUI's folders. Raises ``BadOption`` for a place elsewhere, and
    ``BadImage`` for what cannot be read."""
    path = host.known_file(reference.folder, reference.path)
    try:
        if kind == "image":
            return Image(images.read(path))
        if kind == "video":
            footage = FileFootage(Clip(path), host.check_interrupt)
            return read_whole(footage, host.check_interrupt, reference.fps, reference.sound)
        return audio.read(path)
    except QwenVLError as error:
        raise type(error)(_told(error, path, reference)) from error


def state(histories: Iterable[str]) -> str:
    """Another one when a file that a history names has changed."""
    found = [reference for text in histories for reference in references(text)]
    return " ".join(map(_file_state, found))


def kept(reply: Reply) -> Reply:
    """With the pictures of its conversation in files, those that are in none yet. A picture that
    cannot be written stays without one, and a note says why: the answer is there."""
    problems: dict[str, None] = {}

    def saved(shown: Attachment) -> Attachment:
        if shown.reference or not isinstance(shown.part, Image):
            return shown
        place = Reference(f"qwen_vl_chat/{shown.digest}.png", "output")
        try:
            _write(shown.part, place)
        except QwenVLError as error:
            problems[f"A picture of the conversation was not kept: {error}"] = None
            return shown
        return Attachment(shown.part, place)

    turns = tuple(
        dataclasses.replace(turn, attachments=tuple(map(saved, turn.attachments)))
        for turn in reply.conversation.turns
    )
    conversation = dataclasses.replace(reply.conversation, turns=turns)
    return dataclasses.replace(reply, conversation=conversation, notes=(*reply.notes, *problems))


def _write(picture: Image, place: Reference) -> None:
    path = host.known_file(place.folder, place.path)
    try:
        if not path.exists():
            images.write_png(picture.pixels, path)
    except OSError as error:  # the folder may not even be looked into
        raise QwenVLError(f"{place.path} cannot be written to: {error.strerror}.") from error
    except QwenVLError as error:
        raise type(error)(_told(error, path, place)) from error


def _told(error: QwenVLError, path: Path, place: Reference) -> str:
    """The message with the file's place in ComfyUI's folders: where those lie is the server's."""
    return str(error).replace(str(path), f"{place.folder}/{place.path}")


def _file_state(reference: Reference) -> str:
    try:
        file = host.known_file(reference.folder, reference.path).stat()
    except (OSError, BadOption):  # what runs says what is wrong
        return ""
    return f"{file.st_mtime_ns} {file.st_size}"
