"""Faults of servers: what went wrong with a request, whether it is worth asking again, and how long
to wait before."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import ssl
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
    not). ``advice``: what would mend it, as a sentence, where that is known."""

    kind: Kind
    words: str
    seconds: float = 0.0
    status: int = 0
    advice: str = ""


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
            return _not_reached(cause, hide)
        if isinstance(error, openai.APITimeoutError):
            return Fault("slow", "the time limit was reached")
        return Fault("broken", _cut(hide(_words(_deepest(cause)))))
    if isinstance(error, openai.APIError):
        status = _stated_status(error.body)
        words = f"the server says: {_cut(hide(_message(error.body) or error.message))}"
        return Fault(_kind_of_status(status), words, status=status)
    if isinstance(error, json.JSONDecodeError) and error.doc.lstrip().startswith(_ERROR):
        # One in whose words a quotation mark or a line break breaks the JSON around them.
        said = error.doc.lstrip().removeprefix(_ERROR).strip(' ":{}')
        return Fault("broken", f"the server says: {_cut(hide(said))}", status=500)
    return Fault("broken", f"its answer cannot be read ({type(error).__name__})")


_ERROR = '{"error"'
_NOT_REACHED = {"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"}
"""Names of httpx's exceptions, whichever edition of it openai uses."""


def _not_reached(error: BaseException, hide: Hide) -> Fault:
    own = _deepest(error)
    words, advice = _words(own), ""
    if isinstance(own, ssl.SSLCertVerificationError):
        words, advice = f"its certificate is not trusted: {own.verify_message}", _CERTIFICATE
    elif isinstance(own, ssl.SSLError):
        advice = "See whether it speaks TLS there: if not, its address begins with http://."
    return Fault("unreachable", _cut(hide(words)), advice=advice)


_CERTIFICATE = (
    "Write the host as its certificate names it; where nobody known has signed that, name its file "
    "in the environment variable SSL_CERT_FILE, which is read for other machines: a server on this "
    "one needs no https."
)


def _deepest(error: BaseException) -> BaseException:
    """The exception in the chain of causes of ``error`` that says the most: the operating system's
    own, or that of TLS or a name look-up, which lie deepest; ``error`` where there is none."""
    found, deeper = error, error.__cause__ or error.__context__
    while deeper is not None:
        if isinstance(deeper, OSError) and deeper.strerror:
            found = deeper
        deeper = deeper.__cause__ or deeper.__context__
    return found


def _words(error: BaseException) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    # asyncio puts words of its own in the place of the system's. Windows has none for its numbers.
    is_asyncios = error.strerror.startswith("Connect call failed") and os.name != "nt"
    number = error.errno or 0
    return os.strerror(number) if is_asyncios and number in errno.errorcode else error.strerror


def _of_status(error: Any, hide: Hide) -> Fault:
    status = int(error.status_code)
    said = _message(error.body) or error.response.reason_phrase or "no reason given"
    words = f"it answers with HTTP {status}: {_cut(hide(said))}"
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


def _message(found: Any) -> str:
    """The server's own words, out of the forms in which servers put them; empty where it has
    none."""
    while isinstance(found, Mapping):
        found = found.get("message") or found.get("error") or found.get("detail") or dict(found)
        if isinstance(found, dict) and not any(k in found for k in ("message", "error", "detail")):
            break
    return str(found or "")


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
