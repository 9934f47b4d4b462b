"""The describe command: about each image, or about all at once, such as the pages of a document."""

from __future__ import annotations

import argparse
import dataclasses
from contextlib import closing
from typing import Any

from ..errors import BadImage, BadOption
from ..styles import read_styles
from ..types import Result, Task
from ..unicode import well_formed
from .answering import (
    NOTHING_DONE,
    UNREADABLE,
    answer,
    check_page_options,
    query_fields,
    resolution_of,
)
from .inputs import data_folders, expanded
from .model_options import spec_of
from .output import as_json, print_json, print_message, print_result
from .portions import read_portions

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
    from .. import run
    from ..model_cache import CACHE

    inputs, resolution = expanded(options.images, options.pages or ""), resolution_of(options, task)
    check_page_options(options, inputs)
    shown = [{"image": well_formed(i.path), **({"page": i.page} if i.page else {})} for i in inputs]
    images: list[Any] = []
    with (
        CACHE.lease(spec_of(options)) as backend,
        closing(read_portions(inputs, resolution)) as portions,
    ):
        nothing = BadImage("There is no image to ask about.")
        query = run.Query(task, nothing, **query_fields(options, backend, task))
        for portion in portions:
            images += portion.values()
            query = dataclasses.replace(query, picture=images[0], others=tuple(images[1:]))
            if query.problem:
                if options.json:
                    failed = Result("", finish_reason="error", error=str(query.problem))
                    print_json({"images": shown, **_members(failed)})
                raise query.problem
            if (tokens := run.expected_tokens(backend, query)) > MOST_TOKENS:
                raise BadOption(
                    f"The first {len(images)} of {len(inputs)} images are {tokens:,} tokens "
                    "already, more than any of these models reads at once. Choose pages with "
                    "--pages (the score command with --top finds them), or set --max-pixels."
                )
        print_message(f"{len(images)} images, {run.expected_tokens(backend, query):,} tokens")
        (result,) = run.answer_all(backend, [query])
    if result.error:
        print_message(f"error: {result.error}")
    if options.json:
        print_json({"images": shown, **_members(result)})
    elif not result.error:
        print_result(result.text)
    if result.finish_reason == "error":
        return NOTHING_DONE
    return UNREADABLE if result.error else 0


def _members(result: Result) -> dict[str, Any]:
    """As in the lines of commands that ask about images one by one."""
    values = {"thinking": result.thinking, "finish_reason": result.finish_reason}
    return {**as_json(result), **values, **({"error": result.error} if result.error else {})}
