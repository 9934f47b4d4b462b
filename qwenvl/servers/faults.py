"""Faults of servers: what went wrong with a request, whether it is worth asking again, and how long
to wait before."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["refused", "unreachable", "busy", "broken", "foreign", "slow", "long"]
"""``refused``: this request will never be answered. ``unreachable``: nothing answers there.
``busy``: the server asks to wait. ``broken``: it failed, or its answer broke off. ``foreign``: it
answers, but not in this protocol. ``slow``: the time limit was reached. ``long``: likewise, of an
answer that was coming, and would again take too long."""

TRIES: Mapping[Kind, float] = {
    "refused": 1, "unreachable": math.inf, "busy": 12, "broken": 8, "foreign": 4, "slow": 4,
    "long": 1,
}  # fmt: skip
"""How often a request is asked that ends in one kind of fault. How long an unreachable address is
tried, ``replicas`` decides."""

FEW_TRIES: Mapping[Kind, float] = {**TRIES, "busy": 3, "slow": 1}
"""Likewise to learn about a server: callers wait for that without being able to stop."""
TRIES_WHERE_ALL_FAILS = 2
"""How often a request is asked at a server that answers every request with an error."""

LONGEST_RETRY_AFTER = 60.0
"""Seconds that a server may ask to wait."""

_FIRST_DELAY, _LONGEST_DELAY = 0.25, 16.0
_BUSY = {408, 425, 429}
_MAX_WORDS = 500


@dataclass(eq=False)
class Fault(Exception):
    """``words``: what happened, for the user, as a clause. ``seconds``: how long the server asks to
    wait (0: it does not say). ``status``: of HTTP, with which the server answered (0: it did
    not)."""

    kind: Kind
    words: str
    seconds: float = 0.0
    status: int = 0


def delay(tries: int) -> float:
    """Seconds to wait after so many ``tries``: exponential backoff with jitter, so that those who
    failed together do not all come back together."""
    longest = min(_FIRST_DELAY * 2 ** (tries - 1), _LONGEST_DELAY)
    return longest * random.uniform(0.5, 1.0)


Hide = Callable[[str], str]
"""Takes secrets out of a text; before it is cut, since half a key is a secret, too."""


def of_exception(error: BaseException, openai: Any, hide: Hide = str) -> Fault:
    """What an exception of the ``openai`` module, or of reading what it gave, means."""
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, hide)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        if type(cause).__name__ in _NOT_REACHED:
            return Fault("unreachable", _cut(hide(_reason(cause))))
        if isinstance(error, openai.APITimeoutError):
            return Fault("slow", "the time limit was reached")
        return Fault("broken", _cut(hide(_reason(cause))))
    if isinstance(error, openai.APIError):
        status = _stated_status(error.body)
        words = f"the server says: {_cut(hide(error.message))}"
        return Fault(_kind_of_status(status), words, status=status)
    return Fault("broken", f"its answer cannot be read ({type(error).__name__})")


_NOT_REACHED = {"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"}
"""Names of httpx's exceptions, whichever edition of it openai uses."""


def _reason(error: BaseException) -> str:
    """Why a connection failed, in the operating system's words where there are any: these lie
    deepest in the chain of causes."""
    words, deeper = str(error), error.__cause__ or error.__context__
    while deeper is not None:
        if isinstance(deeper, OSError) and deeper.strerror:
            # asyncio puts words of its own in their place; numbers below 0 are of name look-ups.
            number = deeper.errno or 0
            words = os.strerror(number) if number > 0 else deeper.strerror
        deeper = deeper.__cause__ or deeper.__context__
    return words or type(error).__name__


def _of_status(error: Any, hide: Hide) -> Fault:
    status = int(error.status_code)
    words = f"it answers with HTTP {status}: {_cut(hide(_message(error)))}"
    if 300 <= status < 400:
        where = _cut(hide(error.response.headers.get("location", "nowhere")))
        words = (
            f"it sends requests on to {where!r}, and redirects are not followed, since keys and "
            "pictures are for this address alone. If that is where the server is, give that "
            "address"
        )
        return Fault("refused", words, status=status)
    asks_to_wait = status == 503 and "retry-after" in error.response.headers
    kind = "busy" if asks_to_wait else _kind_of_status(status)
    seconds = _retry_after(error.response.headers) if kind == "busy" else 0.0
    return Fault(kind, words, seconds, status)


def _kind_of_status(status: int) -> Kind:
    if status in _BUSY:
        return "busy"
    return "broken" if status >= 500 else "refused"


def _stated_status(error: Any) -> int:
    """The HTTP status that an error inside a stream, which began with status 200, says it has; 500
    where it says none."""
    members = error if isinstance(error, Mapping) else {}
    for name in ("code", "status", "status_code"):
        text = str(members.get(name))
        if text.isascii() and text.isdigit() and 400 <= int(text[:9]) < 600:
            return int(text)
    return 500


def _message(error: Any) -> str:
    """The server's own words, out of the forms in which servers put them."""
    found = error.body
    while isinstance(found, Mapping):
        found = found.get("message") or found.get("error") or found.get("detail") or dict(found)
        if isinstance(found, dict) and not any(k in found for k in ("message", "error", "detail")):
            break
    return str(found or error.response.reason_phrase or "no reason given")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds in the header ``Retry-After``, between 0 and ``LONGEST_RETRY_AFTER``; 0 for a date,
    since clocks differ."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else 0.0


def _cut(text: str) -> str:
    text = "".join(filter(str.isprintable, " ".join(text.split())))
    return f"{text[:_MAX_WORDS]}…" if len(text) > _MAX_WORDS else text
