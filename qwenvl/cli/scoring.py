"""Command that compares images with a text: score."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..errors import BadOption, QwenVLError
from ..unicode import well_formed
from .answering import check_page_options, resolution_of
from .inputs import Input, expanded
from .model_options import spec_of
from .output import print_json, print_message, print_result
from .portions import read_portions
from .results import NOTHING_DONE, SOME_FAILED

if TYPE_CHECKING:
    from ..score import Score


def score(options: argparse.Namespace) -> int:
    """A line an image, in order, as soon as its portion is scored; with ``--top`` the best, once
    all are. Returns the exit status."""
    from .. import score as scoring
    from ..model_cache import CACHE

    if options.top is not None and options.top < 1:
        raise BadOption(f"--top is {options.top}; use 1 or more.")
    inputs = expanded(options.images, options.pages or "")
    check_page_options(options, inputs)
    scores: list[Score] = []
    try:
        with (
            CACHE.lease(spec_of(options)) as backend,
            closing(read_portions(inputs, resolution_of(options))) as portions,
        ):
            for portion in portions:
                pairs = [
                    scoring.Pair(
                        image,
                        options.text,
                        options.instruction,
                        options.min_pixels or None,
                        options.max_pixels or None,
                    )
                    for image in portion.values()
                ]
                for value in scoring.score_all(backend, pairs):
                    scores.append(value)
                    _show(inputs[len(scores) - 1], value, options)
    except QwenVLError as error:
        if not scores:
            raise
        print_message(f"error: {error}")
    except BaseException:
        print_message(f"stopped after {len(scores)} of {len(inputs)}")
        raise
    best = scoring.best(scores, len(scores))
    for rank, at in enumerate(best[: options.top] if options.top else (), 1):
        _print(inputs[at], scores[at], options, rank=rank)
    if len(best) == len(inputs):
        return 0
    return SOME_FAILED if best else NOTHING_DONE


def _show(found: Input, value: Score, options: argparse.Namespace) -> None:
    """What can be said of an image before the others are known."""
    if isinstance(value, QwenVLError):
        path, text = well_formed(found.path), str(value)
        named = text if text.startswith(path) else f"{well_formed(found.name)}: {text}"
        print_message(f"error: {named}")
    if options.top is None:
        _print(found, value, options)


def _print(found: Input, value: Score, options: argparse.Namespace, **more: int) -> None:
    failed = isinstance(value, QwenVLError)
    if options.json:
        row: dict[str, Any] = {"image": well_formed(found.path)}
        if found.page is not None:
            row["page"] = found.page
        row |= {"score": None if failed else value, **more}
        print_json({**row, "error": str(value)} if failed else row)
    elif not failed:
        print_result(f"{value:.4f}  {well_formed(found.name)}")
