"""API keys of servers: each is for one host, and sent to that host alone.

A key is looked for in the environment, then in the keys file that the host application names. It is
never in a spec, a workflow, a log or an error.

Environment: ``QWENVL_KEY_`` and the host in capitals, a dot as one underscore and a hyphen as two,
and the port behind an underscore unless it is 443: ``QWENVL_KEY_API_EXAMPLE_COM``,
``QWENVL_KEY_MY__BOX_LOCAL_8443``. It is for https, or for this very machine.

Keys file: YAML, a host to a line::

    api.example.com: sk-…
    my-box.local:8443: …
    http://192.168.1.5:8000: …    # sent without TLS only where the line itself says http
    '[::1]:8000': …               # an IPv6 address in quotation marks
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import BadOption, Unavailable
from .addresses import Address, parse

log = logging.getLogger(__name__)

PREFIX = "QWENVL_KEY_"
HIDDEN = "[key]"
_MAX_BYTES = 1_000_000
_VALUE = re.compile(r"[\x21-\x7e]+")

Place = tuple[str, str, int, bool]
"""What a line of the keys file is for: scheme, host and port, and whether it names no scheme."""


@dataclass(frozen=True)
class Key:
    """A secret, which does not show when it is printed."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return HIDDEN

    def hidden(self, text: str) -> str:
        """``text`` without the key, wherever it stands in it, as it is or as a part of a URL."""
        return text.replace(self.value, HIDDEN).replace(quote(self.value, safe=""), HIDDEN)


def variable(address: Address) -> str:
    """The environment variable of a host's key. Empty of hosts that have none, since another one
    would have the same: IPv6 addresses, and names with underscores or with digits at their end."""
    host = address.host
    is_name = re.fullmatch(r"[a-z0-9.-]+", host) and not host.rsplit(".", 1)[-1].isdigit()
    if not (is_name or _is_ipv4(host)):
        return ""
    name = host.replace("-", "__").replace(".", "_").upper()
    return f"{PREFIX}{name}" if address.port == 443 else f"{PREFIX}{name}_{address.port}"


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


class Keys:
    """Where keys are found. ``file``: of keys, which the host application sets; None: there is
    none."""

    def __init__(self, file: Path | None = None, environ: Mapping[str, str] = os.environ):
        self.file = file
        self._environ = environ
        self._warned: set[Path] = set()
        self._read: tuple[object, dict[Place, str]] = None, {}

    def find(self, address: Address) -> Key | None:
        """The key of ``address``; None without one. Raises ``BadOption`` for a keys file that
        cannot be read, and for a key that no header can hold."""
        name = variable(address)
        if name and self._is_safe(address) and (value := self._environ.get(name, "").strip()):
            return _checked(value, name)
        place = address.scheme, address.host, address.port
        for is_bare in (False, True)[: 1 + self._is_safe(address)]:
            if value := self._lines().get((*place, is_bare), ""):
                return _checked(value, f"The key of {address.authority}")
        return None

    def places(self, address: Address) -> list[str]:
        """Where the key of ``address`` may be put, as words for the user."""
        found = []
        if self._is_safe(address) and (name := variable(address)):
            found.append(f"in the environment variable {name}")
        if self.file is not None:
            found.append(f"in the file {self.file}")
        return found

    @staticmethod
    def _is_safe(address: Address) -> bool:
        return address.is_encrypted or address.is_loopback

    def _lines(self) -> dict[Place, str]:
        try:
            if self.file is None or not self.file.is_file():
                return {}
            state = self.file.stat()
        except OSError as error:
            raise _unreadable(self.file, error) from None
        stamp = self.file, state.st_mtime_ns, state.st_size
        if self._read[0] != stamp:
            self._read = stamp, self._parsed_lines(self.file)
        return self._read[1]

    def _parsed_lines(self, file: Path) -> dict[Place, str]:
        try:
            import yaml
        except ImportError as error:
            raise Unavailable(
                f"{file} is a YAML file, and pyyaml is not installed: pip install pyyaml"
            ) from error
        self._warn_of_readers(file)
        found, where = _parsed(file, yaml)
        if found is None:
            raise BadOption(
                f"{where}: write a host and its key on each line, as in api.example.com: sk-... "
                "(an IPv6 address in quotation marks, as in '[::1]:8000': sk-...)."
            )
        return {place: key for line in found for place, key in _places(file, *line)}

    def _warn_of_readers(self, file: Path) -> None:
        if os.name != "posix" or file in self._warned:
            return
        if file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            self._warned.add(file)
            log.warning("%s holds keys, and others can read it: chmod 600 it.", file)


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


def _unreadable(file: Path | None, error: OSError) -> BadOption:
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


def _checked(value: str, where: str) -> Key:
    if not _VALUE.fullmatch(value):
        raise BadOption(f"{where} has blanks or letters in it that no key has.")
    return Key(value)


KEYS = Keys()
"""Of this process."""
