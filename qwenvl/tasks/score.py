"""Scoring: the words that ask a model how well a picture fits a text."""

from __future__ import annotations

import re
import unicodedata

from .. import makers_prompts
from ..errors import BadOption
from ..types import Image, Message, Retrieval

QUESTION = 'Does this image show "[text]"? Answer yes or no.'
PLACE = "[text]"
YES, NO = ("yes", "Yes"), ("no", "No")
"""The answers that count. A model that was asked for a word may begin it with a capital."""


def question(picture: Image, text: str, own: str = "") -> tuple[Message, ...]:
    """A yes-or-no question about ``picture``: ``own`` with ``text`` at the place of ``[text]``, or
    ``QUESTION``. The picture stands first, so that questions about it share a prefix. Raises
    ``BadOption`` for an empty text, and for words with no place for it."""
    asked = own.strip() or QUESTION
    if PLACE not in asked:
        raise BadOption(
            f"The question {asked[:80]!r} has no place for the text: write {PLACE} where it goes, "
            f"as in: {QUESTION}"
        )
    return (Message("user", (picture, asked.replace(PLACE, checked(text)))),)


def judgement(
    retrieval: Retrieval, picture: Image, text: str, instruction: str = ""
) -> tuple[Message, ...]:
    """What a reranker is asked: ``text`` is its query, ``picture`` its document."""
    said = {"instruction": _wanted(retrieval, instruction), "text": checked(text)}
    form = makers_prompts.words(retrieval.title, "user")
    asked = re.sub(r"\{(\w+)\}", lambda place: said[place[1]], form)
    judge = makers_prompts.words(retrieval.title, "system")
    return (Message("system", (judge,)), Message("user", (asked, picture)))


def embedded_text(retrieval: Retrieval, text: str, instruction: str = "") -> tuple[Message, ...]:
    """What an embedding model is given of a text that pictures are compared with."""
    wanted = _wanted(retrieval, instruction)
    if retrieval.ends_in_point and not unicodedata.category(wanted[-1]).startswith("P"):
        wanted += "."
    return (Message("system", (wanted,)), Message("user", (checked(text),)))


def embedded_picture(retrieval: Retrieval, picture: Image) -> tuple[Message, ...]:
    """What an embedding model is given of a picture."""
    told = makers_prompts.words(retrieval.title, "picture")
    return (Message("system", (told,)), Message("user", (picture,)))


def _wanted(retrieval: Retrieval, instruction: str) -> str:
    """What to look for, in the makers' words unless the user says it."""
    return instruction.strip() or makers_prompts.words(retrieval.title, "instruction")


def checked(text: str) -> str:
    """``text`` without blanks around it. Raises ``BadOption`` if that is empty."""
    if not (text := text.strip()):
        raise BadOption("The text is empty. Write what the picture is to be compared with.")
    return text
