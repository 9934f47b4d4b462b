"""Log filter: what the HTTP libraries log of our own requests, without keys, and no line for each.

They log by loggers that others in the process use too: levels and handlers stay as they are, and
what they log of other clients' requests is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar

hide: ContextVar[Callable[[str], str] | None] = ContextVar("hide", default=None)
"""Takes the key out of what is logged of the request that is under way; set for ours alone."""

_REQUESTS = ("httpx", "httpx2")
_HEADERS = (
    "openai._base_client",  # of 2.x
    *(
        f"{library}.{part}"
        for library in ("httpcore", "httpcore2")
        for part in ("connection", "http11", "http2", "proxy", "socks")
    ),
)


class _OfOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if (hidden := hide.get()) is None:
            return True
        if record.name in _REQUESTS and record.levelno == logging.INFO:
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        record.msg, record.args = hidden(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = hidden(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True


_FILTER = _OfOurs()


def install() -> None:
    """To be called before requests are sent, as often as wished."""
    for name in (*_REQUESTS, *_HEADERS):
        logging.getLogger(name).addFilter(_FILTER)
