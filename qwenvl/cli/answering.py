"""Questions about images one by one, and what all commands that ask a model share."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends.base import Backend
from ..errors import BadImage, BadOption
from ..media.documents import Resolution
from ..media.pixel_bounds import with_longest_side
from ..query import Method, Query
from ..types import Result, Task
from ..unicode import well_formed
from .inputs import Input, expanded
from .model_options import spec_of
from .output import as_row, print_error, print_json, print_notes, print_result
from .portions import Portion, read_portions
from .results import OrderedResults
from .writing import DocumentWriter

if TYPE_CHECKING:
    from torch import Tensor

SAMPLING_OPTIONS = (
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
"""Options that override single fields of the model's own ``Sampling``."""

PAGE_SIDE = 1288
"""Longest side in pixels that pages of PDFs are rendered with by default, where the task has none:
what olmOCR was trained on. Pages of 300 dpi make these models repeat themselves."""


def read_text(path: str) -> str:
    """A file that an option names. Raises ``BadOption``."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} cannot be read: {error}") from error


def answer(
    options: argparse.Namespace,
    task: Task,
    method: Method | None = None,
    more: Callable[[Result], Mapping[str, Any]] = lambda result: {},
) -> int:
    """Asks about all images, a portion at a time; one that fails costs only its own answer.
    ``method``: see ``Query``; ``more``: what ``--json`` tells of a result besides. Returns the exit
    status."""
    from ..model_cache import CACHE

    inputs, resolution = expanded(options.images, options.pages or ""), resolution_of(options, task)
    check_page_options(options, inputs)
    several = len(inputs) > 1
    held: Portion = {}  # the pictures that are asked about now
    writer = _writer(options, inputs)

    def show(number: int, result: Result) -> None:
        found = inputs[number]
        _show(found, result, options, several, more(result))
        if writer:
            writer.add(found, held[number], result)

    results = OrderedResults(len(inputs), show)
    with (
        results.told(),
        closing(writer) if writer else nullcontext(),
        CACHE.lease(spec_of(options)) as backend,
        closing(read_portions(inputs, resolution)) as portions,
    ):
        fields = query_fields(options, backend, task)
        fields["logprobs"] = getattr(options, "logprobs", False)

        def query(image: Tensor | BadImage) -> Query:
            bounds = {} if isinstance(image, BadImage) else _bounds(options, backend, task, image)
            return Query(task, image, method=method, **{**fields, **bounds})

        def queries(portion: Portion) -> dict[int, Query]:
            held.clear()
            held.update(portion)
            return {number: query(image) for number, image in portion.items()}

        results.ask(backend, map(queries, portions))
    return results.exit_status()


def query_fields(
    options: argparse.Namespace, backend: Backend, task: Task, text_only: bool = False
) -> dict[str, Any]:
    """Fields of a ``Query`` of ``task`` as the options of every asking command set them; an
    unreadable reply is kept, and so is what can be read of several (tiles, regions). ``text_only``:
    nothing is shown to the model."""
    from .. import run

    effort = options.reasoning_effort
    own = run.sampling_for(backend, task, options.thinking, text_only, effort)
    given = {name: getattr(options, name) for name in SAMPLING_OPTIONS}
    set_ones = {name: value for name, value in given.items() if value is not None}
    return {
        "system": options.system,
        "sampling": dataclasses.replace(own, **set_ones),
        "min_pixels": getattr(options, "min_pixels", None) or None,  # sounds have no pixels
        "max_pixels": getattr(options, "max_pixels", None) or None,
        "thinking": options.thinking,
        "reasoning_effort": effort,
        "keep_unreadable": True,
    }


def _writer(options: argparse.Namespace, inputs: Sequence[Input]) -> DocumentWriter | None:
    """What writes the documents of the ocr command, where it is to write any."""
    folder = getattr(options, "out", None)
    return DocumentWriter(folder, options.output, inputs, options.csv) if folder else None


def resolution_of(options: argparse.Namespace, task: Task | None = None) -> Resolution:
    """Of pages of PDFs."""
    if options.dpi is None and options.longest_side is None:
        return Resolution((task.longest_side if task else 0) or PAGE_SIDE)
    return Resolution(options.longest_side, options.dpi)


def check_page_options(options: argparse.Namespace, inputs: Sequence[Input]) -> None:
    """Raises ``BadOption`` for options about pages where no input has any."""
    if any(found.page or found.error for found in inputs):
        return
    for name in ("pages", "dpi", "longest_side"):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise BadOption(f"{option} is about PDF documents, and none is given.")


def _bounds(
    options: argparse.Namespace, backend: Backend, task: Task, image: Tensor
) -> dict[str, int | None]:
    """Fields of a ``Query`` about ``image``: what its sides come to, where the task bounds them."""
    min_pixels, max_pixels = with_longest_side(
        (options.min_pixels or None, options.max_pixels or None),
        image.shape[-2:],
        0 if options.max_pixels else task.longest_side,
        token_pixels=backend.family.patch_factor**2,
        own_max=backend.max_pixels,
    )
    return {"min_pixels": min_pixels, "max_pixels": max_pixels}


def _show(
    found: Input,
    result: Result,
    options: argparse.Namespace,
    several: bool,
    more: Mapping[str, Any],
) -> None:
    """Prints a result; with ``--json`` also ``more``."""
    path, name = well_formed(found.path), well_formed(found.name)
    print_notes(result.notes, name)
    if result.error:
        print_error(result.error, name, path)
    if options.json:
        row: dict[str, Any] = {"image": path}
        if found.page is not None:
            row["page"] = found.page
        print_json({**row, **as_row(result, more)})
    elif not result.error and getattr(options, "out", None) is None:
        print_result(f"{name}:\n{result.text}\n" if several else result.text)
