"""Command line of the engine, for people and scripts: ``python -m qwenvl --help``.

Results go to stdout, one picture after the other, with ``--json`` as one JSON object a line; all
else goes to stderr.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import QwenVLError, UnreadableReply
from ..servers import keys_file
from ..servers.keys import KEYS
from .output import begin, discard_pipes, print_error
from .parser import make_parser
from .results import NOTHING_DONE, UNREADABLE
from .user_folder import user_file

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_STOPPED, _PIPE_CLOSED = 128, 141  # the first: plus the signal's number, as in shells


class Stopped(KeyboardInterrupt):
    """Raised when a signal asks to stop. ``number``: the signal's."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    begin()
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    KEYS.file = user_file(keys_file.NAME)
    options = make_parser(__doc__).parse_args(argv)
    try:
        with _signals_raise():
            return _run(options)
    except BrokenPipeError:
        discard_pipes()
        return _PIPE_CLOSED


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options) or 0)
    except UnreadableReply as error:
        print_error(str(error))
        return UNREADABLE
    except QwenVLError as error:
        print_error(str(error))
    except Stopped as stop:
        return _STOPPED + stop.number
    except BrokenPipeError:
        raise
    except Exception:  # a bug: the whole traceback, and a status that says so
        traceback.print_exc()
    return NOTHING_DONE


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Signals that ask the process to end raise ``Stopped``, except those that it was started to
    ignore (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _: Any) -> None:
        raise Stopped(number)

    numbers = [getattr(signal, name) for name in _STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    for number in handled:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
