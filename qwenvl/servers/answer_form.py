"""Answer forms: a ``Constraint`` as fields of a request, by kind of server.

What a server is asked to hold an answer to is not proof that it did: some ignore fields that they
do not know. So answers of servers never count as held, and are read and checked as free ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..types import Constraint
from . import gbnf
from .kinds import ServerKind

_CHOICES = re.compile(r'start: ("(?:[^"\\]|\\.)*"(?: \| "(?:[^"\\]|\\.)*")*)')
_CHOICE = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class AnswerForm:
    """``fields`` of a request that ask a server to hold the answer to a constraint; none where the
    answer is free. ``notes``: what the user should know where it is, though it was to be held."""

    fields: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def answer_form(constraint: Constraint | None, kind: ServerKind) -> AnswerForm:
    """How a server of ``kind`` is asked for an answer of the form of ``constraint``.

    One that holds from an opening on only, as lists of boxes do, stays free: no server can be asked
    to wait for it. So does what the server has no field for; a choice and a JSON schema are checked
    when they are read, of others a note tells that they were not held."""
    if constraint is None or constraint.opening:
        return AnswerForm()
    if constraint.kind == "json_schema":
        return AnswerForm(_json_fields(constraint, kind))
    choices = choices_of(constraint)
    if choices:
        return AnswerForm(_choice_fields(choices, kind))
    try:
        fields = _grammar_fields(constraint, kind)
    except gbnf.NotInGbnf as error:
        return AnswerForm({}, (f"{_free(kind)}: its grammar cannot say {error}.",))
    return AnswerForm(fields) if fields else AnswerForm({}, (f"{_free(kind)}.",))


def choices_of(constraint: Constraint) -> tuple[str, ...]:
    """The choices of a constraint that ``constraints.from_choices`` made; none of another one."""
    found = _CHOICES.fullmatch(constraint.source) if constraint.kind == "lark" else None
    return tuple(json.loads(one) for one in _CHOICE.findall(found[1])) if found else ()


def ignored_note(
    form: AnswerForm, constraint: Constraint | None, text: str, kind: ServerKind
) -> str:
    """What to say of a whole answer that a server of ``kind`` was asked to hold to a form and
    plainly is not of it; empty for one that may be. The task's own reader decides what it is."""
    if not form.fields or constraint is None:
        return ""
    answer = text.strip()
    if constraint.kind == "json_schema":
        is_of_it = _is_json(answer)
    elif choices := choices_of(constraint):
        is_of_it = answer in (choice.strip() for choice in choices)
    else:
        is_of_it = constraint.kind != "regex" or _matches(constraint.source, answer)
    if is_of_it:
        return ""
    return f"{kind.title} was asked to hold the answer to a form, and did not."


def _json_fields(constraint: Constraint, kind: ServerKind) -> dict[str, Any]:
    if kind.forms.get("json_schema") != "response_format":
        return {}
    schema = json.loads(constraint.source)
    described = {"name": "answer", "strict": True, "schema": {} if schema is True else schema}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _choice_fields(choices: Sequence[str], kind: ServerKind) -> dict[str, Any]:
    way = kind.forms.get("choice")
    if way == "structured_outputs":
        return {way: {"choice": list(choices)}}
    if way in ("grammar", "ebnf"):
        return {way: gbnf.from_choices(choices)}
    return {}


def _grammar_fields(constraint: Constraint, kind: ServerKind) -> dict[str, Any]:
    """Raises ``NotInGbnf`` for what a grammar of the server's form cannot say."""
    way = kind.forms.get(constraint.kind)
    if way is None:
        return {}
    if constraint.kind == "regex" and way != "grammar":
        return (
            {way: {"regex": constraint.source}}
            if way == "structured_outputs"
            else {way: constraint.source}
        )
    lark = constraint.kind == "lark"
    made = (gbnf.from_lark if lark else gbnf.from_regex)(constraint.source)
    return {way: {"grammar": made} if way == "structured_outputs" else made}


def _free(kind: ServerKind) -> str:
    return f"{kind.title} could not be asked to hold the answer to its form"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:  # of another dialect than Python's
        return True
