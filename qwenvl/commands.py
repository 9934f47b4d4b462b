"""What each command of the command line does, given its parsed options."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from . import checkpoints
from .errors import BadOption
from .families import FAMILIES
from .receipts import Receipt
from .shards import readable_size
from .types import Family, ModelSpec, Result, Seen, Size, Task

DEMO = "demo"
"""Names the bundled model."""

DEFAULT_ROOT = "models/LLM"
SAMPLED = (
    "max_new_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "seed",
    "max_thinking_tokens",
)
"""Options that change single fields of the model's own ``Sampling``."""


def describe(options: argparse.Namespace) -> int:
    from .tasks import describe as task

    return _answer(options, task.describe(options.style, options.prompt))


def ocr(options: argparse.Namespace) -> int:
    from .tasks import ocr as task

    return _answer(options, task.ocr(options.output, options.language))


def ground(options: argparse.Namespace) -> int:
    from .tasks import ground as task

    return _answer(options, task.ground(options.find, options.kind, options.max_count))


def _answer(options: argparse.Namespace, task: Task) -> int:
    """All pictures in one run; what could be read is printed even if some could not."""
    from . import images, run
    from .cache import CACHE

    pictures = [images.read(path) for path in options.images]
    given = {name: getattr(options, name) for name in SAMPLED}
    given = {name: value for name, value in given.items() if value is not None}
    with CACHE.lease(_spec(options)) as backend:
        own = run.sampling_for(backend, task, options.thinking)
        results = run.answer(
            backend,
            task,
            pictures,
            system=options.system,
            sampling=dataclasses.replace(own, **given),
            min_pixels=options.min_pixels or None,
            max_pixels=options.max_pixels or None,
            thinking=options.thinking,
            keep_unreadable=True,
        )
    for path, result in zip(options.images, results, strict=True):
        _show(path, result, options)
    return 3 if any(result.error for result in results) else 0


def _spec(options: argparse.Namespace) -> ModelSpec:
    return ModelSpec(
        str(checkpoints.BUNDLED) if options.model == DEMO else options.model,
        precision=options.precision,
        quantization=options.quantization,
        attention=options.attention,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
    )


def _show(path: str, result: Result, options: argparse.Namespace) -> None:
    if result.finish_reason != "stop":
        print(f"{path}: the reply ended early ({result.finish_reason})", file=sys.stderr)
    if result.error:
        print(f"{path}: {result.error}", file=sys.stderr)
    if options.json:
        row: dict[str, Any] = {"image": path, **as_json(result)}
        row |= {"data": result.data, "thinking": result.thinking}
        row["finish_reason"] = result.finish_reason
        if result.error:
            row["error"] = result.error
        _print_json(row)
    elif not result.error:
        print(f"{path}:\n{result.text}\n" if len(options.images) > 1 else result.text)


def as_json(result: Result) -> dict[str, Any]:
    """``boxes`` and ``points`` in pixels of the original picture, and ``text``. ``score`` is null
    unless one was computed."""
    return {
        "boxes": [
            {
                "x": box.x1,
                "y": box.y1,
                "width": box.x2 - box.x1,
                "height": box.y2 - box.y1,
                "label": box.label,
                "score": box.score,
            }
            for box in result.boxes
        ],
        "points": [{"x": point.x, "y": point.y, "label": point.label} for point in result.points],
        "text": result.text,
    }


def _print_json(row: Mapping[str, Any]) -> None:
    print(json.dumps(row, ensure_ascii=False))


def models(options: argparse.Namespace) -> None:
    bundled = dataclasses.replace(checkpoints.inspect(checkpoints.BUNDLED), name=DEMO)
    found = [bundled, *checkpoints.scan(options.root or [DEFAULT_ROOT])]
    for item in found:
        family = item.family.model_type if item.family else None
        row = {
            "name": item.name,
            "path": str(item.path),
            "family": family,
            "nbytes": item.nbytes,
            "problem": item.problem,
            "missing": list(item.missing),
        }
        if options.json:
            _print_json(row)
        else:
            size = readable_size(item.nbytes)
            print(f"{item.name}  {family or '?'}  {size}  {item.problem}".rstrip())
    if options.catalogue:
        for entry in checkpoints.CATALOGUE.values():
            if options.json:
                _print_json(dataclasses.asdict(entry))
            else:
                print(f"{entry.repo_id}  {entry.model_type}  {readable_size(entry.nbytes)}")


def download(options: argparse.Namespace) -> None:
    folder = checkpoints.download(
        options.repo,
        options.root,
        source=options.source,
        endpoint=options.endpoint,
        revision=options.revision,
        progress=_Progress(),
        trust_remote_code=options.trust_remote_code,
        verify=options.verify,
    )
    if options.json:
        _print_json({"path": str(folder), "revision": Receipt.read(folder).revision})
    else:
        print(folder)


class _Progress:
    """A line on stderr every few seconds, so that a log file stays readable too."""

    def __init__(self, seconds: float = 2.0):
        self._seconds, self._next = seconds, 0.0

    def __call__(self, done: int, total: int, file: str) -> None:
        if time.monotonic() < self._next and done < total:
            return
        self._next = time.monotonic() + self._seconds
        print(f"{readable_size(done)} of {readable_size(total)}  {file}", file=sys.stderr)


def parse(options: argparse.Namespace) -> None:
    from .tasks import ground as finding
    from .tasks import ocr as reading

    family, size = _family(options.family), options.image_size
    seen = Seen(family, size, options.input_size or _default_input(family, size))
    reply = sys.stdin.read()
    if options.task == "ocr":
        result = reading.read_any(reply, seen)
    else:
        result = finding.read(reply, seen, kind=options.task)
    _print_json(as_json(result))


def _family(name: str) -> Family:
    """By ``model_type`` or title, in any spelling of either."""
    wanted = _plain(name)
    for family in FAMILIES.values():
        if wanted in (_plain(family.model_type), _plain(family.title)):
            return family
    raise BadOption(f"Unknown family {name!r}: choose one of {', '.join(FAMILIES)}.")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _default_input(family: Family, image_size: Size) -> Size:
    """What the family's processor makes of such a picture where nobody bounds it further: 4 to
    16,384 tokens, as the checkpoints on the hubs say. Relative families do not need it."""
    if family.coordinates == "relative":
        return image_size
    from .images import target_size

    token = family.patch_factor**2
    return target_size(*image_size, family.patch_factor, 4 * token, 16384 * token)
