"""The chat command: a conversation turn by turn, from options or from lines on stdin."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import (
    BadImage,
    BadOption,
    NumericalError,
    OutOfMemory,
    QwenVLError,
    Unavailable,
    UnsuitableModel,
)
from ..observer import Observer
from ..replies import split_thinking
from ..types import Image, Response
from ..unicode import well_formed
from .answering import SAMPLING_OPTIONS
from .model_options import spec_of
from .output import print_json, print_message, print_notes, print_piece
from .results import NOTHING_DONE, SOME_FAILED

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..chat import Ask, Attachment, Conversation, Kind, Media, Reference, Reply

SHOW = {"/image": "image", "/video": "video", "/sound": "sound"}
QUIT = "/quit"
"""What a line on stdin can begin with, or be, besides a message."""

Shown = tuple[str, str]
"""What is shown: its kind, and the file."""

_OF_A_TURN = (BadImage, BadOption, NumericalError, OutOfMemory, Unavailable, UnsuitableModel)
"""What the next turn may do better."""


class Say(argparse.Action):
    """Keeps ``--turn`` and what is shown before it in the order in which they were given."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        said = [*(getattr(namespace, "said", None) or ()), (self.dest, values)]
        namespace.said = said


def chat(options: argparse.Namespace) -> int:
    """A turn after the other. One that fails ends a conversation of ``--turn`` options; at a
    keyboard the next line is another try. Returns the exit status."""
    from ..chat import Conversation
    from ..model_cache import CACHE

    given = _given(getattr(options, "said", None) or ())
    conversation = _read(options.history) if options.history else Conversation()
    if options.system:
        conversation = Conversation(options.system, conversation.turns)
    if options.save:
        _check_place(Path(options.save))
    answered = failed = 0
    with CACHE.lease(spec_of(options)) as backend:
        for words, paths in given or _typed():
            try:
                reply = _ask(options, backend, conversation, words, paths)
            except _OF_A_TURN as error:
                _show_failure(options, conversation, paths, error)
                failed += 1
                if given:
                    break
                continue
            conversation, answered = reply.conversation, answered + 1
            if options.save:
                _save(conversation, Path(options.save))
    if given and answered < len(given):
        print_message(f"stopped after {answered} of {len(given)} turns")
    if not failed:
        return 0
    return SOME_FAILED if answered else NOTHING_DONE


def _given(said: Sequence[Shown]) -> list[tuple[str, list[Shown]]]:
    """The turns of the options: each with what was to be shown before it."""
    turns: list[tuple[str, list[Shown]]] = []
    shown: list[Shown] = []
    for kind, value in said:
        if kind == "turn":
            turns.append((value, shown))
            shown = []
        else:
            shown.append((kind, value))
    if shown:
        kind, path = shown[-1]
        raise BadOption(
            f"No --turn follows --{kind} {path}: what is shown goes with the turn behind it."
        )
    return turns


def _typed() -> Iterator[tuple[str, list[Shown]]]:
    """The turns that lines on stdin make: what is shown goes with the message behind it."""
    if sys.stdin is None:
        raise BadOption("stdin is closed; messages are read from there unless --turn gives them.")
    at_keyboard = sys.stdin.isatty()
    if at_keyboard:
        how = ", ".join(f"{word} FILE" for word in SHOW)
        print_message(f"{how}: shown with the next message. {QUIT} ends.")
    shown: list[Shown] = []
    while True:
        if at_keyboard:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        word, _, rest = line.strip().partition(" ")
        if not line or word == QUIT:
            return
        if word in SHOW:
            shown.append((SHOW[word], rest.strip()))
        elif line.strip():
            yield line.strip(), shown
            shown = []


def _ask(
    options: argparse.Namespace,
    backend: Backend,
    conversation: Conversation,
    words: str,
    paths: Sequence[Shown],
) -> Reply:
    from ..chat import Ask, ask_all, will_think

    given = {name: getattr(options, name) for name in SAMPLING_OPTIONS}
    ask = Ask(
        conversation,
        words,
        tuple(_shown(shown, options.fps, bool(options.video_sound)) for shown in paths),
        {name: value for name, value in given.items() if value is not None},
        min_pixels=options.min_pixels or None,
        max_pixels=options.max_pixels or None,
        thinking=options.thinking,
        preserve_thinking=options.preserve_thinking,
        reasoning_effort=options.reasoning_effort,
    )
    observer = Observer() if options.json else _Printer(will_think(backend, ask))
    (reply,) = ask_all(backend, [ask], observer)
    if error := reply.response.error:
        raise error
    print_notes(reply.notes)
    if options.json:
        _print_row(ask, paths, reply)
    return reply


