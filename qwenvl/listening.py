"""Long sounds: transcribed part by part, cut where it is quiet, in one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .backends.base import Backend
from .query import Query, Steps
from .types import Audio, Result

MOST_SECONDS = 1200
"""Of a sound that is transcribed in one request by models that hear sounds of any length."""

_SEARCHED = 10.0  # seconds before the end of a part in which it may be cut
_WINDOW = 0.2  # seconds over which it must be quiet


def transcription(backend: Backend, query: Query) -> Steps:
    """As a ``Method``: a transcript of a sound of any length. Those longer than the model hears at
    once are asked about in parts, one after another in time, and their texts joined."""
    from .media import audio

    sound, hearing = query.picture, backend.family.hearing
    query = dataclasses.replace(query, method=None)
    most = (hearing.max_seconds if hearing else 0) or MOST_SECONDS
    if not isinstance(sound, Audio) or audio.seconds(sound) <= most:
        (result,) = yield [query]
        return result
    parts = quiet_parts(sound, most)
    results = yield [dataclasses.replace(query, picture=part) for part in parts]
    return _joined(results)


def quiet_parts(sound: Audio, most: float) -> list[Audio]:
    """``sound`` in consecutive parts of at most ``most`` seconds, each cut in the middle of the
    quietest fifth of a second of its last ten."""
    from .media import audio

    parts: list[Audio] = []
    start, end = 0.0, audio.seconds(sound)
    while end - start > most:
        cut = _quietest(sound, start + max(most - _SEARCHED, most / 2), start + most)
        parts.append(audio.part(sound, start, cut))
        start = cut
    return [*parts, audio.part(sound, start)]


def _quietest(sound: Audio, start: float, end: float) -> float:
    """The middle of the quietest ``_WINDOW`` between two times, in seconds."""
    from .media import audio

    window = max(1, round(_WINDOW * sound.rate))
    heard = audio.part(sound, start, end).samples.square().mean(0)
    whole = len(heard) // window
    loudness = heard[: whole * window].view(whole, window).mean(1)
    return start + (int(loudness.argmin()) + 0.5) * window / sound.rate


def _joined(results: Sequence[Result]) -> Result:
    """One result of those of consecutive parts. Where some have none, the error is that of the
    first of these, and the text that of the others."""
    failed = [(number, result) for number, result in enumerate(results, 1) if result.error]
    error = f"Part {failed[0][0]} of {len(results)}: {failed[0][1].error}" if failed else ""
    reasons = [result.finish_reason for _, result in failed]
    reasons += [result.finish_reason for result in results]
    return dataclasses.replace(
        results[0],
        text="\n".join(filter(None, (result.text for result in results))),
        reply="\n".join(result.reply for result in results),
        thinking="\n\n".join(filter(None, (result.thinking for result in results))),
        finish_reason=next((reason for reason in reasons if reason != "stop"), "stop"),
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        tokens=(),
        error=error,
    )


def expected_tokens(backend: Backend, sound: Audio) -> int:
    """Tokens of ``sound``, in the parts that are heard at once, by the rules of the model's family;
    0 where it hears none."""
    from .media.audio_processor import AudioProcessor

    hearing = backend.family.hearing
    if hearing is None:
        return 0
    processor = AudioProcessor.from_config(hearing, {}, {})
    parts = quiet_parts(sound, hearing.max_seconds or MOST_SECONDS)
    return sum(processor.tokens(part) for part in parts)
