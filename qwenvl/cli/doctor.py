"""Command that examines a model and the machine it runs on."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path

from ..checkpoints.catalogue import CATALOGUE
from ..checkpoints.library import BUNDLED, BUNDLED_NAME
from ..doctor.model_facts import public_name
from ..doctor.redaction import RedactingStream, Redactor, redactor_of
from ..errors import BadOption, QwenVLError
from ..servers.addresses import parse
from ..servers.keys import variable
from ..types import Spec
from .gguf_options import is_gguf
from .model_names import split_strength
from .model_options import spec_of
from .output import print_json, print_message, print_result
from .results import NOTHING_DONE

PROBLEMS = 1


def doctor(options: argparse.Namespace) -> int:
    """Prints a report that can be shown to anybody. Returns the exit status."""
    redact = _redactor(options)
    with _redacted(redact):
        try:
            return _doctor(options, redact)
        except QwenVLError as error:
            print_message(f"error: {error}")
        except BrokenPipeError:
            raise
        except Exception:  # a bug: the whole traceback, without the user's folders
            traceback.print_exc()
    return NOTHING_DONE


def _doctor(options: argparse.Namespace, redact: Redactor) -> int:
    from ..doctor.examination import check_options, examine, examine_machine
    from ..doctor.text_report import text
    from ..doctor.time_limit import TimeLimit
    from ..model_cache import CACHE

    check_options(options.scenes, options.seconds)
    spec = _spec(options)
    report = examine_machine()
    if spec is not None:
        limit = TimeLimit(options.seconds)
        try:
            with CACHE.lease(spec) as backend:
                examine(report, backend, spec, options.scenes, limit, print_message)
        except QwenVLError as error:
            report.error = str(error)
        except KeyboardInterrupt:
            print_message("stopped before the report was complete")
            raise
    found = redact.values(report.as_json())
    if options.json:
        print_json(found)
    else:
        print_result(text(found))
    if report.error:
        print_message(f"error: {report.error}")
        return NOTHING_DONE
    return PROBLEMS if report.problems() else 0


def _spec(options: argparse.Namespace) -> Spec | None:
    """None where the checkout lacks the bundled model: the machine is examined alone."""
    if options.server is None and options.model is None and not BUNDLED.is_dir():
        print_message("no --model is given and the bundled one is not here: no model is examined")
        return None
    return spec_of(options)


def _redactor(options: argparse.Namespace) -> Redactor:
    if options.server is not None:
        return redactor_of(names=[*_hosts(options.server), options.server_model or ""])
    folders = [*(options.root or ())]
    if options.model not in (None, BUNDLED_NAME, *CATALOGUE):
        folders += [options.model, os.path.realpath(options.model)]
    if options.mmproj is not None:
        folders += [options.mmproj, os.path.realpath(options.mmproj)]
    for named in options.lora or ():
        adapter = split_strength(named)[0]
        folders += [adapter, os.path.realpath(adapter)]
    names = [Path(folder).name for folder in folders if public_name(folder) is None]
    names += [Path(name).stem for name in names if is_gguf(name)]
    return redactor_of([folder for folder in folders if Path(folder).name != folder], names)


def _hosts(servers: Sequence[str]) -> Iterator[str]:
    """Names by which the servers could be told: of their hosts, and of their keys' variables."""
    for url in re.findall(r"https?://[^\s,]+", " ".join(servers)):
        with suppress(BadOption):  # no address: its host is what stands where one would
            address = parse(url)
            yield from (address.host.strip("[]"), variable(address))
        yield from re.findall(r"//([^/:\s,]+)", url)


@contextmanager
def _redacted(redact: Redactor) -> Iterator[None]:
    """While the block runs, all that is written to stderr is redacted: messages, logs, warnings."""
    plain = sys.stderr
    if plain is None:
        yield
        return
    redacting = RedactingStream(plain, redact)
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is plain
    ]
    for handler in handlers:
        handler.setStream(redacting)
    try:
        with redirect_stderr(redacting):
            yield
    finally:
        for handler in handlers:
            handler.setStream(plain)
