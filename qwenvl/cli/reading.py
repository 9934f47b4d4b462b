"""Commands that read something off images, one by one: ocr, ground, extract, layout."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..errors import BadOption
from ..fine_tunes import preset
from ..grounding.regions import Region
from ..reading import tile_reading
from ..replies.tables import tables
from ..types import Result
from .answering import answer, read_text
from .model_options import named_spec_of


def ocr(options: argparse.Namespace) -> int:
    from ..tasks import ocr as task

    if options.out is None and (options.output == "pdf" or options.csv):
        wanted = "--output pdf" if options.output == "pdf" else "--csv"
        raise BadOption(f"{wanted} writes files: name a folder for them with --out.")
    fine_tune = preset(options.preset, named_spec_of(options).name)
    output = "lines" if options.output == "pdf" else options.output
    scores = (options.min_score, options.scores)
    more = (options.language, fine_tune, *scores, options.strict)
    bounds = (options.min_pixels or None, options.max_pixels or None)
    reading = tile_reading(options.tiles, output, lambda: task.ocr("lines", *more), bounds)
    asked = task.ocr(output, *more)
    return answer(options, asked, reading.steps if reading else None, _tables)


def ground(options: argparse.Namespace) -> int:
    from ..grounding import search

    found = search(
        "\n".join(options.find),
        options.kind,
        options.max_count,
        options.min_score,
        options.scores,
        options.screen,
        options.strict,
        tile=options.tile,
        look_again=options.look_again,
        field_of_view=options.fov,
    )
    if options.inside:
        found = found.within([Region(area) for area in options.inside])
    return answer(
        options, found.task, found.method, lambda result: {"counts": found.counts(result)}
    )


def extract(options: argparse.Namespace) -> int:
    from ..tasks import extract as task

    if options.keys is not None:
        constraint = task.form("keys", options.keys)
    elif options.example is not None:
        constraint = task.form("example", read_text(options.example))
    else:
        constraint = task.form("schema", read_text(options.schema))
    return answer(options, task.extract(constraint, options.prompt), more=_complete)


def layout(options: argparse.Namespace) -> int:
    from ..layouts import Wanted

    wanted = Wanted(options.form, options.max_elements, options.instructions)
    return answer(options, wanted.task, wanted.method, _complete)


def _tables(result: Result) -> dict[str, Any]:
    return {"tables": [dataclasses.asdict(table) for table in tables(result.text)]}


def _complete(result: Result) -> dict[str, Any]:
    return {"complete": result.is_complete}
