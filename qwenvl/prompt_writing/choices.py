"""Dynamic prompts: ``{a|b}`` choices, as in ComfyUI's own text boxes, but drawn by a seed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

from ..errors import BadOption

_MAX_DEPTH = 50
_LINE_COMMENT = re.compile(r"(?<!:)//[^\n]*")
# A /* that nothing ends is none; it is matched up to the end, so that the next one need not look.
_COMMENT = re.compile(r"/\*.*?(?:\*/|(?P<open>\Z))|(?<!:)//[^\n]*", re.DOTALL)
_ESCAPED = re.compile(r"\\([{}|])")


def choose(text: str, seed: int) -> str:
    """``text`` with one of each ``{a|b|c}`` in place of it; choices may hold others. ``\\{``,
    ``\\|`` and ``\\}`` are these characters themselves; ``/* … */`` and ``// …`` are comments, but
    for the ``//`` of an address. Equal text and seed give equal choices. The rules are those of
    ``processDynamicPrompt`` in ComfyUI's front end, where chance decides instead. A JSON object or
    array stays as it is: its braces are its own.

    Raises ``BadOption`` for choices within choices, ``_MAX_DEPTH`` deep."""
    if _is_json(text):
        return text
    return _ESCAPED.sub(r"\1", _chosen(_without_comments(text), random.Random(seed)))


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


def _without_comments(text: str) -> str:
    def kept(found: re.Match[str]) -> str:
        return "" if found["open"] is None else _LINE_COMMENT.sub("", found[0])

    return _COMMENT.sub(kept, text)


def _chosen(text: str, chance: random.Random, depth: int = 0) -> str:
    if depth > _MAX_DEPTH:
        raise BadOption(
            f"The idea has choices in braces within others, more than {_MAX_DEPTH} deep. Write "
            "\\{ for a brace that is none."
        )
    characters, found = _characters(text), []
    for character in characters:
        if character == "{":
            found.append(_chosen(chance.choice(_options(characters)), chance, depth + 1))
        else:
            found.append(character)
    return "".join(found)


def _options(characters: Iterator[str]) -> list[str]:
    """The choices behind an opening brace, up to its closing one, or to the end of the text."""
    options, depth = [""], 0
    for character in characters:
        if character == "}" and not depth:
            break
        if character == "|" and not depth:
            options.append("")
            continue
        depth += (character == "{") - (character == "}")
        options[-1] += character
    return options


def _characters(text: str) -> Iterator[str]:
    """The characters of ``text``, each with the backslash before it."""
    rest = iter(text)
    for character in rest:
        yield character + next(rest, "") if character == "\\" else character
