"""Abilities of servers in words: what each kind of server does to pictures, what it can hold
answers to, and what will not work there."""

from __future__ import annotations

from .kinds import ServerKind
from .sampling import unknown_options

FORMS = {
    "json_schema": "JSON",
    "choice": "choices",
    "regex": "regular expressions",
    "lark": "grammars",
}
"""What an answer can be held to, by the kind of ``Constraint`` (and ``choice``)."""


def pictures(kind: ServerKind) -> str:
    """In which sizes a model there sees pictures."""
    limits = kind.pictures
    said = []
    if limits.least_tokens or limits.most_tokens:
        said.append(f"{limits.least_tokens}–{limits.most_tokens} tokens")
    if limits.most_pixels:
        said.append(f"at most {limits.most_pixels:,} pixels")
    if limits.longest_side:
        said.append(f"sides of at most {limits.longest_side}")
    return ", ".join(said) or "as the checkpoint says"


def held_to(kind: ServerKind) -> tuple[str, ...]:
    """What answers can be held to there."""
    return tuple(FORMS[form] for form in kind.forms)


def shortcomings(kind: ServerKind) -> tuple[str, ...]:
    """What will not work with a server of ``kind``, a sentence each."""
    said = []
    if loose := [name for form, name in FORMS.items() if form not in kind.forms]:
        said.append(
            f"Answers are not held to {_listed(loose)}: the model is only asked for the form, and "
            "what it writes is checked."
        )
    if kind.logprobs == "none":
        said.append("It tells no log-probabilities: scores of boxes and lines, and the command "
                    "score, are refused.")  # fmt: skip
    if kind.thinking == "none":
        said.append("A request cannot turn thinking on or off: the server's settings hold.")
    if unknown := unknown_options(kind):
        said.append(f"{_listed(unknown)}: no request can set it, the server's settings hold.")
    if kind.video_switch:
        said.append(
            f"Only where it was started with {kind.video_switch}, it takes videos as such; else "
            "they are sent as single pictures with their times in words."
        )
    elif kind.video == "pictures":
        said.append("Videos are sent as single pictures with their times in words.")
    if kind.audio == "none":
        said.append("It takes no sounds.")
    return tuple(said)


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
