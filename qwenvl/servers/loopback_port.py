"""Ports of loopback: a free one for a server of ours, and whether it is ours that listens there
before it is told anything."""

from __future__ import annotations

import http.client
import secrets
import socket
from collections.abc import Sequence
from typing import Any

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on now; another process may take it before it is bound."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_owned(port: int, pid: int) -> bool:
    """Whether the process ``pid``, or one that it has started, listens on ``port``. Where the
    system does not tell, the server there is asked with a wrong key, which one that has a key of
    ours refuses."""
    try:
        import psutil

        guard = psutil.Process(pid)
        family = [guard, *guard.children(recursive=True)]
        sockets = (found for process in family for found in _sockets(process))
        return any(
            found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in sockets
        )
    except ImportError:
        return _wants_a_key(port)
    except psutil.Error:  # it ended meanwhile; or the system does not tell, as of macOS at times
        return _wants_a_key(port)


def status(port: int, path: str, key: str = "") -> int:
    """The HTTP status of a GET; 0 where nothing answers."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _wants_a_key(port: int) -> bool:
    # /health is open to all in llama.cpp, and in some of its versions /v1/models.
    return status(port, "/props", secrets.token_urlsafe(32)) == 401


def _sockets(process: Any) -> Sequence[Any]:
    """Open TCP sockets of a ``psutil.Process``; psutil before 6 has another name for them."""
    name = "net_connections" if hasattr(process, "net_connections") else "connections"
    return list(getattr(process, name)("tcp"))
