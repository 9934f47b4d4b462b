"""llama-server of llama.cpp as a process of ours: started on loopback for one model, asked whether
it is ready, and ended with us.

Nobody else on this machine can use it: it takes a key that is made anew for each process and given
to it in its environment, where only its own user can read it. Without the key it tells no more than
whether it is ready, and its model's name.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import OutOfMemory, QwenVLError, Unavailable
from .keys import PREFIX
from .llama_program import PROGRAM
from .loopback_port import HOST, free_port, is_owned, status

log = logging.getLogger(__name__)

KEY_VARIABLE = "LLAMA_API_KEY"
_GUARD = Path(__file__).with_name("process_guard.py")
_TRIES = 3  # another process may take the port between choosing and binding it
_PAUSE = 0.1  # seconds between two looks at a server that is starting
_PATIENCE = 8.0  # seconds that ending may take: the guard's own, and some
_TAIL = 4000  # bytes at the end of the log that are looked at
_LINES = 6  # lines of them that an error quotes
_LOG_SECONDS = 30 * 86_400  # for which logs are kept
_MOST_LOGS = 50  # that are kept
_ILLEGAL = (128 + 4, 0xC000001D)  # exit status after an illegal instruction: POSIX, Windows
# What it says where memory does not suffice.
_OUT_OF_MEMORY = ("out of memory", "failed to allocate", "unable to allocate", "cudamalloc failed")


class LlamaServer:
    """A running llama-server. ``url``: its base address; ``key``: the API key that it requires;
    ``log_file``: where its output goes."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, key: str, log_file: Path):
        self._process, self.port, self._key, self.log_file = process, port, key, log_file
        self._starter = os.getpid()
        _running.add(self)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    @property
    def key(self) -> str:
        return self._key

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the guard, whose child the server is."""
        return self._process.pid

    def stop(self) -> None:
        """Ends the process, and waits until it is gone. In a fork of the process that has started
        it, it does nothing."""
        _running.discard(self)
        if self._starter != os.getpid():
            return
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # it has ended
                # A word, for a fork may hold the pipe open.
                self._process.stdin.write(b"\n")
                self._process.stdin.close()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(_PATIENCE)
                return
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()

    def failure(self) -> QwenVLError:
        """The error about a server that has ended by itself, with the last lines of its log."""
        said = "\n".join(_tail(self.log_file)[-_LINES:]) or "It said nothing."
        kind: type[QwenVLError] = Unavailable
        advice = "A model newer than it is needs a newer one."
        if any(word in said.lower() for word in _OUT_OF_MEMORY):
            kind, advice = OutOfMemory, "Choose a smaller model or a smaller context."
        elif self._process.poll() in _ILLEGAL:
            advice = "It was built for another processor than this one: get another build."
        return kind(
            f"{PROGRAM} has ended by itself. {advice} All it said is in {self.log_file}; at last:\n"
            f"{said}"
        )


_running: weakref.WeakSet[LlamaServer] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_running):
        server.stop()


def remove_old_logs(folder: Path) -> None:
    """Removes logs in ``folder`` that nothing was written to for a month, and all but the newest:
    each command writes one."""
    found = []
    for log_file in folder.glob(f"{PROGRAM}-*.log"):
        with contextlib.suppress(OSError):  # gone meanwhile
            found.append((log_file.stat().st_mtime, log_file))
    for number, (written, log_file) in enumerate(sorted(found, reverse=True)):
        if number >= _MOST_LOGS or time.time() - written > _LOG_SECONDS:
            with contextlib.suppress(OSError):  # of somebody else, or in use
                log_file.unlink()


def start(
    program: Path,
    arguments: Sequence[str],
    log_file: Path,
    check: Callable[[], None] = lambda: None,
    timeout: float = 600.0,
) -> LlamaServer:
    """A llama-server that answers on a free port of loopback. ``arguments``: those about its model;
    where it listens is added. ``check`` is called while it starts; what that raises ends it.

    Raises ``Unavailable`` or ``OutOfMemory`` where it ends by itself or is not ready within
    ``timeout`` seconds."""
    for number in range(1, _TRIES + 1):
        server = _launch(program, arguments, log_file)
        try:
            _await(server, check, timeout)
        except BaseException as error:
            server.stop()
            if number < _TRIES and _port_was_taken(server, error):
                continue
            raise
        log.info("%s answers at %s (its log: %s)", PROGRAM, server.url, log_file)
        return server
    raise AssertionError("unreachable")


def _launch(program: Path, arguments: Sequence[str], log_file: Path) -> LlamaServer:
    port, key = free_port(), secrets.token_urlsafe(32)
    # Python itself on Windows and Linux alike; -I: nothing of the user's environment gets in.
    guard = [sys.executable, "-I", "-S", str(_GUARD)]
    command = [str(program), *arguments, "--host", HOST, "--port", str(port)]
    own_group: dict[str, object] = (
        {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        if os.name == "nt"
        else {"start_new_session": True}  # Ctrl-C at the terminal is not for it
    )
    with _new_log(log_file) as output:
        process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_without_keys(os.environ), KEY_VARIABLE: key},
            **own_group,  # type: ignore[call-overload]
        )
    return LlamaServer(process, port, key, log_file)


def _without_keys(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the keys of other servers."""
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}


def _new_log(log_file: Path) -> BinaryIO:
    """Raises ``Unavailable`` where it cannot be written."""
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        # One that is there may be another's to read, or a link.
        log_file.unlink(missing_ok=True)
        return open(log_file, "xb", opener=_opened_privately)
    except OSError as error:
        raise Unavailable(
            f"{log_file}, where {PROGRAM} says what it does, cannot be written: "
            f"{error.strerror or error}."
        ) from error


def _opened_privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _await(server: LlamaServer, check: Callable[[], None], timeout: float) -> None:
    """Waits until the server has read its model, and it is ours that listens on the port."""
    end = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        check()
        if not server.is_running:
            raise server.failure()
        answers = status(server.port, "/health") == 200 and is_owned(server.port, server.pid)
        if answers and server.is_running:
            return
        if time.monotonic() > end:
            raise Unavailable(
                f"{PROGRAM} was not ready within {timeout:g} seconds. All it said: "
                f"{server.log_file}"
            )
        pause.wait(_PAUSE)


def _port_was_taken(server: LlamaServer, error: BaseException) -> bool:
    if not isinstance(error, QwenVLError):
        return False
    said = "\n".join(_tail(server.log_file)).lower()
    return "bind" in said or "address already in use" in said


def _tail(log_file: Path) -> list[str]:
    """The last lines of the log, the blank ones left out."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]
