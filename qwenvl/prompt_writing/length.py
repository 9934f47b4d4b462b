"""Prompt lengths in tokens of a text encoder: counted by its tokenizer where that is on this
machine, else estimated, and said to be."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import QwenVLError
from ..prompting.tokenizer import load_tokenizer

ENCODERS: Mapping[str, str] = {
    "clip": "CLIP",
    "t5": "T5",
    "umt5": "UMT5",
    "gemma": "Gemma",
    "mistral": "Mistral",
    "qwen_text": "Qwen",
}
"""Kinds of tokenizers that text encoders have, with the names that people know them by."""

_WORD = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_WITHOUT_BLANKS = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Count:
    """How many tokens a text is. ``is_exact``: counted, not estimated."""

    tokens: int
    encoder: str
    is_exact: bool

    def __str__(self) -> str:
        about = "" if self.is_exact else "about "
        how = "" if self.is_exact else " (estimated)"
        return f"{about}{self.tokens} {ENCODERS[self.encoder]} tokens{how}"


def count(text: str, encoder: str, folders: Mapping[str, Path]) -> Count:
    """The length of ``text`` for an encoder, one of ``ENCODERS``, without the tokens that it puts
    around each text. ``folders``: those of tokenizers, by kind."""
    folder = folders.get(encoder)
    tokenizer = _tokenizer(folder) if folder and folder.is_dir() else None
    if tokenizer is None:
        return Count(estimate(text), encoder, False)
    return Count(len(tokenizer.encode(text, add_special_tokens=False)), encoder, True)


@functools.lru_cache(maxsize=4)
def _tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    try:
        return load_tokenizer(folder)
    except QwenVLError:  # another ComfyUI keeps other files there: then it is estimated
        return None


def estimate(text: str) -> int:
    """Tokens of ``text``, roughly, for any of the encoders: a letter of a script without blanks is
    one, as are figures and punctuation; a word is one for each six letters."""
    dense = len(_WITHOUT_BLANKS.findall(text))
    words = _WORD.findall(_WITHOUT_BLANKS.sub(" ", text))
    return dense + sum(math.ceil(len(word) / 6) for word in words)
