"""Peers: whose process is at the other end of a connection within this machine."""

from __future__ import annotations

import os
from pathlib import Path

TABLES = Path("/proc/net/tcp"), Path("/proc/net/tcp6")
"""Where Linux lists the sockets of all users."""

_ESTABLISHED = "01"


def is_own(peer_port: int, own_port: int) -> bool | None:
    """Whether the process that is connected from ``peer_port`` to ``own_port`` is of this user, or
    of root, who may read everything anyway. None where the system does not say."""
    try:
        lines = [line.split() for path in TABLES if path.exists() for line in _lines(path)]
    except PermissionError:
        return None
    if not lines:
        return None
    ports = f"{peer_port:04X}", f"{own_port:04X}"
    users = {
        int(user)
        for _, local, remote, state, _, _, _, user, *_ in lines
        if (local[-4:], remote[-4:]) == ports and state == _ESTABLISHED
    }
    return bool(users) and users <= {0, os.getuid()}


def _lines(path: Path) -> list[str]:
    """Without the heading."""
    return path.read_text().splitlines()[1:]
