"""Report of benchmark results: `python -m benchmarks.report RESULTS` writes a table
and plots beside the results, `--docs` renews the page in docs/ with them.

On the page a result stays until its benchmark is measured again: figures of a graphics card are
measured elsewhere, and at another time, than those of a processor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from . import ROOT

PAGE = ROOT / "docs" / "performance.md"
KEPT = ROOT / "docs" / "performance" / "results.jsonl"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

Line = Mapping[str, Any]
"""A line of results; see ``__main__.record``."""


def read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def merged(old: Sequence[Line], new: Sequence[Line]) -> list[Line]:
    """``old`` results replaced by ``new`` ones. A missing figure replaces only another missing
    one."""
    found = {line["benchmark"]: line for line in old}
    for line in new:
        before = found.get(line["benchmark"])
        if before is None or line["kind"] != "missing" or before["kind"] == "missing":
            found[line["benchmark"]] = line
    order = list(dict.fromkeys(line["benchmark"] for line in (*new, *old)))
    return [found[key] for key in order]


def tables(lines: Iterable[Line]) -> str:
    """Markdown: a table for each machine, and what was not measured."""
    measured = [line for line in lines if line["kind"] != "missing"]
    parts = []
    for machine, rows in groupby(sorted(measured, key=_machine), key=_machine):
        parts.append(
            f"**{machine}**\n\n"
            "| what | measured | wanted | ours | theirs | |\n|---|---|---|---|---|---|\n"
            + "\n".join(map(_row, rows))
        )
    missing = [line for line in lines if line["kind"] == "missing"]
    for why, rows in groupby(missing, key=lambda line: line["why"]):
        listed = "\n".join(f"- {line['name']}{_goal(line)}" for line in rows)
        parts.append(f"**Not measured**, for {why} here:\n\n{listed}")
    return "\n\n".join(parts)


def _machine(line: Line) -> str:
    told = line["machine"]
    threads = f"{told['threads']} thread" + ("s" if told["threads"] > 1 else "")
    card = told["card"] or "no graphics card"
    versions = f"torch {told['torch']}, transformers {told['transformers']}"
    return f"{told['processor']}, {threads}, {card}; {versions}"


def _row(line: Line) -> str:
    if line["kind"] == "growth":
        first, *_, last = zip(line["sizes"], line["seconds"], strict=True)
        note = ", ".join(f"{_seconds(s)} at {size:,}" for size, s in (first, last))
        note += f" {line['of']}"
        cells = [line["name"], f"exponent **{line['exponent']:.2f}**", _verdict(line), "", "", note]
    else:
        low, high = line["spread"]
        ratio = f"**{_ratio(line['ratio'])}** ({_ratio(low)}–{_ratio(high)})"
        times = [_seconds(line["ours"]), _seconds(line["theirs"])]
        cells = [line["name"], ratio, _verdict(line), *times, line["note"]]
    return f"| {' | '.join(cells)} |"


def reached(line: Line) -> bool:
    """Whether a line with a ``wanted`` figure reached it."""
    if line["kind"] == "growth":
        return line["exponent"] <= line["wanted"]
    return line["ratio"] >= line["wanted"]


def _verdict(line: Line) -> str:
    return "" if line["wanted"] is None else f"{_limit(line)} {'✓' if reached(line) else '✗'}"


def _goal(line: Line) -> str:
    return "" if line["wanted"] is None else f" (wanted: {_limit(line)})"


def _limit(line: Line) -> str:
    at_most = line["kind"] == "growth" or line.get("at_most")
    return f"≤ {line['wanted']:g}" if at_most else f"≥ {line['wanted']:g}×"


def _ratio(value: float) -> str:
    return f"{value:.0f}×" if value >= 20 else f"{value:.2f}×"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def page(text: str, lines: Iterable[Line]) -> str:
    """The page ``text`` with tables of ``lines`` between its markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables(lines)}\n\n{END}{after}"


def plots(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Writes ``ratios.svg`` and ``growth.svg``, each if it has something to show."""
    made = []
    if ratios := [line for line in lines if line["kind"] == "ratio"]:
        made.append(_saved(_bars(ratios), folder / "ratios.svg"))
    if growths := [line for line in lines if line["kind"] == "growth"]:
        made.append(_saved(_powers(growths), folder / "growth.svg"))
    return made


def _figure(columns: int, width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    # The same results make the same file, with text that can be searched.
    matplotlib.rcParams.update({"svg.hashsalt": "qwen-vl", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), squeeze=False)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3, which="major")
        axis.set_axisbelow(True)
    return figure, axes[0]


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, facecolor="white", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    # matplotlib ends lines with blanks.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
    return path


def _bars(lines: Sequence[Line]) -> Any:
    """Ratios as bars with their spread, and a stroke at the wanted ratio."""
    figure, (axis,) = _figure(1, 10, 1 + 0.42 * len(lines))
    for y, line in enumerate(lines):
        ratio, (low, high) = line["ratio"], line["spread"]
        wanted = line["wanted"]
        colour = "#9a9a9a" if wanted is None else "#3a76af" if reached(line) else "#c5523f"
        axis.barh(y, ratio - 1, left=1, color=colour, height=0.6)
        axis.plot([low, high], [y, y], color="black", linewidth=1.2)
        if wanted is not None:
            axis.plot([wanted] * 2, [y - 0.42, y + 0.42], color="black", linewidth=2.5)
        end = max(ratio, high, wanted or 0, 1)
        axis.text(end * 1.06, y, _ratio(ratio), va="center", fontsize=9)
    axis.set_yticks(range(len(lines)), [line["name"] for line in lines], fontsize=9)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [t * 10.0**power for power in range(-3, 4) for t in (1, 2, 5)]
    axis.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(low, high * 1.1)
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xlabel(
        "times as fast; thin: spread, thick: wanted, grey: for information",
        fontsize=9,
    )
    return figure


def _powers(lines: Sequence[Line]) -> Any:
    """Costs by size on logarithmic axes, where a power law is a line and its exponent the slope."""
    kinds = list(dict.fromkeys(line["of"] for line in lines))
    figure, axes = _figure(len(kinds), 5.2 * len(kinds), 4.2)
    for axis, kind in zip(axes, kinds, strict=True):
        for line in (line for line in lines if line["of"] == kind):
            sizes, seconds = line["sizes"], line["seconds"]
            label = f"{line['name']}: {line['exponent']:.2f}"
            (drawn,) = axis.loglog(sizes, seconds, "o-", label=label)
            even = [seconds[-1] * size / sizes[-1] for size in sizes]
            axis.loglog(sizes, even, ":", color=drawn.get_color(), linewidth=1)
        axis.set_xlabel(f"{kind} (dotted: exponent 1)", fontsize=9)
        axis.set_ylabel("seconds", fontsize=9)
        axis.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=KEPT, metavar="RESULTS")
    parser.add_argument("--docs", action="store_true", help="renew docs/performance.md")
    options = parser.parse_args()
    lines = read(options.results)
    if options.docs:
        lines = merged(read(KEPT) if KEPT.is_file() else [], lines)
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines), "utf-8")
        PAGE.write_text(page(PAGE.read_text("utf-8"), lines), "utf-8")
        written = [PAGE, *plots(lines, KEPT.parent)]
    else:
        table = options.results.with_name("report.md")
        pictures = plots(lines, table.parent)
        shown = "".join(f"\n![]({picture.name})\n" for picture in pictures)
        table.write_text(f"{tables(lines)}\n{shown}", "utf-8")
        written = [table, *pictures]
    print("\n".join(map(str, written)))


if __name__ == "__main__":
    main()
