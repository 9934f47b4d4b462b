"""Keys file: YAML, a host to a line, with its API key.

For example::

    api.example.com: sk-…
    my-box.local:8443: …
    http://192.168.1.5:8000: …    # sent without TLS only where the line itself says http
    '[::1]:8000': …               # an IPv6 address in quotation marks
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadOption, Unavailable
from .addresses import Address, parse

log = logging.getLogger(__name__)

NAME = "keys.yaml"
"""What it is called, in whichever folder."""
_MAX_BYTES = 1_000_000

Place = tuple[str, str, int, bool]
"""What a line is for: scheme, host and port, and whether it names no scheme."""


class KeysFile:
    """Reader of keys files: one is read anew when it has changed."""

    def __init__(self) -> None:
        self._read: tuple[object, Mapping[Place, str]] = None, {}
        self._warned: set[Path] = set()

    def lines(self, file: Path) -> Mapping[Place, str]:
        """The keys in ``file``; none where there is no such file. Raises ``BadOption`` for one that
        cannot be read, or says anything else, and ``Unavailable`` without pyyaml."""
        try:
            if not file.is_file():
                return {}
            state = file.stat()
        except OSError as error:
            raise _unreadable(file, error) from None
        stamp = file, state.st_mtime_ns, state.st_size
        if self._read[0] != stamp:
            self._warn_of_readers(file, state.st_mode)
            self._read = stamp, _lines(file)
        return self._read[1]

    def _warn_of_readers(self, file: Path, mode: int) -> None:
        if os.name == "posix" and file not in self._warned and mode & (stat.S_IRGRP | stat.S_IROTH):
            self._warned.add(file)
            log.warning("%s holds keys, and others can read it: chmod 600 it.", file)


def line_name(address: Address, is_safe: bool) -> str:
    """How a line for ``address`` begins. ``is_safe``: a key may be sent there without a word."""
    if not is_safe:
        return f"{address.scheme}://{address.authority}"
    return f"'{address.authority}'" if address.host.startswith("[") else address.authority


def _lines(file: Path) -> dict[Place, str]:
    try:
        import yaml
    except ImportError as error:
        raise Unavailable(
            f"{file} is a YAML file, and pyyaml is not installed: pip install pyyaml"
        ) from error
    found, where = _parsed(file, yaml)
    if found is None:
        raise BadOption(
            f"{where}: write a host and its key on each line, as in api.example.com: sk-... "
            "(an IPv6 address in quotation marks, as in '[::1]:8000': sk-...)."
        )
    return {place: key for line in found for place, key in _places(file, *line)}


def _places(file: Path, line: int, name: str, key: str) -> Iterator[tuple[Place, str]]:
    """The addresses that the ``name`` in a line of ``file`` stands for, each with the ``key``.
    Raises ``BadOption``, without the name: it may be the key, in the wrong place."""
    is_bare = "://" not in name
    for scheme in ("https", "http") if is_bare else ("",):
        try:
            address = parse(f"{scheme}://{name}" if is_bare else name)
        except BadOption:
            raise BadOption(
                f"{file}, line {line}: what stands before the key is no host. Write it as in "
                "api.example.com, my-box.local:8443 or http://192.168.1.5:8000."
            ) from None
        yield (address.scheme, address.host, address.port, is_bare), key


def _unreadable(file: Path, error: OSError) -> BadOption:
    return BadOption(f"{file}, a file of keys, cannot be read: {error.strerror or error}.")


def _parsed(file: Path, yaml: Any) -> tuple[list[tuple[int, str, str]] | None, str]:
    """Number, name and key of each line of the YAML in ``file``, every value as the text that it
    is, since a key may look like a number, and the file's name; None and the place in it of what is
    no such YAML. Raises ``BadOption`` for a file that cannot be read, or is too large."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from None
    if len(text) > _MAX_BYTES:
        raise BadOption(
            f"{file} is larger than {_MAX_BYTES // 10**6} MB, which no file of keys is."
        )
    try:
        root = yaml.compose(text.decode("utf-8-sig"), Loader=yaml.BaseLoader)
        if root is None:
            return [], str(file)
        lines = []
        for name, key in root.value if isinstance(root, yaml.MappingNode) else [(root, root)]:
            if not isinstance(root, yaml.MappingNode) or not (
                isinstance(name, yaml.ScalarNode) and isinstance(key, yaml.ScalarNode)
            ):
                return None, f"{file}, line {name.start_mark.line + 1}"
            lines.append((name.start_mark.line + 1, name.value.strip().lower(), key.value.strip()))
        return lines, str(file)
    except Exception as error:
        # What pyyaml says quotes the file, keys included: not even the cause may be kept.
        mark = getattr(error, "problem_mark", None)
        return None, f"{file}, line {mark.line + 1}" if mark else str(file)
