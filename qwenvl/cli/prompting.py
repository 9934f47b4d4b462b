"""The prompt command: ideas and pictures to prompts for an image or video model."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends.base import Backend
from ..errors import BadImage, BadOption
from ..prompt_writing import Order, Target, Targets, Wishes, choose, listed, read_targets
from ..types import LocalSpec, Result, Spec
from ..unicode import well_formed
from . import portions
from .answering import query_fields
from .inputs import data_folders
from .model_options import named_spec_of
from .output import print_error, print_json, print_message, print_notes, print_result
from .results import OrderedResults

if TYPE_CHECKING:
    from torch import Tensor

    from ..query import Query


@dataclass(frozen=True)
class _Wanted:
    """One prompt: its idea and the paths of its pictures."""

    idea: str
    paths: tuple[str, ...]


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
    """Writes all prompts, a portion in one batch, each as soon as it and those before it are there.
    Returns the exit status."""
    from ..model_cache import CACHE

    wanted, spec = list(_wanted(options)), named_spec_of(options)
    orders: dict[int, Order] = {}
    refused: dict[int, BadOption] = {}  # of an idea, such as that there is none
    for at, one in enumerate(wanted):
        try:
            orders[at] = _order(options, target, one, spec)
        except BadOption as error:
            refused[at] = error
    if not orders:
        raise next(iter(refused.values()))
    several = len(wanted) > 1
    results = OrderedResults(
        len(wanted), lambda at, result: _show(wanted[at], result, options, several)
    )
    for at, reason in refused.items():
        results.fail(at, reason)
    shown = {at: wanted[at].paths for at in orders}
    with (
        results.told(),
        CACHE.lease(spec) as backend,
        closing(portions.read_ahead(lambda stopped: _portions(shown, stopped))) as read,
    ):
        queries = (
            {at: _query(backend, orders[at], shown, options) for at, shown in pictures.items()}
            for pictures in read
        )
        results.ask(backend, queries)
    return results.exit_status()


Pictures = tuple["Tensor | BadImage", ...]


def _portions(
    wanted: Mapping[int, Sequence[str]], stopped: threading.Event
) -> Generator[dict[int, Pictures], None, None]:
    """The pictures of each prompt, or why one cannot be read, so many prompts at a time that memory
    does not grow with their number. Pictures that the next prompt shows as well are read once."""
    portion: dict[int, Pictures] = {}
    read: dict[str, Tensor | BadImage] = {}
    nbytes = 0
    for at, paths in wanted.items():
        if stopped.is_set():
            return
        new = {path: _read(path) for path in dict.fromkeys(paths) if path not in read}
        read |= new
        nbytes += sum(one.nbytes for one in new.values() if not isinstance(one, BadImage))
        portion[at] = tuple(read[path] for path in paths)
        if len(portion) >= portions.MAX_IMAGES or nbytes >= portions.MAX_BYTES:
            yield portion
            portion, nbytes = {}, 0
            read = {path: read[path] for path in paths}
    if portion:
        yield portion


def _wanted(options: argparse.Namespace) -> Iterable[_Wanted]:
    """Ideas and pictures in pairs; one alone goes with all of the others. With ``together`` all
    pictures go with each idea. Raises ``BadOption`` where they do not pair."""
    ideas, paths = list(options.ideas), list(options.image or ())
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
        yield _Wanted(well_formed(idea), group)


def _read(path: str) -> Tensor | BadImage:
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


def _query(
    backend: Backend, order: Order, pictures: Pictures, options: argparse.Namespace
) -> Query:
    from ..query import Query

    return Query(
        order.task,
        pictures[0] if pictures else None,
        method=order.method,
        others=pictures[1:],
        **query_fields(options, backend, order.task, text_only=not pictures),
    )


def _show(one: _Wanted, result: Result, options: argparse.Namespace, several: bool) -> None:
    paths = list(map(well_formed, one.paths))
    name = ", ".join(paths) or one.idea.strip()
    print_notes(result.notes, name if several else "")
    if result.error:
        print_error(result.error, name, *paths)
    if options.json:
        row: dict[str, Any] = {"idea": one.idea, "images": paths}
        if result.error:
            row |= {"error": result.error, "reply": result.text}
        else:
            row |= result.data
        row |= {"notes": list(result.notes), "thinking": result.thinking}
        print_json({**row, "finish_reason": result.finish_reason})
    elif not result.error:
        print_result(result.text)
