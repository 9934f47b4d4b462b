"""Scoring on servers: from the likeliest first tokens of an answer to candidates' probabilities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ServerError
from ..types import Request, Sampling
from .logprobs import log_probability

TOP_TOKENS = 20
"""First tokens that are asked for: as many as the protocol allows."""

FIRST_TOKEN: Mapping[str, Any] = {"top_logprobs": TOP_TOKENS, "max_tokens": 1}
"""Fields of a request whose answer is scored."""


def scored(request: Request) -> Request:
    """``request`` for the first token of its answer and the likeliest ones in its place. At
    temperature 1, without penalties, their probabilities are the model's own on any server."""
    sampling = Sampling(max_new_tokens=1, temperature=1.0)
    return dataclasses.replace(request, sampling=sampling, logprobs=True, constraint=None)


def candidate_scores(
    entries: Sequence[Mapping[str, Any]], candidates: Sequence[str]
) -> list[float]:
    """For each of ``candidates``, the probability that an answer begins with it, normalised over
    them. ``entries``: the ``logprobs`` of an answer's tokens in the protocol's form, of which the
    first has the ``TOP_TOKENS`` likeliest ones; a candidate that is not among these has 0, and is
    less likely than each of them.

    Raises ``ServerError`` where there are no log-probabilities, or none that are numbers, where the
    answer begins with none of the candidates, and where one is more than one token: then its
    probability is not known."""
    if not entries:
        raise ServerError(
            "The server tells no log-probabilities, and scores are made of them. vLLM, SGLang and "
            "llama.cpp do; or choose a model on this machine."
        )
    top = entries[0].get("top_logprobs")
    tokens = [entry for entry in top if isinstance(entry, Mapping)] if isinstance(top, list) else []
    chances: dict[str, float] = {}
    for entry in tokens:
        token, logprob = entry.get("token"), log_probability(entry.get("logprob"))
        if logprob is None and token in candidates and entry.get("logprob") != -math.inf:
            raise ServerError(f"The server tells no number as the log-probability of {token!r}.")
        if isinstance(token, str) and logprob is not None:
            chances[token] = chances.get(token, 0.0) + math.exp(min(logprob, 0.0))
    found = [chances.get(candidate, 0.0) for candidate in candidates]
    for candidate in candidates:
        begun = {t for t in chances if t and candidate.startswith(t) and t not in candidates}
        if candidate not in chances and max((chances[t] for t in begun), default=0) > _NEGLIGIBLE:
            raise ServerError(
                f"{candidate!r} is more than one token for this model, and a server tells only the "
                "likeliest first ones. Score by words that are one, or choose a model on this "
                "machine."
            )
    total = math.fsum(found)
    if not total:
        likeliest = ", ".join(repr(token) for token in list(chances)[:5])
        raise ServerError(
            f"The answer begins with none of {', '.join(map(repr, candidates))}; the likeliest "
            f"beginnings are {likeliest or 'not told'}. A model that thinks first cannot be scored."
        )
    return [chance / total for chance in found]


_NEGLIGIBLE = 0.01
"""Probability of a token that a candidate may begin with, below which it hardly changes a score."""
