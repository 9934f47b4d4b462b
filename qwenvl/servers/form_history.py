"""Form history: which answer forms a server was seen to refuse, so that it is not asked for them
with every request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import ServerError

REFUSALS = frozenset({400, 422, 500, 501})
"""HTTP statuses with which servers answer a form that they cannot hold an answer to."""

_CERTAIN = 2
"""Refusals from which on a form counts as one that cannot be held; one may have been chance."""


class FormHistory:
    """What became of the forms (``AnswerForm.fields``) that one server's requests had. For one
    event loop."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._refused: dict[int, list[ServerError]] = {}

    def refusal(self, fields: Mapping[str, Any]) -> ServerError | None:
        """Why the form cannot be held; None where that is not known."""
        refusals = self._refused.get(_key(fields), [])
        return refusals[-1] if len(refusals) >= _CERTAIN else None

    def final(self, fields: Mapping[str, Any]) -> Collection[int]:
        """Statuses after which a request with that form is not to be sent again as it is: where the
        form was never held, it is the likeliest reason."""
        return () if not fields or _key(fields) in self._held else REFUSALS

    def was_held(self, fields: Mapping[str, Any]) -> None:
        """A request with the form was answered."""
        self._held.add(_key(fields))
        self._refused.pop(_key(fields), None)

    def was_refused(self, fields: Mapping[str, Any], error: ServerError) -> None:
        """A request was answered only once the form was left out."""
        refusals = self._refused.setdefault(_key(fields), [])
        if len(refusals) < _CERTAIN:
            refusals.append(error)


def _key(fields: Mapping[str, Any]) -> int:
    return hash(repr(fields))
