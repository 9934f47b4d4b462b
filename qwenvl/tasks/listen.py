"""Listening: what is said in a sound, what is heard in it, or an answer to it."""

from __future__ import annotations

from ..errors import BadOption
from ..types import ReplyContext, Result, Task

WANTED = ("transcribe", "describe", "ask")
"""transcribe: the words that are spoken; describe: all that is heard; ask: an answer to a prompt of
one's own, or to what is said in the sound itself."""

_DESCRIBE = "Describe in detail all that can be heard: voices and what they say, music and noises."
_MAX_TRANSCRIPT = 8192  # of five minutes of quick speech and more


def listen(wanted: str = "transcribe", prompt: str = "", language: str = "") -> Task:
    """``wanted``: one of ``WANTED``. ``prompt``: own words in place of the usual ones.
    ``language``: of the speech that is transcribed, in words; empty: any. Raises ``BadOption``."""
    prompt, language = prompt.strip(), language.strip()
    if wanted not in WANTED:
        raise BadOption(f"What to listen for is {wanted!r}; use one of {', '.join(WANTED)}.")
    if language and wanted != "transcribe":
        raise BadOption("A language is of what is transcribed; say it in the prompt here.")
    # The words of the model cards.
    usual = {
        "transcribe": f"Transcribe the {language} audio into text.".replace("  ", " "),
        "describe": _DESCRIBE,
        "ask": "",
    }[wanted]
    if prompt and language:
        prompt = f"{prompt}\nThe speech is in {language}."
    is_transcript = wanted == "transcribe"
    return Task(
        wanted,
        prompt or usual,
        _read,
        greedy=is_transcript,
        max_new_tokens=_MAX_TRANSCRIPT if is_transcript else 1024,
    )


def _read(text: str, _context: ReplyContext) -> Result:
    return Result(text)
