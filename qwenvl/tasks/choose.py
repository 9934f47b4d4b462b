"""Multiple choice: from a picture and a question to one of several answers, word for word."""

from __future__ import annotations

import re
from functools import partial

from ..constraints import from_choices, split_choices
from ..errors import UnreadableReply
from ..replies import STILL_THINKING, extract_answer
from ..types import ReplyContext, Result, Task

_QUESTION = "Which of these fits this image best?"
_LETTERS = re.compile(r"\w+")


def choose(choices: str, prompt: str = "", system: str = "") -> Task:
    """The task to answer ``prompt`` (empty: which fits best) with one of ``choices``, a choice a
    line or, where there is a single line, with commas between them.

    The choices are told to the model, and its answer is held to them (see ``constraints``), so
    ``text`` is one of them. Of a backend that cannot hold answers, one that differs only in case
    and punctuation is taken for the choice, and any other is unreadable. Decoded greedily. Raises
    ``BadOption`` without choices.
    """
    named = split_choices(choices)
    constraint = from_choices(named)  # refuses none at all
    are_lines = any("," in choice for choice in named)
    listed = "\n".join(("", *named)) if are_lines else f" {', '.join(named)}."
    question = f"{prompt.strip() or _QUESTION}\nAnswer with one of:{listed}"
    parse = partial(_read, choices=tuple(named))
    return Task("choose", question, parse, system=system, greedy=True, constraint=constraint)


def _read(text: str, context: ReplyContext, choices: tuple[str, ...]) -> Result:
    answer = extract_answer(text)
    if not answer and text.lstrip().startswith("<think>"):
        raise UnreadableReply(STILL_THINKING, text)
    found = [choice for choice in choices if choice == answer]
    letters = _letters(answer)
    found = found or [choice for choice in choices if letters and _letters(choice) == letters]
    if len(found) != 1:
        raise UnreadableReply(
            f"The model answered none of the choices ({', '.join(choices)}): {answer[:200]!r}.",
            text,
        )
    return Result(text=found[0])


def _letters(text: str) -> list[str]:
    return _LETTERS.findall(text.casefold())
