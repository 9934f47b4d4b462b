"""Inputs of the command line: picture files, and the pages of PDF documents among them."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadImage, BadOption
from ..media.documents import Document, Resolution, is_pdf, rendered
from ..media.page_ranges import page_numbers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Input:
    """What is asked about once: a picture file, or ``page`` (from 1) of a PDF. ``error``: why a
    PDF has no pages to ask about. ``argument``: which of the paths given it is of."""

    path: str
    page: int | None = None
    error: BadImage | None = None
    argument: int = 0

    @property
    def name(self) -> str:
        return self.path if self.page is None else f"{self.path}, page {self.page}"


def expanded(paths: Sequence[str], pages: str = "") -> list[Input]:
    """The inputs that ``paths`` name, each PDF as those of its pages that ``pages`` names (see
    ``media.page_ranges``). A PDF that cannot be opened, or lacks them, is one with an error."""
    return [
        found
        for argument, path in enumerate(paths)
        for found in (
            _pages(path, pages, argument) if is_pdf(path) else [Input(path, argument=argument)]
        )
    ]


def _pages(path: str, pages: str, argument: int) -> list[Input]:
    try:
        with Document(path) as document:
            numbers = page_numbers(pages, len(document))
            return [Input(path, number, argument=argument) for number in numbers]
    except BadImage as error:
        return [Input(path, error=error, argument=argument)]
    except BadOption as error:
        return [Input(path, error=BadImage(str(error)), argument=argument)]


def data_folders(option: str, names: Sequence[str] | None) -> list[Path]:
    """The folders with users' data files that an option names. Raises ``BadOption`` for one that is
    not there."""
    folders = [Path(name) for name in names or ()]
    for folder in folders:
        if not folder.is_dir():
            raise BadOption(f"{option} names {folder}, which is no folder.")
    return folders


def read_pictures(
    inputs: Sequence[Input], resolution: Resolution
) -> Generator[Tensor | BadImage, None, None]:
    """The picture of each input, or why there is none, one after the other; each PDF is open while
    its pages are read."""
    for (path, is_picture), group in itertools.groupby(
        inputs, lambda found: (found.path, found.page is None)
    ):
        if is_picture:
            yield from (found.error or _read(path) for found in group)
        else:
            yield from _rendered(path, [found.page or 0 for found in group], resolution)


def _read(path: str) -> Tensor | BadImage:
    from ..media import images

    try:
        return images.read(path)
    except BadImage as error:
        return error


def _rendered(
    path: str, numbers: Sequence[int], resolution: Resolution
) -> Generator[Tensor | BadImage, None, None]:
    try:
        document = Document(path)
    except BadImage as error:  # it was there when its pages were counted
        yield from (error for _ in numbers)
        return
    with document:
        yield from (picture for _, picture in rendered(document, numbers, resolution))
