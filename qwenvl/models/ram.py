"""Available RAM of this process, container limits included.

A process that takes more gets no error: the kernel kills it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# For cgroups of version 2 and of version 1: the folder of the groups, the files with limit and
# usage, and the field of ``memory.stat`` with the file cache that can be reclaimed.
_VERSION_2 = ("", "memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available() -> int:
    """Bytes: what the machine has free, and no more than the limits of its containers leave."""
    import psutil

    return min([psutil.virtual_memory().available, *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[int]:
    """Bytes that each of the Linux cgroups of this process leaves it."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, *names = _VERSION_1 if controllers else _VERSION_2
        root = _MOUNT / mount
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder == _MOUNT.parent:
                break
            left = _left(folder, *names)
            if left is not None:
                yield left


def _left(group: Path, limit_file: str, usage_file: str, reclaimable_field: str) -> int | None:
    """Bytes that ``group`` leaves; None where it has no limit."""
    try:
        limit = int((group / limit_file).read_text())
        usage = int((group / usage_file).read_text())
        words = (group / "memory.stat").read_text().split()
    except (OSError, ValueError):  # no such group here, or "max"
        return None
    fields = dict(zip(words[::2], words[1::2], strict=False))
    return max(0, limit - usage + int(fields.get(reclaimable_field, 0)))
