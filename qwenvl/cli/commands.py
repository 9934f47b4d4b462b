"""What each command of the command line does, given its parsed options."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from ..backends.base import Backend
from ..checkpoints import inspection, library
from ..checkpoints.files import readable_size
from ..checkpoints.receipts import Receipt
from ..errors import BadImage, BadOption, QwenVLError
from ..families import FAMILIES
from ..types import Family, LocalSpec, ReplyContext, Result, Sampling, Size, Task
from ..unicode import well_formed
from .portions import InOrder, Portion, portions

DEMO = "demo"
"""Names the bundled model."""

DEFAULT_ROOT = "models/LLM"
SOME_FAILED, NOTHING, UNREADABLE = 1, 2, 3
"""Exit statuses of what did not go well; ``cli.EXIT_STATUS`` says when."""

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
    from ..tasks import describe as task

    return _answer(options, task.describe(options.style, options.prompt))


def ocr(options: argparse.Namespace) -> int:
    from ..tasks import ocr as task

    return _answer(options, task.ocr(options.output, options.language))


def ground(options: argparse.Namespace) -> int:
    from ..tasks import ground as task

    return _answer(options, task.ground(options.find, options.kind, options.max_count))


def _answer(options: argparse.Namespace, task: Task) -> int:
    """Asks about all pictures, a portion at a time; one that fails costs only its own answer.
    Gives the exit status."""
    from .. import run
    from ..model_cache import CACHE

    paths = options.images
    lines = InOrder(lambda number, result: _show(paths[number], result, options))
    try:
        with CACHE.lease(_spec(options)) as backend, closing(portions(paths)) as found:
            own = run.sampling_for(backend, task, options.thinking)
            given = {name: getattr(options, name) for name in SAMPLED}
            given = {name: value for name, value in given.items() if value is not None}
            sampling = dataclasses.replace(own, **given)
            for portion in found:
                asked = _ask(backend, task, portion, sampling, lines, options)
                if not (asked or lines.answered or lines.unreadable):
                    break  # none can be asked so, and the next ones will fare no better
    except QwenVLError as error:
        if not lines.answered:
            raise
        say(f"error: {error}")
    except BaseException:
        say(f"stopped after {lines.shown} of {len(paths)}")
        raise
    if lines.shown < len(paths):
        say(f"stopped after {lines.shown} of {len(paths)}")
    if lines.failed or lines.shown < len(paths):
        return SOME_FAILED if lines.answered or lines.unreadable else NOTHING
    return UNREADABLE if lines.unreadable else 0


def _ask(
    backend: Backend,
    task: Task,
    portion: Portion,
    sampling: Sampling,
    lines: InOrder,
    options: argparse.Namespace,
) -> bool:
    """Puts a result for each of ``portion`` into ``lines``. False where the model was not asked,
    since all it would have been asked is beyond it."""
    from .. import run

    asks = {}
    for number, picture in portion.items():
        if isinstance(picture, BadImage):
            lines.put(number, Result("", finish_reason="error", error=str(picture)))
        else:
            asks[number] = run.Ask(
                task,
                picture,
                system=options.system,
                sampling=sampling,
                min_pixels=options.min_pixels or None,
                max_pixels=options.max_pixels or None,
                thinking=options.thinking,
            )
    numbers = list(asks)
    try:
        run.answer_each(
            backend, list(asks.values()), lambda index, result: lines.put(numbers[index], result)
        )
    except (BadOption, BadImage) as error:
        for number in numbers:
            lines.put(number, Result("", finish_reason="error", error=str(error)))
        return False
    return True


def _spec(options: argparse.Namespace) -> LocalSpec:
    return LocalSpec(
        str(library.BUNDLED) if options.model == DEMO else options.model,
        precision=options.precision,
        quantization=options.quantization,
        attention=options.attention,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
    )


def _show(path: str, result: Result, options: argparse.Namespace) -> None:
    path = well_formed(path)
    for note in result.notes:
        say(f"note: {path}: {note}")
    if result.error:
        named = result.error if result.error.startswith(path) else f"{path}: {result.error}"
        say(f"error: {named}")
    if options.json:
        row = {"image": path, **as_json(result)}
        row |= {"thinking": result.thinking, "finish_reason": result.finish_reason}
        if result.error:
            row["error"] = result.error
        _print_json(row)
    elif not result.error:
        _print(f"{path}:\n{result.text}\n" if len(options.images) > 1 else result.text)


def as_json(result: Result) -> dict[str, Any]:
    """``boxes`` and ``points`` in pixels of the original picture, ``text``, ``data`` and ``notes``
    (see ``types.Result``). ``score`` is null unless one was computed."""
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
        "data": result.data,
        "notes": list(result.notes),
    }


def _print_json(row: Mapping[str, Any]) -> None:
    _print(json.dumps(row, ensure_ascii=False, allow_nan=False))


def _print(text: str) -> None:
    """To stdout at once, and in one piece, so that a stop leaves whole lines."""
    print(f"{text}\n", end="", flush=True)


def say(text: str) -> None:
    """To stderr, where there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr)


def models(options: argparse.Namespace) -> None:
    bundled = dataclasses.replace(inspection.inspect(library.BUNDLED), name=DEMO)
    found = [bundled, *inspection.scan(options.root or [DEFAULT_ROOT])]
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
            _print(f"{item.name}  {family or '?'}  {size}  {item.problem}".rstrip())
    if options.catalogue:
        for entry in library.CATALOGUE.values():
            if options.json:
                _print_json(dataclasses.asdict(entry))
            else:
                _print(f"{entry.repo_id}  {entry.model_type}  {readable_size(entry.nbytes)}")


def download(options: argparse.Namespace) -> None:
    try:
        folder = library.download(
            options.repo,
            options.root,
            source=options.source,
            endpoint=options.endpoint,
            revision=options.revision,
            progress=_Progress(),
            trust_remote_code=options.trust_remote_code,
            verify=options.verify,
        )
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        raise
    if options.json:
        _print_json({"path": str(folder), "revision": Receipt.read(folder).revision})
    else:
        _print(str(folder))


class _Progress:
    """A line on stderr every few seconds, so that a log file stays readable too."""

    def __init__(self, seconds: float = 2.0):
        self._seconds, self._next = seconds, 0.0

    def __call__(self, done: int, total: int, file: str) -> None:
        if time.monotonic() < self._next and done < total:
            return
        self._next = time.monotonic() + self._seconds
        say(f"{readable_size(done)} of {readable_size(total)}  {file}")


def parse(options: argparse.Namespace) -> None:
    from ..tasks import ground as finding
    from ..tasks import ocr as reading

    family, size = _family(options.family), options.image_size
    seen = ReplyContext(family, size, options.input_size or _default_input(family, size))
    if sys.stdin is None:
        raise BadOption("stdin is closed; the reply is read from there.")
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
    from ..media.images import target_size

    token = family.patch_factor**2
    return target_size(*image_size, family.patch_factor, 4 * token, 16384 * token)
