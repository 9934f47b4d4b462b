"""The describe command: about each image, or about all at once, such as the pages of a document."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

from ..backends.base import Backend
from ..errors import BadImage, BadOption
from ..query import Query
from ..styles import read_styles
from ..types import Result, Task
from ..unicode import well_formed
from .answering import answer, check_page_options, query_fields, resolution_of
from .inputs import Input, data_folders, expanded
from .model_options import spec_of
from .output import as_row, print_error, print_json, print_message, print_notes, print_result
from .portions import Portion, read_portions
from .results import OrderedResults

MOST_TOKENS = 1_000_000
"""Of all images that are asked about at once; these models were never shown more."""


def describe(options: argparse.Namespace) -> int:
    from ..tasks import choose
    from ..tasks import describe as task

    if options.choices:
        asked = choose.choose(options.choices, options.prompt)
    else:
        own = read_styles(data_folders("--styles-folder", options.styles_folder))
        asked = task.describe(options.style, options.prompt, own=own)
    return _answer_together(options, asked) if options.together else answer(options, asked)


def _answer_together(options: argparse.Namespace, task: Task) -> int:
    """Asks once about all images. Prints how many tokens they are before, and one result. Returns
    the exit status."""
    from ..model_cache import CACHE

    inputs, resolution = expanded(options.images, options.pages or ""), resolution_of(options, task)
    check_page_options(options, inputs)
    results = OrderedResults(1, lambda _, result: _show(inputs, result, options))
    with (
        results.told(),
        CACHE.lease(spec_of(options)) as backend,
        closing(read_portions(inputs, resolution)) as portions,
    ):
        try:
            query = _query_together(backend, task, portions, len(inputs), options)
        except (BadImage, BadOption) as error:
            results.fail(0, error)
        else:
            results.ask(backend, [{0: query}])
    return results.exit_status()


def _query_together(
    backend: Backend,
    task: Task,
    portions: Iterable[Portion],
    count: int,
    options: argparse.Namespace,
) -> Query:
    """About the ``count`` images of ``portions``. Raises ``BadImage`` for one that cannot be shown,
    and ``BadOption`` where they are too many."""
    from .. import run

    images: list[Any] = []
    nothing = BadImage("There is no image to ask about.")
    query = Query(task, nothing, **query_fields(options, backend, task))
    for portion in portions:
        images += portion.values()
        query = dataclasses.replace(query, picture=images[0], others=tuple(images[1:]))
        if query.problem:
            raise query.problem
        if (tokens := run.expected_tokens(backend, query)) > MOST_TOKENS:
            raise BadOption(
                f"The first {len(images)} of {count} images are {tokens:,} tokens already, more "
                "than any of these models reads at once. Choose pages with --pages (the score "
                "command with --top finds them), or set --max-pixels."
            )
    if not images:
        raise nothing
    print_message(f"{len(images)} images, {run.expected_tokens(backend, query):,} tokens")
    return query


def _show(inputs: Sequence[Input], result: Result, options: argparse.Namespace) -> None:
    print_notes(result.notes)
    if result.error:
        print_error(result.error)
    if options.json:
        shown = [
            {"image": well_formed(i.path), **({"page": i.page} if i.page else {})} for i in inputs
        ]
        print_json({"images": shown, **as_row(result, {})})
    elif not result.error:
        print_result(result.text)
