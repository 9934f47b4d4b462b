"""The engine from the command line, for people and scripts: ``python -m qwenvl --help``.

Results go to stdout, one picture after the other, with ``--json`` as one JSON object a line; all
else goes to stderr.
"""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import QwenVLError, UnreadableReply
from ..families import FAMILIES
from ..types import Sampling, Size
from ..unicode import well_formed
from . import commands
from .commands import DEFAULT_ROOT, DEMO, NOTHING, SAMPLED, UNREADABLE, say

_STOPS = ("SIGINT", "SIGTERM", "SIGHUP")
_STOPPED, _PIPE_CLOSED = 128, 141  # the first: and the signal's number, as shells count

EXIT_STATUS = """\
exit status:
  0    everything was done
  1    some inputs failed or were not reached; the others were answered
  2    nothing could be started, or no input could be answered
  3    the only failures are replies that could not be read
  129, 130, 143
       stopped by SIGHUP, by Ctrl-C, by SIGTERM; what is written until then is whole
  141  who read the results has closed the pipe
"""
_HELP: dict[str, Any] = {
    "epilog": EXIT_STATUS,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}
_LONGEST = 1_000_000  # pixels of a side of a picture that a reply is about


class Stopped(KeyboardInterrupt):
    """A signal asked to stop. ``number``: which."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    _set_streams()
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    options = _parser().parse_args(argv)
    try:
        with _signals_stop():
            return _status(options)
    except BrokenPipeError:
        _give_up_pipes()
        return _PIPE_CLOSED


def _status(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options) or 0)
    except UnreadableReply as error:
        say(f"error: {error}")
        return UNREADABLE
    except QwenVLError as error:
        say(f"error: {error}")
    except Stopped as stop:
        return _STOPPED + stop.number
    except BrokenPipeError:
        raise
    except Exception:  # a fault of ours: all there is to know of it, and a status that says so
        traceback.print_exc()
    return NOTHING


def _set_streams() -> None:
    """UTF-8 whatever the console's own encoding, and no text that could not be printed."""
    codecs.register_error("well_formed", _well_formed)
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "well_formed"),
        (sys.stderr, "well_formed"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _well_formed(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return well_formed(error.object[error.start : error.end]).encode(), error.end


@contextmanager
def _signals_stop() -> Iterator[None]:
    """Signals that ask to end raise ``Stopped``, except those that whoever started this process
    had it ignore (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: Any) -> None:
        raise Stopped(number)

    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    for number in heeded:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def _give_up_pipes() -> None:
    """Sends what cannot be delivered nowhere: Python would try once more when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _whole(text: str) -> int:
    """``1000`` or ``1e3``."""
    try:
        number = float(text) if "e" in text.lower() else int(text)
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number")


def _size(text: str) -> Size:
    """``640x480``, width first, to (height, width)."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if not (0 < width <= _LONGEST and 0 < height <= _LONGEST):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size: give WIDTHxHEIGHT, as 640x480, up to {_LONGEST} each"
        )
    return height, width


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qwenvl", description=__doc__, **_HELP)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_tasks(verbs)
    _add_shelf(verbs)
    reads = _command(verbs, commands.parse, "read a raw reply on stdin, print what it says")
    reads.add_argument("--family", required=True, help=f"one of {', '.join(FAMILIES)}")
    reads.add_argument("--image-size", required=True, type=_size, metavar="WxH")
    reads.add_argument(
        "--input-size", type=_size, metavar="WxH",
        help="of the picture that the model saw (default: as the family's processor resizes)",
    )  # fmt: skip
    reads.add_argument("--task", required=True, choices=("boxes", "points", "ocr"))
    return parser


def _command(
    verbs: Any, run: Callable[[argparse.Namespace], int | None], about: str, **more: Any
) -> Any:
    """A subcommand by the name of the function that runs it."""
    parser = verbs.add_parser(run.__name__, help=about, description=about, **_HELP, **more)
    parser.set_defaults(run=run)
    return parser


def _add_tasks(verbs: Any) -> None:
    from ..tasks.describe import STYLES
    from ..tasks.ocr import OUTPUTS

    common = [_asking()]
    says = _command(verbs, commands.describe, "say what pictures show", parents=common)
    says.add_argument("--style", choices=tuple(STYLES), default="detailed")
    says.add_argument("--prompt", default="", help="own words in place of a style")
    reads = _command(verbs, commands.ocr, "read the text in pictures", parents=common)
    reads.add_argument("--output", choices=tuple(OUTPUTS), default="plain")
    reads.add_argument("--language", default="auto")
    finds = _command(verbs, commands.ground, "find things in pictures", parents=common)
    finds.add_argument("--find", required=True, help="what to find, several with commas")
    finds.add_argument("--kind", choices=("boxes", "points"), default="boxes")
    finds.add_argument("--max-count", type=_whole, default=0, help="0: as many as there are")


def _asking() -> argparse.ArgumentParser:
    """What all commands that ask a model have in common."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("images", nargs="+", metavar="IMAGE")
    common.add_argument(
        "--json", action="store_true",
        help="one JSON object a picture, in order, each as soon as it is answered; one that "
        "failed has an error",
    )  # fmt: skip
    common.add_argument(
        "--model", default=DEMO, metavar="PATH|demo",
        help="a checkpoint's folder (default: the small bundled model)",
    )  # fmt: skip
    for name, default, choices in (
        ("precision", "auto", "auto, bf16, fp16 or fp32"),
        ("quantization", "none", "none, 8bit or 4bit"),
        ("attention", "auto", "auto, sdpa, eager, flash_attention_2, ..."),
        ("device", "auto", "auto, cpu, cuda:0, ..."),
    ):
        common.add_argument(f"--{name}", default=default, metavar="X", help=choices)
    common.add_argument(
        "--trust-remote-code", action="store_true", help="run Python that lies in the checkpoint"
    )
    common.add_argument("--system", default="", help="a system prompt")
    common.add_argument(
        "--thinking", action=argparse.BooleanOptionalAction, default=None,
        help="for models that can be asked to (default: their own way)",
    )  # fmt: skip
    for name in ("min_pixels", "max_pixels"):
        common.add_argument(
            f"--{name.replace('_', '-')}", type=_whole, metavar="N",
            help="bound on width times height of what the model sees (default: the model's own)",
        )  # fmt: skip
    kinds = {field.name: field.default for field in dataclasses.fields(Sampling)}
    for name in SAMPLED:
        kind = float if isinstance(kinds[name], float) else _whole
        common.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N")
    return common


def _add_shelf(verbs: Any) -> None:
    lists = _command(verbs, commands.models, "list the models on this machine")
    lists.add_argument(
        "--root", action="append", metavar="DIR", help=f"may repeat (default: {DEFAULT_ROOT})"
    )
    lists.add_argument("--catalogue", action="store_true", help="also those to download")
    lists.add_argument("--json", action="store_true", help="one JSON object for each model")
    brings = _command(verbs, commands.download, "bring a model onto this machine")
    brings.add_argument("repo", metavar="OWNER/NAME")
    brings.add_argument("--root", default=DEFAULT_ROOT, metavar="DIR")
    brings.add_argument("--source", choices=("huggingface", "modelscope"), default="huggingface")
    brings.add_argument(
        "--endpoint", metavar="URL",
        help="a mirror's address; it gets no login unless QVL_TOKEN_HOST names its host",
    )  # fmt: skip
    brings.add_argument("--revision", help="a branch, a tag or a commit (default: the newest)")
    brings.add_argument(
        "--verify", action="store_true",
        help="read all files anew and fetch again what differs from the hub's",
    )  # fmt: skip
    brings.add_argument("--trust-remote-code", action="store_true", help="fetch Python files too")
    brings.add_argument("--json", action="store_true")
