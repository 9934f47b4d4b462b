"""Crash test: runs over a folder that are killed at random times, and gone on with.

``python tests/engine/folders/kill_runs.py`` kills 50 runs over 500 pictures (minutes), in each way
that captions are written; ``--kills 4 --pictures 40`` is the short form of the tests. It needs
``os.fork``: each run is a process that has all imports done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    ENGINE = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(ENGINE.parent), str(ENGINE)]
    import conftest  # noqa: F401  (loads the pack under its name)

from caption_folders import Told, job, picture
from qwen_vl_suite.qwenvl.backends.scripted import ContinuousScriptedBackend
from qwen_vl_suite.qwenvl.folders import caption_folder

WAYS: dict[str, dict[str, Any]] = {
    "skip": {},
    "overwrite": {"existing": "overwrite"},
    "append": {"existing": "append"},
    "table": {"trainer": "diffusers"},
}


class Slow(Told):
    """Takes its time, so that a kill meets each part of the work."""

    def captioned(self, item, caption):
        time.sleep(0.001)


def reply(request: Any) -> str:
    """Of each picture another, from its colour."""
    red, green, _ = (int(request.images[0][channel, 0, 0]) for channel in range(3))
    return f"number {red + 256 * green}."


def run(folder: Path, way: str) -> None:
    caption_folder(ContinuousScriptedBackend(reply), job(folder, **WAYS[way]), Slow())


def killed(folder: Path, way: str, seconds: float) -> bool:
    """Whether a run was killed after so long; else it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            run(folder, way)
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "a run failed by itself"
    return os.WIFSIGNALED(status)


def faults(folder: Path, count: int, way: str) -> list[str]:
    """What is wrong with the captions of ``count`` pictures."""
    found: Counter[tuple[str, str]] = Counter()
    if way == "table":
        for line in (folder / "metadata.jsonl").read_text().splitlines():
            row = json.loads(line)
            found[row["file_name"], row["text"]] += 1
    else:
        for path in folder.rglob("*.txt"):
            found[path.with_suffix(".png").relative_to(folder).as_posix(), path.read_text()] += 1
    before = "old, " if way == "append" else ""
    end = "" if way == "table" else "\n"
    wanted = {(name_of(number), f"{before}number {number}.{end}"): 1 for number in range(count)}
    told = [f"missing: {pair}" for pair in wanted.keys() - found.keys()]
    told += [f"wrong: {pair}" for pair in found.keys() - wanted.keys()]
    told += [f"{times} times: {pair}" for pair, times in found.items() if times > 1]
    allowed = (".png", ".txt", ".lock", ".bak", "metadata.jsonl")
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    return told + [f"left: {name}" for name in names if not name.endswith(allowed)]


def name_of(number: int) -> str:
    return f"{number % 3}_part/{number:05}.png"


def trial(way: str, count: int, kills: int, seed: int) -> str:
    """Kills runs of one way; returns what came of it. Raises ``AssertionError``."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(count):
            path = picture(folder / name_of(number), (number % 256, number // 256, 0), (8, 8))
            if way in ("overwrite", "append"):
                path.with_suffix(".txt").write_text("old")
        done, longest = 0, 0.03 + 0.004 * count / max(1, kills)
        while done < kills and killed(folder, way, chance.uniform(0.005, longest)):
            done += 1
        run(folder, way)
        if way == "append":  # one that came to its end is not gone on with
            assert not list((folder / ".qwenvl-captions").glob("*.journal"))
        wrong = faults(folder, count, way)
    assert not wrong, f"{way}: {len(wrong)} faults after {done} kills: {wrong[:5]}"
    return f"{way}: {count} pictures, {done} of {kills} runs killed, each captioned once"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trial("skip", 1, 0, options.seed)  # all imports are done here, and not in each run
    for way in WAYS:
        print(trial(way, options.pictures, options.kills, options.seed), flush=True)


if __name__ == "__main__":
    main()
