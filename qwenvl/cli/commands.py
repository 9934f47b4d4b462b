"""Commands that ask no model: list models, download one, parse a raw reply."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints import gguf, inspection, library
from ..checkpoints.catalogue import CATALOGUE
from ..checkpoints.files import readable_size
from ..checkpoints.receipts import Receipt
from ..checkpoints.references import parse_reference
from ..errors import BadOption
from ..families import FAMILIES
from ..types import Family, ReplyContext, Size
from .model_names import library_of, roots_of
from .output import as_json, print_json, print_message, print_result


def models(options: argparse.Namespace) -> None:
    bundled = inspection.inspect(library.BUNDLED)
    bundled = dataclasses.replace(bundled, name=library.BUNDLED_NAME)
    served = [found for found in gguf.scan(roots_of(options.root)) if not found.is_foreign]
    folders = {found.path.parent for found in served}
    for item in [bundled, *library_of(options.root).scan()]:
        if item.family is None and item.path in folders:
            continue  # no checkpoint but those files
        family = item.family.model_type if item.family else None
        _show_model(options, item.name, item.path, family, item.nbytes, item.problem, item.missing)
    for found in served:
        named = found.name, found.path, found.family or None
        _show_model(options, *named, found.nbytes, found.problem, found.missing)
    if options.catalogue:
        for entry in CATALOGUE.values():
            if options.json:
                print_json(dataclasses.asdict(entry))
            else:
                print_result(f"{entry.repo_id}  {entry.model_type}  {readable_size(entry.nbytes)}")


def _show_model(
    options: argparse.Namespace,
    name: str,
    path: Path,
    family: str | None,
    nbytes: int,
    problem: str,
    missing: Sequence[str],
) -> None:
    if options.json:
        row = {"name": name, "path": str(path), "family": family, "nbytes": nbytes}
        print_json({**row, "problem": problem, "missing": list(missing)})
    else:
        print_result(f"{name}  {family or '?'}  {readable_size(nbytes)}  {problem}".rstrip())


def download(options: argparse.Namespace) -> None:
    reference = parse_reference(options.repo, options.source)
    if reference.revision and options.revision:
        raise BadOption(f"{options.repo} names a revision, and --revision another: give one.")
    try:
        folder = library.download(
            reference.repo_id,
            options.root,
            source=reference.source,
            endpoint=options.endpoint,
            revision=options.revision or reference.revision or None,
            folder_name=reference.folder_name,
            progress=_Progress(),
            trust_remote_code=options.trust_remote_code,
            verify=options.verify,
        )
    except KeyboardInterrupt:
        print_message("stopped; the same command goes on from here")
        raise
    if options.json:
        print_json({"path": str(folder), "revision": Receipt.read(folder).revision})
    else:
        print_result(str(folder))


class _Progress:
    """Download progress: a line on stderr every few seconds, so that logs stay readable."""

    def __init__(self, seconds: float = 2.0):
        self._seconds, self._next = seconds, 0.0

    def __call__(self, done: int, total: int, file: str) -> None:
        if time.monotonic() < self._next and done < total:
            return
        self._next = time.monotonic() + self._seconds
        print_message(f"{readable_size(done)} of {readable_size(total)}  {file}")


def parse(options: argparse.Namespace) -> None:
    from ..tasks import act as acting
    from ..tasks import ground as finding
    from ..tasks import ocr as reading

    family, size = _family(options.family), options.image_size
    context = ReplyContext(family, size, options.input_size or _default_input(family, size))
    if sys.stdin is None:
        raise BadOption("stdin is closed; the reply is read from there.")
    reply = sys.stdin.read()
    if options.task == "ocr":
        result = reading.read_any(reply, context)
    elif options.task == "action":
        result = acting.read(reply, context)
    else:
        result = finding.read(reply, context, kind=options.task)
    print_json(as_json(result))


def _family(name: str) -> Family:
    """By ``model_type`` or title, in any spelling of either."""
    wanted = _normalized(name)
    for family in FAMILIES.values():
        if wanted in (_normalized(family.model_type), _normalized(family.title)):
            return family
    raise BadOption(f"Unknown family {name!r}: choose one of {', '.join(FAMILIES)}.")


def _normalized(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _default_input(family: Family, image_size: Size) -> Size:
    """The size that an image is resized to within the bounds of the makers' checkpoints. Relative
    coordinates do not depend on it."""
    if family.coordinates == "relative":
        return image_size
    from ..media.image_processor import target_size

    return target_size(*image_size, family.patch_factor, *family.pixel_bounds)
