"""Searchable PDF: pictures of pages under invisible text, so that scans can be searched and copied.
Written through PDFium.

The text is in a font of one blank glyph, stretched to each line's box: no font has the letters of
all languages, and none is to be seen. Which character a code stands for is written into the
document (its ToUnicode map), which is what readers search and copy.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import unicodedata
from collections.abc import Iterable, Sequence
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import QwenVLError
from ..types import Box
from .documents import PDFIUM, load_pypdfium2

if TYPE_CHECKING:
    from torch import Tensor

PICTURE_DPI = 150
"""Pixels an inch of pages that were pictures, which say nothing of the size of their paper."""

_MAX_POINTS = 14400  # of a page's side, by the PDF specification
_QUALITY = 85  # of JPEG
_FONT = Path(__file__).with_name("fonts") / "Glyphless.ttf"
_DESCENT = 0.2  # of the font's blank glyph, which is as high and as wide as its size
_VERTICAL = 1.5  # height to width of a line that is read downwards
_BATCH = 100  # entries of a block of a character map, by its specification
_MAX_CODE = 0xFFFF
_STRONG = {"L": "L", "EN": "L", "AN": "L", "R": "R", "AL": "R"}  # numbers run as Latin does


class SearchablePdf:
    """A PDF in the making, in memory until it is saved: of each page its JPEG. To be closed."""

    def __init__(self) -> None:
        """Raises ``Unavailable`` without pypdfium2."""
        pdfium = load_pypdfium2()
        with PDFIUM:
            self._pdf = pdfium.PdfDocument.new()

    def __len__(self) -> int:
        with PDFIUM:
            return len(self._pdf)

    def close(self) -> None:
        with PDFIUM:
            self._pdf.close()

    def add(
        self, picture: Tensor, lines: Sequence[Box], size: tuple[float, float] | None = None
    ) -> None:
        """A page of ``picture``, uint8 RGB ``[3, H, W]``, with the label of each of ``lines`` as
        text in its box, in their order. ``size``: width and height in points; None: of
        ``PICTURE_DPI``."""
        height, width = picture.shape[-2:]
        points = size or (width * 72 / PICTURE_DPI, height * 72 / PICTURE_DPI)
        fit = min(1.0, _MAX_POINTS / max(points))
        across, down = points[0] * fit, points[1] * fit
        pdfium = load_pypdfium2()
        with PDFIUM:
            page = self._pdf.new_page(across, down)
            try:
                self._add_picture(pdfium, page, _jpeg(picture), across, down)
                self._add_text(page, lines, (across / width, down / height), down)
                page.gen_content()
            finally:
                page.close()

    def save(self, path: str | Path) -> None:
        """Writes the file in one piece: what was there stays until it is whole. Raises
        ``QwenVLError`` where it cannot be written."""
        path = Path(path)
        unfinished = path.with_name(f"{path.name}.part")
        try:
            with PDFIUM, unfinished.open("wb") as file:
                self._pdf.save(file)
            os.replace(unfinished, path)
        except OSError as error:
            raise QwenVLError(f"{path} cannot be written to: {error.strerror or error}.") from error

    def _add_picture(self, pdfium: Any, page: Any, jpeg: bytes, across: float, down: float) -> None:
        image = pdfium.PdfImage.new(self._pdf)
        image.load_jpeg(BytesIO(jpeg), inline=True)
        image.set_matrix(pdfium.PdfMatrix().scale(across, down))
        page.insert_obj(image)

    def _add_text(
        self, page: Any, lines: Sequence[Box], scale: tuple[float, float], down: float
    ) -> None:
        """``scale``: points a pixel, across and down; ``down``: the page's height in points."""
        texts = [(_visual_order(_printable(line.label)), line) for line in lines]
        codes = _codes(text for text, _ in texts)
        if not codes:
            return
        with _Font(self._pdf, codes) as font:
            for text, line in texts:
                known = [codes[char] for char in text if char in codes]
                if known:
                    font.write(page, known, _matrix(line, len(known), scale, down))


