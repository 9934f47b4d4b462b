"""Sampling on a server: ``Sampling`` as fields of a request, by kind of server, and what no field
there sets."""

from __future__ import annotations

import json
from typing import Any

from ..types import Sampling
from .kinds import ServerKind

_NEUTRAL = Sampling()
_NAMES = ("top_k", "min_p", "repetition_penalty", "presence_penalty", "seed")
_SEEDS = 1 << 31
"""Seeds are sent below this: some servers keep them in 32 bits."""


def sampling_fields(kind: ServerKind, sampling: Sampling) -> dict[str, Any]:
    """Fields of a request for ``sampling``. Those without effect are sent too: servers and
    checkpoints have defaults of their own, such as a ``min_p`` of 0.05 or a ``repetition_penalty``
    of 1.05. The answer's length is the caller's, since thoughts count there as well."""
    fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    own = {
        kind.sampling[name]: _value(kind, sampling, name)
        for name in _NAMES
        if name in kind.sampling
    }
    if not kind.sampling_in:
        return fields | own | dict(kind.always)
    own["do_sample"] = sampling.temperature > 0
    seed = own.pop("seed", None)
    return fields | {kind.sampling_in: json.dumps(own | dict(kind.always)), "seed": seed}


def unknown_options(kind: ServerKind) -> list[str]:
    """Fields of ``Sampling`` that a server of ``kind`` cannot be told."""
    return [name for name in _NAMES if name not in kind.sampling]


def sampling_notes(kind: ServerKind, sampling: Sampling) -> tuple[str, ...]:
    """What of ``sampling`` has no effect on a server of this kind, in a sentence; none where all
    has. A seed is not told of where decoding is greedy."""
    unknown = [
        name
        for name in unknown_options(kind)
        if getattr(sampling, name) != getattr(_NEUTRAL, name)
        and (name != "seed" or sampling.temperature > 0)
        and (name not in ("top_k", "min_p") or sampling.temperature > 0)
    ]
    if not unknown:
        return ()
    verb = "has" if len(unknown) == 1 else "have"
    return (
        f"{', '.join(unknown)} {verb} no effect here: {kind.title} cannot be told by a request. "
        "Its own setting holds.",
    )


def _value(kind: ServerKind, sampling: Sampling, name: str) -> Any:
    value = getattr(sampling, name)
    if name == "top_k" and not value:
        return kind.all_tokens
    return value % _SEEDS if name == "seed" else value
