"""How much RAM this process can still take. Beyond that nothing is raised: the kernel ends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# Of version 2 and version 1: where groups lie, and the files that tell of each.
_UNIFIED = ("", "memory.max", "memory.current", "inactive_file")
_LEGACY = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available() -> int:
    """Bytes: what the machine has free, and no more than the limits of its containers leave."""
    import psutil

    return min([psutil.virtual_memory().available, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """What each of Linux' control groups that this process is in leaves it."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, *files = _LEGACY if controllers else _UNIFIED
        root = _MOUNT / mount
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder == _MOUNT.parent:
                break
            left = _left(folder, *files)
            if left is not None:
                yield left


def _left(group: Path, limit: str, usage: str, cached: str) -> int | None:
    """None where a group has no limit. What it has cached of files goes when it is needed."""
    try:
        most = int((group / limit).read_text())
        used = int((group / usage).read_text())
        words = (group / "memory.stat").read_text().split()
    except (OSError, ValueError):  # no such group here, or "max"
        return None
    numbers = dict(zip(words[::2], words[1::2], strict=False))
    return max(0, most - used + int(numbers.get(cached, 0)))