class _Font:
    """The blank font with its own codes for some characters."""

    def __init__(self, pdf: Any, codes: dict[str, int]):
        import pypdfium2.raw as raw

        self._raw, self._pdf = raw, pdf
        data, glyphs = _FONT.read_bytes(), b"\0\0" + b"\0\1" * len(codes)
        # PDFium reads both while the font is in use.
        self._data = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        self._glyphs = (ctypes.c_uint8 * len(glyphs)).from_buffer_copy(glyphs)
        self._font = raw.FPDFText_LoadCidType2Font(
            pdf, self._data, len(data), _to_unicode(codes), self._glyphs, len(glyphs)
        )
        assert self._font, "our own font"

    def __enter__(self) -> _Font:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.FPDFFont_Close(self._font)

    def write(self, page: Any, codes: Sequence[int], matrix: Sequence[float]) -> None:
        """Puts text onto a page, unseen. ``matrix``: from a text of size 1 to the page."""
        raw = self._raw
        text = raw.FPDFPageObj_CreateTextObj(self._pdf, self._font, ctypes.c_float(1))
        raw.FPDFText_SetCharcodes(text, (ctypes.c_uint32 * len(codes))(*codes), len(codes))
        raw.FPDFTextObj_SetTextRenderMode(text, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
        raw.FPDFPageObj_SetMatrix(text, raw.FS_MATRIX(*matrix))
        raw.FPDFPage_InsertObject(page, text)


def _matrix(
    line: Box, count: int, scale: tuple[float, float], down: float
) -> tuple[float, float, float, float, float, float]:
    """Stretches a text of ``count`` squares of size 1 to the box of ``line``: from left to right
    or, where it is much higher than wide, downwards."""
    left, right = line.x1 * scale[0], line.x2 * scale[0]
    top, bottom = down - line.y1 * scale[1], down - line.y2 * scale[1]
    width, height = right - left, top - bottom
    if count > 1 and height > _VERTICAL * width:
        return 0, -height / count, width, 0, left + _DESCENT * width, top
    return width / count, 0, 0, height, left, bottom + _DESCENT * height


def _printable(text: str) -> str:
    """One line without control characters."""
    line = " ".join(text.split())
    return "".join(char for char in line if unicodedata.category(char) not in ("Cc", "Cs"))


def _visual_order(text: str) -> str:
    """``text`` from left to right as it is seen, which is how PDF holds it: runs of right-to-left
    script are reversed and, where the line begins with one, so is the order of runs.

    What has no direction, such as a space, goes with the letters around it, and with the line
    where these differ (rules N1 and N2 of the Unicode bidirectional algorithm).
    """
    strong = [_STRONG.get(unicodedata.bidirectional(char), "") for char in text]
    line = next(filter(None, strong), "L")
    if "R" not in strong:
        return text
    sides = _sides(strong, line)
    runs = [
        (side, "".join(char for _, char in run))
        for side, run in itertools.groupby(zip(sides, text, strict=True), itemgetter(0))
    ]
    ordered = runs if line == "L" else reversed(runs)
    return "".join(run if side == "L" else run[::-1] for side, run in ordered)


def _sides(strong: Sequence[str], line: str) -> list[str]:
    """The direction that each character of a line takes."""
    before = list(itertools.accumulate(strong, lambda last, own: own or last, initial=line))[1:]
    after = list(
        itertools.accumulate(reversed(strong), lambda last, own: own or last, initial=line)
    )[:0:-1]
    return [a if a == b else line for a, b in zip(before, after, strict=True)]


def _codes(texts: Iterable[str]) -> dict[str, int]:
    """A code from 1 for each character."""
    characters = sorted(set().union(*texts))
    return {char: code for code, char in enumerate(characters[:_MAX_CODE], 1)}


def _to_unicode(codes: dict[str, int]) -> bytes:
    """The ToUnicode map of the codes (PDF 32000-1, 9.10.3)."""
    entries = [
        f"<{code:04X}> <{char.encode('utf-16-be').hex().upper()}>" for char, code in codes.items()
    ]
    blocks = [entries[start : start + _BATCH] for start in range(0, len(entries), _BATCH)]
    lines = [
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap",
        "/CIDSystemInfo <</Registry (Adobe) /Ordering (UCS) /Supplement 0>> def",
        "/CMapName /Adobe-Identity-UCS def /CMapType 2 def",
        "1 begincodespacerange <0000> <FFFF> endcodespacerange",
        *(line for block in blocks for line in (f"{len(block)} beginbfchar", *block, "endbfchar")),
        "endcmap CMapName currentdict /CMap defineresource pop end end",
    ]
    return "\n".join(lines).encode("ascii")


def _jpeg(picture: Tensor) -> bytes:
    from PIL import Image

    file = BytesIO()
    pixels = picture.movedim(0, -1).contiguous().cpu().numpy()
    Image.fromarray(pixels, "RGB").save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
