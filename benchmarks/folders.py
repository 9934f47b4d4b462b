"""Folders: how fast and in how much memory they are captioned.

``folder`` of the plan compares with the same pictures as one batch in memory, ``stream`` with one
lot after another. The growth of memory takes thousands of pictures, and is a command of its own:
``python -m benchmarks.folders --json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import figures, load_pack
from .figures import Figure, compare
from .models import Model


class Ending:
    """A model whose answers count as ended by itself where its limit of tokens cut them: random
    weights never end one, and an answer that was cut is no caption."""

    def __init__(self, backend: Any):
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def generate(self, requests: Sequence[Any], observer: Any = None) -> list[Any]:
        found = self._backend.generate(requests, _telling(observer))
        return [_ended(response) for response in found]

    def generate_from(self, source: Any, observer: Any) -> None:
        self._backend.generate_from(source, _telling(observer))


def _telling(observer: Any) -> Any:
    from qwen_vl_suite.qwenvl.observer import Observer, Relay

    class Telling(Relay):
        def done(self, index: int, response: Any) -> None:
            super().done(index, _ended(response))

    return Telling(observer or Observer())


def _ended(response: Any) -> Any:
    """Letters alone are sure to be neither empty nor a refusal nor anything else but a caption."""
    text = f"caption of {' '.join(map(str, response.ids))}"
    return dataclasses.replace(response, text=text, finish_reason="stop")


def folder(
    name: str, wanted: float | None, model: Model, pictures: int, side: int, tokens: int
) -> Figure:
    """A folder of PNG files to text files, against the same pictures, decoded before, as one
    batch."""
    from qwen_vl_suite.qwenvl import run
    from qwen_vl_suite.qwenvl.folders import Asking, Job, caption_folder
    from qwen_vl_suite.qwenvl.media import images
    from qwen_vl_suite.qwenvl.tasks.describe import describe

    from .speed import picture

    root = tempfile.TemporaryDirectory(prefix="qwenvl-folder-")
    paths = [Path(root.name) / f"{number:05}.png" for number in range(pictures)]

    def made(number: int) -> Any:
        images.write_png(picture(side, number), paths[number])
        return images.read(paths[number])

    with ThreadPoolExecutor() as pool:
        held = list(pool.map(made, range(pictures)))
    asking = Asking(describe("training"), sampling={"max_new_tokens": tokens, "temperature": 0.0})
    backend = Ending(model.backend)

    def ours() -> list[list[str]]:
        model.backend.prefix_cache.clear()  # every picture is new
        for path in paths:
            path.with_suffix(".txt").unlink(missing_ok=True)
        caption_folder(backend, Job(Path(root.name), asking))
        return [path.with_suffix(".txt").read_text("utf-8").split() for path in paths]

    def theirs() -> list[list[str]]:
        model.backend.prefix_cache.clear()
        queries = [asking.query(backend, one, False) for one in held]
        return [result.text.split() for result in run.answer_all(backend, queries)]

    with root:
        return compare(
            name,
            ours,
            theirs,
            wanted=wanted,
            repeats=2,
            note="listed, decoded, asked and written, against one batch in memory",
            agreement=None if model.exact else figures.agreement,
        )


def stream(
    name: str,
    wanted: float | None,
    model: Model,
    pictures: int,
    side: int,
    tokens: tuple[int, int],
    lot: int,
) -> Figure:
    """Pictures asked about as they come up, the next in the place of each that was answered,
    against one lot after another. Every eighth answer takes the second number of ``tokens``, the
    others the first."""
    from qwen_vl_suite.qwenvl import run
    from qwen_vl_suite.qwenvl.query import Query
    from qwen_vl_suite.qwenvl.stream import answer_stream
    from qwen_vl_suite.qwenvl.tasks.describe import describe
    from qwen_vl_suite.qwenvl.types import Sampling

    from .speed import picture

    few, many = (Sampling(count, temperature=0.0) for count in tokens)
    queries = [
        Query(describe("training"), picture(side, number), sampling=few if number % 8 else many)
        for number in range(pictures)
    ]
    lots = [queries[at : at + lot] for at in range(0, pictures, lot)]

    def ours() -> list[list[str]]:
        model.backend.prefix_cache.clear()
        found: dict[int, str] = {}
        left = iter(lots)
        answer_stream(
            model.backend,
            lambda wait: next(left, None),
            lambda number, result: found.update({number: result.text}),
        )
        return [found[number].split() for number in range(pictures)]

    def theirs() -> list[list[str]]:
        model.backend.prefix_cache.clear()
        found: list[str] = []
        for asked in lots:
            texts = dict.fromkeys(range(len(asked)), "")
            run.answer_each(
                model.backend,
                asked,
                lambda at, result, texts=texts: texts.update({at: result.text}),
            )
            found += texts.values()
        return [text.split() for text in found]

    return compare(
        name,
        ours,
        theirs,
        wanted=wanted,
        repeats=2,
        agreement=None if model.exact else figures.agreement,
    )


def memory(pictures: int, early: int, most: int | None = None, side: int = 256) -> dict[str, Any]:
    """Resident memory of the process, in bytes, when ``early`` pictures of a folder are captioned,
    and at its end: the most of 100 looks before each. What the model says is scripted. ``most``: so
    many are asked about at once, where that is not to be as usual."""
    import psutil
    from qwen_vl_suite.qwenvl.backends.scripted import ContinuousScriptedBackend
    from qwen_vl_suite.qwenvl.folders import Asking, Job, Reporter, Sizes, caption_folder
    from qwen_vl_suite.qwenvl.media import images
    from qwen_vl_suite.qwenvl.tasks.describe import describe

    from .speed import picture

    class Measuring(Reporter):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def captioned(self, item: Any, caption: str) -> None:
            self.seen.append(process.memory_info().rss)

    process, reporter = psutil.Process(), Measuring()
    backend: Any = ContinuousScriptedBackend("A caption.")
    backend.requests, backend.batches = deque(maxlen=0), deque(maxlen=0)  # it keeps none
    with tempfile.TemporaryDirectory(prefix="qwenvl-folder-") as name:
        one = Path(name) / "picture.png"
        images.write_png(picture(side, 0), one)
        for number in range(pictures):
            path = Path(name) / f"part-{number % 20:02}" / f"{number:06}.png"
            path.parent.mkdir(exist_ok=True)
            path.hardlink_to(one)
        one.unlink()
        sizes = Sizes(most, most) if most else Sizes()
        job = Job(Path(name), Asking(describe("training")), sizes=sizes)
        caption_folder(backend, job, reporter)
    assert len(reporter.seen) == pictures
    looks = min(100, early)
    first, last = (max(reporter.seen[at - looks : at]) for at in (early, pictures))
    return {
        "benchmark": "folder-memory",
        "pictures": [early, pictures],
        "bytes": [first, last],
        "growth": last / first - 1,
    }


def main() -> None:
    load_pack()
    from .figures import machine

    parser = argparse.ArgumentParser(prog="python -m benchmarks.folders", description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--early", type=int, default=1_000, help="when memory is looked at first")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = memory(options.pictures, options.early)
    if options.json:
        print(json.dumps({**found, "machine": machine()}))
        return
    first, last = (value / 1e6 for value in found["bytes"])
    growth = f"{100 * found['growth']:.1f} %"
    print(f"{first:.0f} MB at {options.early:,}, {last:.0f} MB at {options.pictures:,}: {growth}")


if __name__ == "__main__":
    main()
