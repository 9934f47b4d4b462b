"""`python -m benchmarks NAME --json`: one figure a line; without a name, all of them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from . import load_pack


def figures() -> dict[str, Callable[[], Any]]:
    from . import first_token, pixels, speed

    return {
        "batch": lambda: speed.batch("qwen3_vl"),
        "batch-linear": lambda: speed.batch("qwen3_5"),
        "second-question": lambda: speed.second_question("qwen3_vl"),
        "second-question-linear": lambda: speed.second_question("qwen3_5"),
        "three-tasks": lambda: speed.three_tasks("qwen3_vl"),
        "pixels": pixels.pixels,
        "pixels-growth": pixels.pixels_growth,
        "patch-embedding": pixels.patch_embedding,
        "batch-growth": speed.batch_growth,
        "picture-growth": speed.picture_growth,
        "first-token": lambda: {"cases": list(first_token.first_token())},
    }


def main() -> None:
    load_pack()
    known = figures()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    from .figures import machine

    if options.json:
        print(json.dumps({"machine": machine()}))
    for name in options.names or known:
        found = known[name]()
        shown = dataclasses.asdict(found) if dataclasses.is_dataclass(found) else found
        if options.json:
            print(json.dumps({"benchmark": name, **shown}), flush=True)
        else:
            print(found.line() if hasattr(found, "line") else f"{name}: {shown}", flush=True)


if __name__ == "__main__":
    main()
