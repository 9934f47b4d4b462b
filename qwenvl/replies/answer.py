"""Answer extraction: splits off the thinking, special tokens, further turns and code fences."""

from __future__ import annotations

import re

from ..unicode import well_formed
from . import loose_json

STILL_THINKING = "The model was still thinking when its answer had to end. Raise max_new_tokens."

_OPEN, _CLOSE = "<think>", "</think>"
# Special tokens that end an answer or begin another turn. A model whose generation config lacks
# one of them as a stop token runs on past it.
_SPECIAL = (
    r"<\|(?:im_end|endoftext|end_of_text|eot_id|user)\|>"
    r"|<\|im_start\|>(?=\s*(?:user|assistant|system|tool)\b|\s*\Z)"
)
_END_OF_TURN = re.compile(rf"{_SPECIAL}|</s>(?=\s|\Z)")
_END_OF_MARKUP = re.compile(_SPECIAL)
_USER_TURN = re.compile(r"\n[ \t]{0,8}(?:Human|User|user)[ \t]{0,8}[:\n]")
_TURN_HEADER = re.compile(r"(?:\s*<\|(?:im_start|endoftext|im_end)\|>)*(?:assistant\s*\n)?\s*")
_ANSWER = re.compile(r"(?<![\"'`\w])<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_QUOTES = "\"'`"


def split_thinking(text: str, inside: bool = False) -> tuple[str, str]:
    """Splits ``text`` into thinking and answer. ``inside``: the prompt already opened ``<think>``.

    Only thinking at the start counts, and only once, since an answer may speak of the tags; empty
    thinking before it is skipped. If the thinking never ends, the answer is empty.
    """
    thinking = ""
    for _ in range(2):  # an empty one that the prompt opened, then the model's own
        if thinking or not (inside or text.lstrip().startswith(_OPEN)):
            break
        thought, _, text = text.lstrip().removeprefix(_OPEN).partition(_CLOSE)
        thinking, inside = thought.strip(), False
    return thinking, text.strip()


def extract_answer(text: str, is_markup: bool = False) -> str:
    """The answer in a reply: without thinking, without ``<answer>`` tags around the whole of it,
    and without further turns that a model wrote after its end-of-turn token. ``is_markup``: a
    ``</s>`` in it closes struck text, and is no such token."""
    text = well_formed(text)
    header = _TURN_HEADER.match(text)
    text = text[header.end() if header and "<|im_start|>" in header[0] else 0 :]
    answer = split_thinking(text)[1]
    answer = answer[: _end_of_turn(answer, _END_OF_MARKUP if is_markup else _END_OF_TURN)].strip()
    inner = answer.removeprefix("<answer>").removesuffix("</answer>")
    is_wrapped = answer.startswith("<answer>") and "answer>" not in inner
    return inner.strip() if is_wrapped else answer


def _end_of_turn(answer: str, tokens: re.Pattern[str]) -> int:
    """Where the turn ends in ``answer``. A token that the text quotes, or mentions within a
    sentence, does not end it."""
    for found in tokens.finditer(answer):
        before, after = answer[found.start() - 1 : found.start()], answer[found.end() :][:2]
        is_quoted = before in _QUOTES or (after[:1] and after[:1] in _QUOTES)
        is_quoted = is_quoted and not answer.endswith("```", 0, found.start())  # a fence ends there
        is_mentioned = before == " " and re.match(r"[ ,.;:)]\S", after)
        if not before or not (is_quoted or is_mentioned):
            return found.start()
    return len(answer)


def final_answer(answer: str) -> str:
    """The part of ``answer`` that counts: the content of its last ``<answer>`` tag, or what stands
    before a user's turn and after thinking that began without a tag."""
    if tagged := _ANSWER.findall(answer):
        return str(tagged[-1]).strip()
    if turn := _USER_TURN.search(answer):
        answer = answer[: turn.start()]
    before, closed, after = answer.rpartition(_CLOSE)
    # Within JSON the tag is part of a text.
    is_thinking = closed and not loose_json.is_inside(answer, len(before))
    return after.strip() if is_thinking else answer


def strip_fence(text: str) -> str:
    """``text`` without the Markdown code fence around the whole of it, if there is one.

    Fences inside it stay; so does a text of several fences side by side.
    """
    text = text.strip()
    opening, _, body = text.partition("\n")
    if not opening.startswith("```") or "`" in opening[3:]:
        return text
    body = body.rstrip()
    inner = body.removesuffix("```")
    first = next((line.strip() for line in inner.split("\n") if line.startswith("```")), "")
    return text if first == "```" else inner.strip("\n")
