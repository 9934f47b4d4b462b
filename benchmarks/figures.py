"""Two ways to the same result, timed in turns in one process."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """``ours`` and ``theirs``: median seconds. ``spread``: of the ratio, from the slowest pair to
    the fastest. ``wanted``: the ratio to reach."""

    name: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]
    wanted: float
    note: str = ""

    def line(self) -> str:
        low, high = self.spread
        return (
            f"{self.name}: {self.ratio:.2f}x ({low:.2f}-{high:.2f}, wanted {self.wanted:g}x); "
            f"ours {self.ours:.3f} s, theirs {self.theirs:.3f} s. {self.note}"
        ).rstrip()


def compare(
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    wanted: float,
    repeats: int = 5,
    note: str = "",
) -> Figure:
    """Raises ``AssertionError`` where the two do not give the same: a ratio means nothing then.
    The first turn of each is not counted."""
    mine, others = ours(), theirs()
    assert mine == others, f"{name}: {mine!r} is not {others!r}"
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(repeats)]
    ratios = [slow / quick for quick, slow in pairs]
    quick, slow = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure(name, quick, slow, slow / quick, (min(ratios), max(ratios)), wanted, note)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    import torch
    import transformers

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "card": card,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
