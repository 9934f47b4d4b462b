"""What is measured: two ways to the same result in turns in one process, and how costs grow."""

from __future__ import annotations

import dataclasses
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Figure:
    """``ours`` and ``theirs``: median seconds. ``spread``: of the ratio, from the slowest pair to
    the fastest. ``wanted``: the ratio to reach; None where a figure only informs."""

    name: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]
    wanted: float | None
    note: str = ""

    def line(self) -> str:
        low, high = self.spread
        wanted = "" if self.wanted is None else f", wanted {self.wanted:g}x"
        return (
            f"{self.name}: {self.ratio:.2f}x ({low:.2f}-{high:.2f}{wanted}); "
            f"ours {self.ours:.3f} s, theirs {self.theirs:.3f} s. {self.note}"
        ).rstrip()


@dataclasses.dataclass(frozen=True)
class Growth:
    """``seconds`` for each of ``sizes``, which are numbers of ``of``. ``exponent``: of the power
    law through them, 1 where twice as much costs twice as much. ``wanted``: the largest exponent
    that will do; None where it only informs."""

    name: str
    of: str
    sizes: Sequence[float]
    seconds: Sequence[float]
    exponent: float
    wanted: float | None

    def line(self) -> str:
        each = ", ".join(
            f"{size:g}: {s:.3f} s" for size, s in zip(self.sizes, self.seconds, strict=True)
        )
        wanted = "" if self.wanted is None else f" (wanted {self.wanted:g})"
        return f"{self.name}: exponent {self.exponent:.2f}{wanted}; {each}"


@dataclasses.dataclass(frozen=True)
class Missing:
    """Something that could not be measured, and ``why``. ``at_most``: as of a ``Growth``, less
    than what is ``wanted`` would be better."""

    name: str
    wanted: float | None
    at_most: bool
    why: str

    def line(self) -> str:
        return f"{self.name}: not measured here, {self.why}"


KINDS: dict[str, type[Any]] = {"ratio": Figure, "growth": Growth, "missing": Missing}


def compare(
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    *,
    wanted: float | None,
    repeats: int = 5,
    note: str = "",
    alike: Callable[[Any, Any], str] | None = None,
    warm_up: Callable[[], Any] | None = None,
) -> Figure:
    """Raises ``AssertionError`` where the two do not give the same: a ratio means nothing then.
    ``alike``: for ways that cannot give the same; tells how far they do, and the figure's note
    says it. The first turn of each is not counted, unless a ``warm_up`` came before: for what
    takes long, of which a little warms as well."""
    if warm_up:
        warm_up()
    turns = [_turn(ours, theirs)]
    mine, others = turns[0][1]
    if alike is None:
        assert mine == others, f"{name}: {mine!r} is not {others!r}"
    else:
        note = f"{note}; {alike(mine, others)}"
    turns += [_turn(ours, theirs) for _ in range(repeats - bool(warm_up))]
    pairs = [seconds for seconds, _ in turns]
    return figure(name, pairs if warm_up else pairs[1:], wanted, note)


def _turn(
    ours: Callable[[], Any], theirs: Callable[[], Any]
) -> tuple[tuple[float, float], tuple[Any, Any]]:
    """Seconds of both, and results of both."""
    start = time.perf_counter()
    mine = ours()
    between = time.perf_counter()
    others = theirs()
    return (between - start, time.perf_counter() - between), (mine, others)


def figure(
    name: str, pairs: Sequence[tuple[float, float]], wanted: float | None, note: str
) -> Figure:
    """From seconds of ours and of theirs, a pair for each turn."""
    ratios = [slow / quick for quick, slow in pairs]
    quick, slow = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure(name, quick, slow, slow / quick, (min(ratios), max(ratios)), wanted, note)


def grown(
    name: str,
    wanted: float | None,
    of: str,
    sizes: Sequence[float],
    work: Callable[[int], Any],
    repeats: int = 3,
) -> Growth:
    """What ``work(i)`` costs for each of ``sizes``: the least of several times, in turns."""
    times = [[_seconds(lambda i=i: work(i)) for i in range(len(sizes))] for _ in range(repeats)]
    seconds = [min(of_size) for of_size in zip(*times, strict=True)]
    return Growth(name, of, sizes, seconds, exponent(sizes, seconds), wanted)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Of a power law through the points, by least squares of the logarithms."""
    xs, ys = [math.log(x) for x in sizes], [math.log(y) for y in seconds]
    mx, my = statistics.mean(xs), statistics.mean(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - mx) ** 2 for x in xs
    )


def alike(mine: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> str:
    """How much of two sets of answers, token by token, is equal before the first difference:
    behind it the two are answers to different texts."""
    same = total = whole = 0
    for one, other in zip(mine, others, strict=True):
        ends = next(
            (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one)
        )
        same, total, whole = same + ends, total + len(one), whole + (list(one) == list(other))
    return (
        f"{whole} of {len(mine)} answers are equal, "
        f"{100 * same / total:.0f} % of the tokens come before a first difference"
    )


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    import torch
    import transformers

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "card": card,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    """The model's name, which Python tells on some systems only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
