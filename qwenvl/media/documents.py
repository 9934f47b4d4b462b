"""PDF documents: their pages rendered one by one to pictures, through PDFium."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadDocument, BadImage, BadOption, Unavailable
from ..types import Size
from .page_ranges import page_numbers

if TYPE_CHECKING:
    from torch import Tensor

PASSWORD = "QVL_PDF_PASSWORD"
"""Environment variable with the password of encrypted documents: a secret that no workflow keeps,
and no command line shows."""

MAX_PIXELS = 178_956_970
"""Most pixels of a rendered page: as many as of a picture that is read from a file."""

POINTS_PER_INCH = 72

PDFIUM = threading.RLock()
"""PDFium may be called by one thread at a time, whatever document it is about."""

REOPENED_AFTER = 50
"""Pages. PDFium keeps what it has read of an open file, the pictures of scanned pages among it."""

_SIGNATURE, _SIGNATURE_ROOM = b"%PDF-", 1024  # readers allow that much before it
_WRONG_PASSWORD, _UNKNOWN_SECURITY = 4, 5  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY


@dataclass(frozen=True)
class Resolution:
    """How large pages are rendered: ``longest_side`` in pixels, or else ``dpi``, pixels an inch of
    paper. Raises ``BadOption`` unless one of them is given, in its range."""

    longest_side: int | None = None
    dpi: float | None = None

    def __post_init__(self) -> None:
        if (self.longest_side is None) == (self.dpi is None):
            raise BadOption("Pages have either a longest side or a number of dpi.")
        if self.dpi is not None and not 1 <= self.dpi <= 2400:
            raise BadOption(f"dpi is {self.dpi:g}; it may be 1 to 2400.")
        if self.longest_side is not None and not 16 <= self.longest_side <= 16384:
            raise BadOption(
                f"The longest side of pages is {self.longest_side} px; it may be 16 to 16384."
            )

    def scale(self, width: float, height: float) -> float:
        """Pixels a point (1/72 inch) of a page of that many points."""
        if self.longest_side is not None:
            scale = self.longest_side / max(width, height)
        elif self.dpi is not None:
            scale = self.dpi / POINTS_PER_INCH
        # A hair less, since PDFium's sides are rounded up: 1288 px are not to become 1289.
        return scale * (1 - 1e-9)


class Document:
    """An open PDF file. To be closed, as by ``with``.

    Pages are read from the file as they are rendered, so that memory does not grow with their
    number. Messages name the file without its folder.
    """

    def __init__(self, path: str | Path):
        """Raises ``BadDocument`` for what is no PDF, has no pages, or is encrypted with another
        password than the one in the environment variable ``PASSWORD``; ``Unavailable`` without
        pypdfium2."""
        self.name = Path(path).name
        self._path = Path(path)
        self._pdf = self._opened()
        self._used = 0
        with PDFIUM:
            self._count = len(self._pdf)
        if not self._count:
            self.close()
            raise BadDocument(f"{self.name} has no pages.")

    def __len__(self) -> int:
        """How many pages it has."""
        return self._count

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with PDFIUM:
            self._pdf.close()

    def size(self, number: int) -> tuple[float, float]:
        """Width and height of page ``number`` (from 1) in points, as it is shown. Raises
        ``BadImage``."""
        with PDFIUM, self._page(number) as page:
            return page.get_size()

    def rendered_size(self, number: int, resolution: Resolution) -> Size:
        """Height and width in pixels of the picture of page ``number`` (from 1). Raises
        ``BadImage`` where it cannot be rendered so."""
        from .images import check_aspect

        width, height = self.size(number)
        scale = resolution.scale(width, height) if width > 0 and height > 0 else 0
        across, down = math.ceil(width * scale), math.ceil(height * scale)  # as PDFium rounds
        if across < 1 or down < 1:
            raise self._bad(number, f"has no area to render ({width:g}x{height:g} points)")
        if across * down > MAX_PIXELS:
            raise self._bad(
                number,
                f"would be {across}x{down} pixels; at most {MAX_PIXELS // 10**6} million are "
                "rendered. Give a longest side, or fewer dpi",
            )
        try:
            check_aspect(down, across)
        except BadImage as error:
            raise BadImage(f"Page {number} of {self.name}: {error}") from error
        return down, across

    def picture(self, number: int, resolution: Resolution) -> Tensor:
        """Page ``number`` (from 1) as a picture: uint8 RGB ``[3, H, W]``, on white, with its
        annotations and filled-in forms. Raises ``BadImage``."""
        import torch

        with PDFIUM:
            if self._used >= REOPENED_AFTER:
                self._pdf.close()
                self._pdf, self._used = self._opened(), 0
            self._used += 1
            self.rendered_size(number, resolution)  # or why it cannot be
            with self._page(number) as page:
                scale = resolution.scale(*page.get_size())
                bitmap = page.render(scale=scale, rev_byteorder=True, limit_image_cache=True)
                try:
                    pixels = bitmap.to_numpy().copy()
                finally:
                    bitmap.close()
        return torch.from_numpy(pixels).movedim(-1, 0)

    def _opened(self) -> Any:
        pdfium = load_pypdfium2()
        if os.path.isdir(self._path):  # False for what can be no path, which Path.is_dir may raise
            raise BadDocument(f"{self.name} is a folder. Name the PDF files in it.")
        password = os.environ.get(PASSWORD)
        with PDFIUM:
            try:
                pdf = pdfium.PdfDocument(self._path, password=password)
                pdf.init_forms()  # else fields that were filled in would be rendered empty
                return pdf
            except pdfium.PdfiumError as error:
                raise BadDocument(self._reason(error.err_code, bool(password))) from error
            except (OSError, ValueError) as error:  # ValueError: a path with a NUL
                reason = getattr(error, "strerror", None) or "there is no such file"
                raise BadDocument(f"{self.name} cannot be read: {reason}.") from error

    def _reason(self, code: int | None, had_password: bool) -> str:
        if code == _WRONG_PASSWORD:
            state = "has another" if had_password else "holds its"
            return (
                f"{self.name} is encrypted, and can be read only where the environment variable "
                f"{PASSWORD} {state} password. Set it before the start, or save the PDF without "
                "a password."
            )
        if code == _UNKNOWN_SECURITY:
            return f"{self.name} is encrypted in a way that cannot be read. Save it without that."
        return f"{self.name} cannot be read as a PDF: it is damaged, cut short, or something else."

    def _page(self, number: int) -> Any:
        if not 1 <= number <= self._count:
            raise BadOption(f"{self.name} has pages 1 to {self._count}; {number} is none of them.")
        try:
            return closing(self._pdf.get_page(number - 1))
        except load_pypdfium2().PdfiumError as error:
            raise self._bad(number, "is damaged, and cannot be read") from error

    def _bad(self, number: int, what: str) -> BadImage:
        return BadImage(f"Page {number} of {self.name} {what}.")


def is_pdf(path: str | Path) -> bool:
    """Whether a file is a PDF, by its name or its first bytes. False where there is none."""
    if str(path).lower().endswith(".pdf"):
        return True
    try:
        with Path(path).open("rb") as file:
            return _SIGNATURE in file.read(_SIGNATURE_ROOM)
    except (OSError, ValueError):  # ValueError: a path with a NUL
        return False


def read_pages(
    path: str | Path, pages: str, resolution: Resolution
) -> Iterator[tuple[int, Tensor | BadImage]]:
    """The pages of a PDF that ``pages`` names (see ``page_numbers``), in that order: number and
    picture, or the error of a page that cannot be rendered. One is held at a time.

    Raises what ``Document`` and ``page_numbers`` raise, when the first is asked for.
    """
    with Document(path) as document:
        yield from rendered(document, page_numbers(pages, len(document)), resolution)


def rendered(
    document: Document, numbers: Iterable[int], resolution: Resolution
) -> Iterator[tuple[int, Tensor | BadImage]]:
    """As ``read_pages``, of an open document."""
    for number in numbers:
        try:
            yield number, document.picture(number, resolution)
        except BadImage as error:
            yield number, error


def load_pypdfium2() -> Any:
    """The library. Raises ``Unavailable`` without it."""
    try:
        import pypdfium2
    except ImportError as error:
        raise Unavailable(
            "PDF documents need the package pypdfium2. Install it with: pip install pypdfium2"
        ) from error
    return pypdfium2
