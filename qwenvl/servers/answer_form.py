"""Answer forms: a ``Constraint`` as fields of a request, by kind of server.

That a server was asked to hold an answer to a form does not prove that it did: some ignore fields
that they do not know. Answers of servers therefore never count as held, and are read and checked
like free ones.
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
    """Request ``fields`` that ask a server to hold the answer to a constraint; empty where the
    answer is free. ``notes``: for the user, why it is free although a form was asked for."""

    fields: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def answer_form(constraint: Constraint | None, kind: ServerKind) -> AnswerForm:
    """How a server of ``kind`` is asked for an answer of the form of ``constraint``.

    A constraint that applies only from an opening on, as for lists of boxes, leaves the answer
    free: no server can be asked to wait for the opening. So does one that the server has no field
    for; choices and JSON schemas are checked when the answer is read, and for others a note says
    that they were not enforced."""
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
    """A note where a server of ``kind`` was asked to hold the answer to a form and its complete
    ``text`` plainly is not of that form; empty where it may be. Whether the answer can be used, the
    task's own reader decides."""
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
    """Raises ``NotInGbnf`` for what the server's form of grammar cannot express."""
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
