"""Server addresses: which host one names, and whether it may be asked there."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import BadOption

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]")
_AUTHORITY = re.compile(rf"(?P<host>{_HOST.pattern})(?::(?P<port>\d{{1,5}}))?")
_PATH = re.compile(r"(?:/[\w.~!$&'()*+,;=:@%-]*)*", re.ASCII)
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A server's base address. ``host``: lower case, an IPv6 one in brackets. ``port``: always
    there, the scheme's own where the address names none."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host, and port unless it is the scheme's own."""
        return self.host if self.port == DEFAULT_PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return is_loopback(self.host)

    @property
    def is_encrypted(self) -> bool:
        return self.scheme == "https"


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, by its name alone: nothing is looked up."""
    found = _ip(host)
    return host == "localhost" or (found is not None and found.is_loopback)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that ``host`` is, an IPv4 one written as IPv6 (``[::ffff:127.0.0.1]``) as
    itself; None for a name."""
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def parse(url: str) -> Address:
    """Parses ``url``. Raises ``BadOption`` for a host that two programs might read differently
    (letters outside ASCII, backslashes, blanks), since keys are chosen by host."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    found = _AUTHORITY.fullmatch(authority)
    port = int(found["port"]) if found and found["port"] else DEFAULT_PORTS.get(scheme, 0)
    if found and found["host"].startswith("[") and _ip(found["host"]) is None:
        found = None
    if not found or not 0 < port < 65536 or not _PATH.fullmatch(slash + path):
        raise BadOption(
            f"{url!r} is no server address that can be used. Write http:// or https://, a host of "
            "letters, digits, dots and hyphens (or an IP address), perhaps a port, and a path, "
            "such as http://127.0.0.1:8000/v1."
        )
    split = urlsplit(url)
    assert split.hostname is not None and split.hostname == found["host"].lower().strip("[]")
    return Address(url, scheme, found["host"].lower(), port)


def check_allowed(address: Address, allow_http: bool) -> None:
    """Raises ``BadOption`` for an address on another machine without TLS, unless ``allow_http``;
    and for one that stands for all of a machine's own, as servers print it."""
    ip = _ip(address.host)
    if ip is not None and ip.is_unspecified:
        own = "127.0.0.1" if ip.version == 4 else "[::1]"
        raise BadOption(
            f"{address.url}: {address.host} is where a server listens, and no address to ask. "
            f"Write {own} for one on this machine, else the name or address of its machine."
        )
    if address.is_encrypted or address.is_loopback or allow_http:
        return
    raise BadOption(
        f"{address.url} is on another machine and has no TLS: whoever is on the way could read the "
        "pictures and answers, and change them. Use https, or turn allow_http on if you trust the "
        "network."
    )
