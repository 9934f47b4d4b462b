"""The listen command: transcripts, descriptions and answers of sounds, spoken where asked for."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadImage, BadOption
from ..types import Result, Task
from ..unicode import well_formed
from .answering import query_fields
from .model_options import spec_of
from .output import print_error, print_json, print_message, print_notes, print_result
from .portions import media_portions
from .results import OrderedResults

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..query import Query


def listen(options: argparse.Namespace) -> int:
    """A line a sound, in order, each as soon as it is answered. Returns the exit status."""
    from ..model_cache import CACHE

    task = _task(options)
    sounds: list[str | None] = [*options.sounds] or [None]
    results = _Spoken(
        len(sounds), lambda number, result: _show(number, sounds, result, options), options.speak
    )
    with results.told(), CACHE.lease(spec_of(options)) as backend:
        fields = query_fields(options, backend, task)
        fields["voice"] = options.voice or "" if options.speak else None
        queries = (
            {number: _query(sounds[number], task, backend, options, fields) for number in numbers}
            for numbers in media_portions(len(sounds))
        )
        results.ask(backend, queries)
    return results.exit_status()


def _task(options: argparse.Namespace) -> Task:
    """Raises ``BadOption`` for options that do not go together."""
    from ..tasks import listen as listening

    if options.voice and not options.speak:
        raise BadOption("--voice has a use only with --speak.")
    if options.speak:
        _check_place(Path(options.speak))
    if not options.sounds and not options.ask:
        raise BadOption("There is nothing to answer: name a file, or ask with --ask.")
    if options.describe:
        return listening.listen("describe", "", options.language)
    if options.ask is not None:
        return listening.listen("ask", options.ask, options.language)
    return listening.listen("transcribe", "", options.language)


def _query(
    path: str | None,
    task: Task,
    backend: Backend,
    options: argparse.Namespace,
    fields: dict[str, Any],
) -> Query:
    from ..listening import expected_tokens, transcription
    from ..media import audio
    from ..query import Query

    if path is None:
        return Query(task, None, **fields)
    try:
        sound = audio.read(path, options.start, options.end)
        tokens = expected_tokens(backend, sound)
        print_message(f"{well_formed(path)}: {audio.seconds(sound):.1f} s, {tokens:,} tokens")
    except BadImage as error:
        return Query(task, error, **fields)
    in_parts = task.name == "transcribe" and not options.speak
    return Query(task, sound, method=transcription if in_parts else None, **fields)


class _Spoken(OrderedResults):
    """Results whose speech is written to ``wanted``, where that is a file, as they come."""

    def __init__(self, count: int, show: Callable[[int, Result], None], wanted: str | None):
        super().__init__(count, show)
        self._wanted = wanted

    def put(self, number: int, result: Result) -> None:
        super().put(number, _written(result, _place(number, self.count, self._wanted)))


def _show(
    number: int, sounds: list[str | None], result: Result, options: argparse.Namespace
) -> None:
    path = None if (given := sounds[number]) is None else well_formed(given)
    print_notes(result.notes, path or "the answer")
    if result.error:
        print_error(result.error, path or "the answer")
    if options.json:
        row: dict[str, Any] = {
            "sound": path,
            "text": result.text,
            "thinking": result.thinking,
            "finish_reason": result.finish_reason,
            "notes": list(result.notes),
        }
        if options.speak:
            place = _place(number, len(sounds), options.speak)
            row["speech"] = well_formed(str(place)) if result.speech else None
        if result.error:
            row["error"] = result.error
        print_json(row)
    elif result.text or not result.error:
        print_result(f"{path}:\n{result.text}\n" if len(sounds) > 1 else result.text)


def _check_place(path: Path) -> None:
    """Raises ``BadOption`` where no WAV file can be written to ``path``."""
    if path.suffix.lower() != ".wav":
        raise BadOption(f"Speech is written as a WAV file: name it .wav, not {path.name!r}.")
    folder = path.parent
    if not folder.is_dir():
        raise BadOption(f"The speech cannot be written: there is no folder {str(folder)!r}.")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise BadOption(f"The speech cannot be written to {str(path)!r}: that is not allowed.")


def _place(number: int, count: int, wanted: str | None) -> Path | None:
    """The file for a sound's speech where that was asked for, of several a numbered one."""
    if wanted is None:
        return None
    path = Path(wanted)
    return path.with_name(f"{path.stem}-{number + 1}{path.suffix}") if count > 1 else path


def _written(result: Result, path: Path | None) -> Result:
    """``result`` with its speech in the file ``path``, or with the error of writing it."""
    from ..media.audio import write_wav

    if result.speech is None or path is None:
        return result
    try:
        write_wav(result.speech, path)
    except OSError as error:
        problem = f"The speech cannot be written to {str(path)!r}: {error}"
        return dataclasses.replace(result, speech=None, finish_reason="error", error=problem)
    return result
