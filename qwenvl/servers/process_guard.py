"""Process guard: runs a command for as long as whoever started this script lives.

    python process_guard.py COMMAND ARGUMENT...

Its standard input is a pipe that the parent holds open. Once anything comes through it, or it is
closed, or the parent is gone, killed or not, the command is asked to end, and ended after a while.
A process that the parent has forked keeps the pipe open as well, so that alone would not do.
Standard library only, and run as a file: it starts at once and imports nothing of
the pack.
"""

import os
import signal
import subprocess
import sys
import threading
import time

PATIENCE = 5.0  # seconds between asking and ending
_PAUSE = 0.5  # seconds between two looks whether the parent lives


def main() -> int:
    parent = os.getppid()
    child = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )

    def end(*_: object) -> None:
        child.terminate()
        timer = threading.Timer(PATIENCE, child.kill)
        timer.daemon = True
        timer.start()

    def wait_for_word() -> None:
        os.read(0, 1)  # not by sys.stdin, whose lock would be held at the end
        end()

    def wait_for_parent() -> None:
        while os.getppid() == parent:  # another one adopts it; Windows keeps the number
            time.sleep(_PAUSE)
        end()

    signal.signal(signal.SIGTERM, end)
    for wait in (wait_for_word, wait_for_parent):
        threading.Thread(target=wait, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _end_with_parent() -> None:
    """On Linux the kernel ends the command where even this guard is killed."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