def _print_row(ask: Ask, paths: Sequence[Shown], reply: Reply) -> None:
    response, usage = reply.response, reply.response.usage
    print_json(
        {
            "turn": len(ask.conversation.turns) + 1,
            **_files(paths),
            "text": response.text,
            "thinking": response.thinking,
            "finish_reason": response.finish_reason,
            "notes": list(reply.notes),
            "read_tokens": usage.prompt_tokens - usage.reused_tokens,
            "reused_tokens": usage.reused_tokens,
            "new_tokens": usage.new_tokens,
            "first_token_seconds": reply.first_token_seconds,
        }
    )


def _show_failure(
    options: argparse.Namespace,
    conversation: Conversation,
    paths: Sequence[Shown],
    error: QwenVLError,
) -> None:
    print_message(f"error: {error}")
    if options.json:
        row = {"turn": len(conversation.turns) + 1, **_files(paths)}
        print_json({**row, "text": "", "error": str(error)})


def _files(shown: Sequence[Shown]) -> dict[str, list[str]]:
    """The files of a turn, by kind; ``images`` always."""
    found: dict[str, list[str]] = {"images": []}
    for kind, path in shown:
        found.setdefault(f"{kind}s", []).append(well_formed(path))
    return found


class _Printer(Observer):
    """Prints an answer while it is written, without the thought before it."""

    def __init__(self, thinks: bool):
        self._thinks = thinks
        self._text = self._printed = ""

    def token(self, index: int, text: str) -> None:
        self._text += text
        self._print(split_thinking(self._text, self._thinks)[1].lstrip())

    def restart(self, index: int) -> None:
        if self._printed:
            print_piece("\n")
        self._text = self._printed = ""

    def done(self, index: int, response: Response) -> None:
        if not response.error:
            self._print(response.text)
            print_piece("\n")

    def _print(self, answer: str) -> None:
        if answer.startswith(self._printed):
            print_piece(answer[len(self._printed) :])
        elif self._printed.rstrip() != answer:  # what seemed to be the answer was not
            print_piece(f"\n{answer}")
        self._printed = answer


def _shown(shown: Shown, fps: float, sound: bool) -> Attachment:
    """``fps`` and ``sound``: how a video is read."""
    from ..chat import Attachment, Reference

    kind, path = shown
    place = Reference(str(Path(path).absolute()), "", fps, sound)
    return Attachment(_opened(kind, Path(path), place), place)


def _opened(kind: str, path: Path, place: Reference) -> Media:
    """What lies at ``path``, a video read as ``place`` says."""
    if kind == "image":
        from ..media import images

        return Image(images.read(path))
    if kind == "video":
        from ..media.video_files import Clip
        from ..watching import FileFootage
        from ..watching.viewing import read_whole

        return read_whole(FileFootage(Clip(path)), fps=place.fps, sound=place.sound)
    from ..media import audio

    return audio.read(path)


def _read(file: str) -> Conversation:
    """The conversation in a file; paths in it are taken from the folder that it lies in, and are
    whole ones from then on: the conversation may be saved into another."""
    from ..chat import loads

    folder = Path(file).absolute().parent

    def opened(kind: Kind, reference: Reference) -> Media:
        if reference.folder:
            raise BadOption(
                f"The file {reference.path[:200]!r} lies in ComfyUI's folder "
                f"{reference.folder[:200]!r}, "
                "which is not known here. Put its own path into the history, without a folder."
            )
        if not _is_path(reference.path):
            raise BadOption(f"{reference.path[:200]!r} in the history is no path of a file.")
        return _opened(kind, folder / reference.path, reference)

    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise BadOption(f"{file} cannot be read: {error}") from error
    conversation = loads(text, opened)
    turns = tuple(
        dataclasses.replace(turn, attachments=tuple(_placed(a, folder) for a in turn.attachments))
        for turn in conversation.turns
    )
    return dataclasses.replace(conversation, turns=turns)


def _placed(shown: Attachment, folder: Path) -> Attachment:
    from ..chat import Attachment

    if not shown.reference:
        return Attachment(shown.part)
    path = str(folder / shown.reference.path)
    return Attachment(shown.part, dataclasses.replace(shown.reference, path=path))


def _is_path(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _check_place(file: Path) -> None:
    """Raises ``BadOption`` where no file can be written to, before anything is asked."""
    if not file.absolute().parent.is_dir():
        raise BadOption(f"{file} cannot be written to: there is no folder {file.parent}.")
    if file.is_dir():
        raise BadOption(f"{file} cannot be written to: it is a folder. Name a file.")


def _save(conversation: Conversation, file: Path) -> None:
    """Writes a history, as a whole or not at all."""
    from ..chat import dumps

    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        partial.write_text(dumps(conversation), encoding="utf-8")
        os.replace(partial, file)
    except (OSError, ValueError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise BadOption(f"{file} cannot be written to: {reason}.") from error
