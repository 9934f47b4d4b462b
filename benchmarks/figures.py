"""Figures: ratios of two ways to the same result, run in turns, and how costs grow."""

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
    """A ratio. ``ours`` and ``theirs``: median seconds; ``spread``: lowest and highest ratio of a
    single pair of turns; ``wanted``: the ratio to reach, None where the figure only informs."""

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
    """Growth of a cost: ``seconds`` by ``sizes``, which count ``of``. ``exponent``: of the power
    law through them, 1 where twice the size costs twice as much; ``wanted``: the largest acceptable
    exponent, None where the figure only informs."""

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
    """A figure that could not be measured, and ``why``. ``at_most``: ``wanted`` is an upper limit,
    as of a ``Growth``."""

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
    scale: float = 1,
    note: str = "",
    agreement: Callable[[Any, Any], str] | None = None,
    warm_up: Callable[[], Any] | None = None,
) -> Figure:
    """Times ``ours`` against ``theirs``, in turns.

    Raises ``AssertionError`` where their results differ: a ratio means nothing then. Where they
    cannot be equal, ``agreement`` describes how far they are, for the figure's note. The first turn
    is not counted, unless there is a ``warm_up``, which is shorter for what takes long. ``scale``:
    how often what ``theirs`` does would have to be done to do what ``ours`` does.
    """
    if warm_up:
        warm_up()
    turns = [_turn(ours, theirs)]
    mine, others = turns[0][1]
    if agreement is None:
        assert mine == others, f"{name}: {mine!r} is not {others!r}"
    else:
        note = f"{note}; {agreement(mine, others)}"
    turns += [_turn(ours, theirs) for _ in range(repeats - bool(warm_up))]
    pairs = [(mine, others * scale) for (mine, others), _ in turns]
    return figure(name, pairs if warm_up else pairs[1:], wanted, note)


def _turn(
    ours: Callable[[], Any], theirs: Callable[[], Any]
) -> tuple[tuple[float, float], tuple[Any, Any]]:
    """The seconds of both, and their results."""
    start = time.perf_counter()
    mine = ours()
    between = time.perf_counter()
    others = theirs()
    return (between - start, time.perf_counter() - between), (mine, others)


def figure(
    name: str, pairs: Sequence[tuple[float, float]], wanted: float | None, note: str
) -> Figure:
    """A figure from the seconds of ours and theirs, a pair for each turn."""
    ratios = [theirs / ours for ours, theirs in pairs]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure(name, ours, theirs, theirs / ours, (min(ratios), max(ratios)), wanted, note)


def measure_growth(
    name: str,
    wanted: float | None,
    of: str,
    sizes: Sequence[float],
    work: Callable[[int], Any],
    repeats: int = 3,
) -> Growth:
    """Times ``work(i)`` for each of ``sizes``: the minimum of several runs, in turns."""
    times = [[_seconds(lambda i=i: work(i)) for i in range(len(sizes))] for _ in range(repeats)]
    seconds = [min(of_size) for of_size in zip(*times, strict=True)]
    return Growth(name, of, sizes, seconds, exponent(sizes, seconds), wanted)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent of a power law through the points, by least squares of the logarithms."""
    xs, ys = [math.log(x) for x in sizes], [math.log(y) for y in seconds]
    mx, my = statistics.mean(xs), statistics.mean(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - mx) ** 2 for x in xs
    )


def agreement(mine: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> str:
    """How much of two sets of answers is equal, counted in tokens before the first difference:
    after it the two continue different texts."""
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
    """The processor's name, which Python knows on some systems only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
