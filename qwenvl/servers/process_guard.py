"""Process guard: runs a command for as long as whoever started this script lives.

    python process_guard.py COMMAND ARGUMENT...

Its standard input is a pipe that the parent holds open and never writes to. Once that is closed,
because the parent wants it so or is gone, killed or not, the command is asked to end, and ended
after a while. Standard library only, and run as a file: it starts at once and imports nothing of
the pack.
"""

import os
import signal
import subprocess
import sys
import threading

PATIENCE = 5.0  # seconds between asking and ending


def main() -> int:
    child = subprocess.Popen(
        sys.argv[1:],
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )

    def end(*_: object) -> None:
        # Once: a second signal while it waits must not begin anew.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child.terminate()
        timer = threading.Timer(PATIENCE, child.kill)
        timer.daemon = True
        timer.start()

    def wait_for_parent() -> None:
        while os.read(0, 1024):  # not by sys.stdin, whose lock would be held at the end
            pass
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=wait_for_parent, daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _end_with_parent() -> None:
    """On Linux the kernel ends the command where even this guard is killed."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
