"""The prompt command: ideas and pictures to prompts for an image or video model."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.base import Backend
from ..errors import BadImage, BadOption
from ..prompt_writing import Order, Target, Targets, Wishes, choose, listed, read_targets
from ..types import LocalSpec, Result, Spec
from ..unicode import well_formed
from .answering import NOTHING_DONE, SOME_FAILED, UNREADABLE, query_fields
from .inputs import data_folders
from .model_options import named_spec_of
from .output import print_json, print_message, print_notes, print_result


@dataclass(frozen=True)
class _Wanted:
    """One prompt: its idea, the paths of its pictures, and these or why one cannot be shown."""

    idea: str
    paths: tuple[str, ...]
    pictures: tuple[Any, ...]


def prompt(options: argparse.Namespace) -> int:
    targets = read_targets(data_folders("--targets-folder", options.targets_folder))
    if options.list_targets:
        _list(targets, options.json)
        return 0
    return _write(options, targets[options.target])


def _list(targets: Targets, as_json: bool) -> None:
    for name, target in targets.items.items():
        if as_json:
            print_json({"name": name, "title": target.title, "source": target.source})
        else:
            print_result(f"{name}  {target.title}")
    for problem in targets.problems.values():
        print_message(f"error: {problem}")


def _write(options: argparse.Namespace, target: Target) -> int:
    """Writes all prompts in one batch. Returns the exit status."""
    from .. import run
    from ..model_cache import CACHE

    wanted, spec = list(_wanted(options)), named_spec_of(options)
    results: list[Result] = [Result("")] * len(wanted)

    def put(index: int, result: Result) -> None:
        results[index] = result

    orders: dict[int, Order] = {}
    refused: list[BadOption] = []
    for at, one in enumerate(wanted):
        try:
            orders[at] = _order(options, target, one, spec)
        except BadOption as error:  # of this idea, such as that there is none
            refused.append(error)
            put(at, Result("", finish_reason="error", error=str(error)))
    if not orders:
        raise refused[0]
    with CACHE.lease(spec) as backend:
        queries = [_query(backend, order, wanted[at], options) for at, order in orders.items()]
        places = list(orders)
        run.answer_each(backend, queries, lambda number, result: put(places[number], result))
    for one, result in zip(wanted, results, strict=True):
        _show(one, result, options, len(wanted) > 1)
    failed = sum(result.finish_reason == "error" for result in results)
    if failed:
        return NOTHING_DONE if failed == len(results) else SOME_FAILED
    return UNREADABLE if any(result.error for result in results) else 0


def _wanted(options: argparse.Namespace) -> Iterable[_Wanted]:
    """Ideas and pictures in pairs; one alone goes with all of the others. With ``together`` all
    pictures go with each idea. Raises ``BadOption`` where they do not pair."""
    ideas, paths = list(options.ideas), list(options.image or ())
    shown = {path: _read(path) for path in paths}
    groups = [tuple(paths)] if options.together and paths else [(path,) for path in paths]
    if len(ideas) > 1 < len(groups) and len(ideas) != len(groups):
        raise BadOption(
            f"{len(ideas)} ideas do not pair with {len(groups)} images. Give as many of each, one "
            "idea for all images, or --together for all images with each idea."
        )
    count = max(len(ideas), len(groups), 1)
    ideas = ideas * count if len(ideas) == 1 else ideas or [""] * count
    groups = groups * count if len(groups) == 1 else groups or [()] * count
    for idea, group in zip(ideas, groups, strict=True):
        yield _Wanted(well_formed(idea), group, tuple(shown[path] for path in group))


def _read(path: str) -> Any:
    from ..media import images

    try:
        return images.read(path)
    except BadImage as error:
        return error


def _order(options: argparse.Namespace, target: Target, one: _Wanted, spec: Spec) -> Order:
    return Order(
        target,
        choose(one.idea, options.seed or 0),
        bool(one.paths),
        Wishes(listed(options.must), listed(options.must_not)),
        options.trigger,
        options.ask_again,
        options.megapixels,
        spec.name,
        Path(spec.checkpoint) if isinstance(spec, LocalSpec) else None,
    )


def _query(backend: Backend, order: Order, one: _Wanted, options: argparse.Namespace) -> Any:
    from .. import run

    return run.Query(
        order.task,
        one.pictures[0] if one.pictures else None,
        method=order.method,
        others=one.pictures[1:],
        **query_fields(options, backend, order.task, text_only=not one.pictures),
    )


def _show(one: _Wanted, result: Result, options: argparse.Namespace, several: bool) -> None:
    name = ", ".join(map(well_formed, one.paths)) or one.idea
    print_notes(result.notes, name if several else "")
    if result.error:
        print_message(f"error: {name}: {result.error}" if name else f"error: {result.error}")
    if options.json:
        row: dict[str, Any] = {"idea": one.idea, "images": list(map(well_formed, one.paths))}
        if result.error:
            row |= {"error": result.error, "reply": result.text}
        else:
            row |= result.data
        row |= {"notes": list(result.notes), "thinking": result.thinking}
        print_json({**row, "finish_reason": result.finish_reason})
    elif not result.error:
        print_result(result.text)
