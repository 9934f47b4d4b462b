"""Text questions: what models that read text only are asked, with answers that can be checked.

Codes to be repeated (a wrong tokenizer or a cut vocabulary garbles them), values to be found in a
longer text, and sums.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from ..replies import extract_answer
from ..types import ReplyContext, Result, Task
from .questions import Score

TextKind = Literal["repeat", "look up", "add"]
TEXT_KINDS: tuple[TextKind, ...] = ("repeat", "look up", "add")

_THINGS = ("keys", "coins", "letters", "pens", "stamps", "buttons", "cards", "shells")
_COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "grey")
_SIGNS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that looks like another
_CODE_LENGTH = 6
_MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class TextQuestion:
    """One question. ``expected``: the answer, a word or a number."""

    kind: TextKind
    task: Task
    expected: str


def text_questions(number: int) -> list[TextQuestion]:
    """The questions of this number, one of each kind, always the same."""
    rng = random.Random(f"doctor text {number}")
    code = "".join(rng.choices(_SIGNS, k=_CODE_LENGTH))
    boxes = list(zip(rng.sample(_COLOURS, 6), rng.choices(_THINGS, k=6), strict=True))
    counts = rng.sample(range(2, 100), 6)
    told = " ".join(
        f"The {colour} box holds {count} {things}."
        for (colour, things), count in zip(boxes, counts, strict=True)
    )
    at = rng.randrange(1, len(boxes) - 1)  # a reply that repeats the text is no answer
    colour, things = boxes[at]
    one, other = rng.randrange(10, 90), rng.randrange(10, 90)
    asked: dict[TextKind, tuple[str, object]] = {
        "repeat": (f"Repeat this code: {code}. Write the code alone.", code),
        "look up": (
            f"{told} How many {things} does the {colour} box hold? Write the number alone.",
            counts[at],
        ),
        "add": (f"What is {one} + {other}? Write the number alone.", one + other),
    }
    return [
        TextQuestion(kind, _task(prompt), str(answer)) for kind, (prompt, answer) in asked.items()
    ]


def _task(prompt: str) -> Task:
    return Task("ask", prompt, _read, greedy=True, max_new_tokens=_MAX_NEW_TOKENS)


def _read(text: str, _context: ReplyContext) -> Result:
    return Result(extract_answer(text))


def score(question: TextQuestion, result: Result) -> Score:
    """Whether the answer is the first word of its form in the reply, or the last: "42", "The sum is
    42.", "17 + 25 = 42"."""
    form = rf"\b[A-Z0-9]{{{_CODE_LENGTH}}}\b" if question.kind == "repeat" else r"\b\d+\b"
    found = re.findall(form, "" if result.error else result.text)
    return Score(bool(found) and question.expected in (found[0], found[-1]), 1)
