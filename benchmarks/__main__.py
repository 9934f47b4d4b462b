"""Runs benchmarks: `python -m benchmarks NAME --json`, one figure a line; without a name, all."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from . import load_pack


def main() -> None:
    load_pack()
    from .plan import plan

    known = plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--json", action="store_true", help="JSON lines instead of words")
    parser.add_argument("--save", type=Path, metavar="FILE", help="JSON lines to a file as well")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failures = []
    with contextlib.ExitStack() as stack:
        if options.save:
            options.save.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(options.save.open("w", encoding="utf-8"))
        for key in options.names or known:
            try:
                found = measured(known[key])
            except Exception as error:  # the others are still measured
                traceback.print_exc()
                failures.append(f"{key}: {type(error).__name__}: {error}")
                continue
            line = json.dumps(record(key, found), ensure_ascii=False)
            print(line if options.json else found.line(), flush=True)
            if options.save:
                print(line, file=file, flush=True)
    if failures:
        sys.exit("\n".join(["No figure, for an error or unequal results:", *failures]))


def measured(benchmark: Any) -> Any:
    from .figures import Missing

    if benchmark.obstacle:
        told = (benchmark.name, benchmark.wanted, benchmark.at_most)
        return Missing(*told, benchmark.obstacle)
    return benchmark.run(benchmark.name, benchmark.wanted)


def record(key: str, found: Any) -> dict[str, Any]:
    """A line of the results file."""
    from .figures import KINDS, machine

    kind = next(kind for kind, cls in KINDS.items() if isinstance(found, cls))
    return {
        "benchmark": key,
        "kind": kind,
        **dataclasses.asdict(found),
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
