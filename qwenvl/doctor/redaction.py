"""Redaction: takes paths, names and secrets of the user out of a text that will be shown to
others."""

from __future__ import annotations

import getpass
import io
import os
import platform
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|COOKIE|(?:^|_)KEY", re.I)
_MIN_SECRET = 6  # characters; a shorter value is a switch
_MIN_NAME = 3  # a shorter one is a word of the language
_PUBLIC_NAMES = {"root", "localhost", "runner"}
_REST = r"[^\s'\"<>|:;,)\]]"  # a character of a path that is not in quotes
_PATTERNS = (
    (re.compile(r"\b(?:hf|ms|sk|gh[opsu])[_-][A-Za-z0-9_-]{8,}"), "<secret>"),
    (re.compile(r"\bBearer\s+\S+", re.I), "Bearer <secret>"),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.I), "<address>"),
    (re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"), "<address>"),
    # In quotes a path may hold blanks, as on Windows and macOS it often does.
    (re.compile(r"(?<=['\"])(?:~|[A-Za-z]:)?[\\/][^'\"\n]*(?=['\"])"), "<path>"),
    # Any other begins behind no word (tokens/s) and is no closing tag (</think>).
    (
        re.compile(
            rf"(?:(?<![\w.\\/-])(?!(?<=<)/\w+>)(?:~|[A-Za-z]:)?|\\)[\\/](?=[\w.~-]){_REST}+"
        ),
        "<path>",
    ),
)


class Redactor:
    """Replaces what is private in a text: ``folders`` with what is in them, ``secrets`` wherever
    they stand, ``names`` (of users, hosts, folders) as whole words, and anything of the form of a
    path, address or token."""

    def __init__(
        self,
        names: Iterable[str] = (),
        secrets: Iterable[str] = (),
        folders: Iterable[str] = (),
    ):
        known = sorted({f for f in folders if len(f) >= _MIN_SECRET}, key=len, reverse=True)
        self._folders = [re.compile(rf"{re.escape(folder)}{_REST}*") for folder in known]
        self._secrets = sorted({s for s in secrets if len(s) >= _MIN_SECRET}, key=len, reverse=True)
        words = sorted(
            {n for n in names if len(n) >= _MIN_NAME and n not in _PUBLIC_NAMES},
            key=len,
            reverse=True,
        )
        alternatives = "|".join(map(re.escape, words))
        self._names = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)") if words else None

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "<secret>")
        for folder in self._folders:
            text = folder.sub("<path>", text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return self._names.sub("<private>", text) if self._names else text

    def values(self, value: Any) -> Any:
        """``value``, of JSON, with all its strings redacted."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {key: self.values(member) for key, member in value.items()}
        return [self.values(member) for member in value] if isinstance(value, list) else value


def redactor_of(folders: Iterable[str] = (), names: Iterable[str] = ()) -> Redactor:
    """For the user of this process. ``folders`` and ``names``: more that is private."""
    return Redactor((*_user_names(), *_host_names(), *names), _secrets(), folders)


def _user_names() -> Iterator[str]:
    for variable in ("USER", "LOGNAME", "USERNAME", "SUDO_USER"):
        yield os.environ.get(variable, "")
    with suppress(Exception):  # a user without an entry: KeyError, OSError, ImportError
        yield getpass.getuser()
    yield Path.home().name


def _host_names() -> Iterator[str]:
    for name in (platform.node(), socket.gethostname()):
        yield name
        yield name.split(".")[0]


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            yield value
    with suppress(Exception):  # a hub library that is absent or of another form
        from huggingface_hub import get_token

        yield get_token() or ""


class RedactingStream(io.TextIOBase):
    """A text stream that redacts what is written to it, and passes it on."""

    def __init__(self, stream: TextIO, redact: Redactor):
        self._stream, self._redact = stream, redact

    def write(self, text: str) -> int:
        self._stream.write(self._redact(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding
