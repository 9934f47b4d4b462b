"""API keys of servers: each is for one host, and sent to that host alone.

A key is looked for in the environment, then in the keys file that the host application names (see
``keys_file``). It is never in a spec, a workflow, a log or an error.

Environment: ``QWENVL_KEY_`` and the host in capitals, a dot as one underscore and a hyphen as two,
and the port behind an underscore unless it is 443: ``QWENVL_KEY_API_EXAMPLE_COM``,
``QWENVL_KEY_MY__BOX_LOCAL_8443``. It is for https, or for this very machine.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ..errors import BadOption
from .addresses import Address
from .keys_file import KeysFile, line_name

PREFIX = "QWENVL_KEY_"
HIDDEN = "[key]"
_VALUE = re.compile(r"[\x21-\x7e]+")


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
        self._reader = KeysFile()

    def find(self, address: Address) -> Key | None:
        """The key of ``address``; None without one. Raises ``BadOption`` for a keys file that
        cannot be read, and for a key that no header can hold."""
        found = self._found(address)
        return found[0] if found else None

    def place(self, address: Address) -> str:
        """Where the key of ``address`` is found, as words for the user; empty without one. Raises
        as ``find``."""
        found = self._found(address)
        return found[1] if found else ""

    def _found(self, address: Address) -> tuple[Key, str] | None:
        name = variable(address)
        if name and self._is_safe(address) and (value := self._environ.get(name, "").strip()):
            return _checked(value, name), f"in the environment variable {name}"
        if self.file is None:
            return None
        lines = self._reader.lines(self.file)
        place = address.scheme, address.host, address.port
        for is_bare in (False, True)[: 1 + self._is_safe(address)]:
            if value := lines.get((*place, is_bare), ""):
                key = _checked(value, f"The key of {address.authority}")
                return key, f"in the file {self.file}"
        return None

    def places(self, address: Address) -> list[str]:
        """Where the key of ``address`` may be put, as words for the user."""
        found = []
        if self._is_safe(address) and (name := variable(address)):
            found.append(f"in the environment variable {name}")
        if self.file is not None:
            line = line_name(address, self._is_safe(address))
            found.append(f"in the file {self.file}, in a line {line}: KEY")
        return found

    @staticmethod
    def _is_safe(address: Address) -> bool:
        return address.is_encrypted or address.is_loopback


def _checked(value: str, where: str) -> Key:
    if not _VALUE.fullmatch(value):
        raise BadOption(f"{where} has blanks or letters in it that no key has.")
    return Key(value)


KEYS = Keys()
"""Of this process."""
