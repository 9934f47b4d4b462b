"""Command that compares images with a text: score."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..errors import BadOption, QwenVLError
from ..types import Result
from ..unicode import well_formed
from .answering import check_page_options, resolution_of
from .inputs import Input, expanded
from .model_options import spec_of
from .output import print_error, print_json, print_result
from .portions import read_portions
from .results import OrderedResults

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

    def show(number: int, result: Result) -> None:
        found = inputs[number]
        if result.error:
            print_error(result.error, well_formed(found.name), well_formed(found.path))
        if options.top is None:  # else what is best is known once all are
            _print(found, scores[number], options)

    results = OrderedResults(len(inputs), show)
    with (
        results.told(),
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
            for number, value in zip(portion, scoring.score_all(backend, pairs), strict=True):
                scores.append(value)
                if isinstance(value, QwenVLError):
                    results.fail(number, value)
                else:
                    results.put(number, Result(f"{value:.4f}"))
    best = scoring.best(scores, options.top) if options.top else []
    for rank, at in enumerate(best, 1):
        _print(inputs[at], scores[at], options, rank=rank)
    return results.exit_status()


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
