"""Documents that the ocr command writes: a text file, or a searchable PDF, for each input."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import quote

from ..errors import BadImage, BadOption, QwenVLError
from ..media.documents import Document
from ..replies.figures import linked
from ..replies.tables import tables
from ..types import Box, Result
from .inputs import Input
from .output import print_message

if TYPE_CHECKING:
    from torch import Tensor

    from ..media.searchable_pdf import SearchablePdf

ENDINGS = {"plain": ".txt", "lines": ".txt", "markdown": ".md", "html": ".html", "pdf": ".pdf"}
"""Of the files, by what the ocr command's ``--output`` says."""


class Pages(Protocol):
    """A document in the making."""

    def add(self, found: Input, picture: Tensor | BadImage, result: Result) -> None: ...

    def close(self) -> None: ...


class DocumentWriter:
    """Writes what is read into ``folder``: each input's pages, which come one after the other, as
    one document, page by page, so that what is there when the work stops is whole.

    Files are called as the inputs; of equal names the later ones are numbered. Raises ``BadOption``
    where one would take the place of an input, or there can be no such folder, and ``QwenVLError``
    where a file cannot be written."""

    def __init__(self, folder: str, output: str, inputs: Sequence[Input], csv: bool = False):
        self._folder, self._output, self._csv = Path(folder), output, csv
        self._targets = deque(self._named(inputs))
        self._document: Input | None = None  # its first page
        self._target = self._folder
        self._pages: Pages | None = None
        sources = {Path(found.path).resolve() for found in inputs}
        for target in self._targets:
            if target.resolve() in sources:
                raise BadOption(f"{target} is one of the inputs: choose another folder for --out.")
        if csv or self._is_marked:
            self._check_folders()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadOption(str(_unwritable(self._folder, error))) from error

    def add(self, found: Input, picture: Tensor | BadImage, result: Result) -> None:
        """The next page, or picture. A page without an answer is said to be missing; where a whole
        input is, there is no document of it."""
        if not _is_continued(self._document, found):
            self.close()
            self._document, self._target = found, self._targets.popleft()
        if found.page is None and isinstance(picture, BadImage):
            return
        try:
            self._pages = self._pages or self._begun()
            self._pages.add(found, picture, result)
        except OSError as error:
            raise _unwritable(self._target, error) from error
        except BadImage as error:  # the source is gone, of which the page's size is to be read
            raise QwenVLError(str(error)) from error

    def close(self) -> None:
        """Ends the document that is being written, and says where it is."""
        pages, self._pages = self._pages, None
        if pages is not None:
            try:
                pages.close()  # which writes what is left of it
            except OSError as error:
                raise _unwritable(self._target, error) from error
            print_message(f"written: {self._target}")

    def _named(self, inputs: Sequence[Input]) -> Iterator[Path]:
        """The file of each document, in order."""
        before: Input | None = None
        names: set[str] = set()
        for found in inputs:
            if not _is_continued(before, found):
                stem = Path(found.path).stem
                tries = (f"{stem}-{number}" for number in itertools.count(2))
                name = next(
                    name for name in itertools.chain([stem], tries) if name.lower() not in names
                )
                names.add(name.lower())
                yield self._folder / f"{name}{ENDINGS[self._output]}"
            before = found

    def _check_folders(self) -> None:
        """Raises ``BadOption`` where a folder beside a document would take a file's place."""
        for folder in map(_folder_beside, self._targets):
            if folder in self._targets or (os.path.exists(folder) and not os.path.isdir(folder)):
                raise BadOption(
                    f"{folder} is a file, but would be the folder of a document's figures and "
                    "tables: choose another folder for --out."
                )

    @property
    def _is_marked(self) -> bool:
        return self._output in ("markdown", "html")

    def _begun(self) -> Pages:
        if self._output == "pdf":
            return _PdfPages(self._target)
        return _TextPages(self._target, self._csv, self._is_marked)


def _folder_beside(document: Path) -> Path:
    return document.with_suffix("")


def _is_continued(before: Input | None, found: Input) -> bool:
    """Whether ``found`` is a further page of the document that ``before`` is of."""
    return before is not None and before.argument == found.argument


class _TextPages:
    """A text file, with figures, and tables as CSV, in a folder of its name beside it."""

    def __init__(self, path: Path, csv: bool, is_marked: bool):
        """``is_marked``: in Markdown or HTML, which have comments and figures."""
        self._beside = _folder_beside(path)
        self._csv, self._is_marked = csv, is_marked
        self._is_first = True
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="\n")

    def add(self, found: Input, picture: Tensor | BadImage, result: Result) -> None:
        text, name = result.text, f"page{found.page or 1}"
        if result.error and not text:
            text = f"[No answer: {' '.join(result.error.split())}]"
        elif self._is_marked and not isinstance(picture, BadImage):
            folder = quote(os.fsencode(self._beside.name), safe="")
            text, boxes = linked(text, lambda at: f"{folder}/{name}-figure{at + 1}.png")
            for at, box in enumerate(boxes, 1):
                _save_part(picture, box, self._in_folder(f"{name}-figure{at}.png"))
        for at, table in enumerate(tables(result.text) if self._csv else (), 1):
            self._in_folder(f"{name}-table{at}.csv").write_text(
                table.csv(), encoding="utf-8-sig", newline=""
            )
        self._file.write(f"{self._separator(found)}{text.rstrip()}\n")
        self._file.flush()
        self._is_first = False

    def close(self) -> None:
        self._file.close()

    def _separator(self, found: Input) -> str:
        if found.page is None:
            return ""
        if not self._is_marked:
            return "" if self._is_first else "\f"
        return f"{'' if self._is_first else chr(10)}<!-- Page {found.page} -->\n\n"

    def _in_folder(self, name: str) -> Path:
        self._beside.mkdir(exist_ok=True)
        return self._beside / name


class _PdfPages:
    """A searchable PDF, saved when it is closed: with what was read until then."""

    def __init__(self, path: Path):
        from ..media.searchable_pdf import SearchablePdf

        self._path = path
        self._pdf: SearchablePdf = SearchablePdf()
        self._source: Document | None = None

    def add(self, found: Input, picture: Tensor | BadImage, result: Result) -> None:
        if isinstance(picture, BadImage):
            return  # there is nothing to show of it; its error is printed
        size = None
        if found.page is not None:
            self._source = self._source or Document(found.path)
            size = self._source.size(found.page)
        self._pdf.add(picture, result.boxes, size)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        try:
            if len(self._pdf):
                self._pdf.save(self._path)
        finally:
            self._pdf.close()


def _save_part(picture: Tensor, box: Box, path: Path) -> None:
    from PIL import Image

    from ..coordinates import integer_box

    height, width = picture.shape[-2:]
    x1, y1, x2, y2 = integer_box(box)
    part = picture[:, max(0, y1) : min(height, y2), max(0, x1) : min(width, x2)]
    if 0 in part.shape:
        part = picture  # a box outside the page: better all of it than nothing
    Image.fromarray(part.movedim(0, -1).contiguous().numpy(), "RGB").save(path)


def _unwritable(path: Path, error: OSError) -> QwenVLError:
    return QwenVLError(f"{path} cannot be written to: {error.strerror or error}.")
