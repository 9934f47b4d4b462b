"""Load PDF node: the pages of a document as pictures, one entry of a list a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..qwenvl.errors import BadImage, BadOption
from ..qwenvl.media import images
from ..qwenvl.media.documents import Document, Resolution
from ..qwenvl.media.page_ranges import page_numbers
from ..qwenvl.models import ram
from . import host, panels, sockets

EXAMPLE = "example (bundled)"
_EXAMPLE_FILE = Path(__file__).resolve().parents[1] / "example_workflows/documents/example.pdf"
_LEAVE_OUT = "leave out"
_SIZES = {
    "longest side": io.Int.Input(
        "longest_side",
        default=1288,
        min=16,
        max=16384,
        tooltip="Pixels of each page's longer side.",
    ),
    "dpi": io.Int.Input(
        "dpi",
        default=150,
        min=1,
        max=2400,
        tooltip="Pixels an inch of paper. A page of A4 at 150 is 1240x1754.",
    ),
}
_BYTES_PER_PIXEL = 3 * 4  # RGB floats, as an IMAGE holds them


class LoadPDF(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_LoadPDF",
            display_name="Qwen-VL Load PDF",
            description="Pages of a PDF document from ComfyUI's input folder as pictures: a list, "
            "since pages may differ in size. To OCR, Describe or any node that takes an IMAGE.",
            search_aliases=["pdf", "document", "pages", "load document", "pdf to image"],
            panels=panels.ERRORS | panels.upload("file", ".pdf"),
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[EXAMPLE, *host.input_names(".pdf")],
                    default=EXAMPLE,
                    tooltip="A PDF in ComfyUI's input folder; the button puts one there. An "
                    "encrypted one opens where the environment variable QVL_PDF_PASSWORD holds its "
                    "password.",
                ),
                io.String.Input(
                    "pages",
                    default="",
                    tooltip="Which pages, from 1: 1-10, or 3, or 2-, or 1,4-6. Empty: all.",
                ),
                io.DynamicCombo.Input(
                    "size",
                    options=[io.DynamicCombo.Option(name, [size]) for name, size in _SIZES.items()],
                    tooltip="How large pages become. longest side: all alike. dpi: as large as the "
                    "paper is.",
                ),
                io.Combo.Input(
                    "broken_pages",
                    options=[sockets.STOP, _LEAVE_OUT],
                    default=sockets.STOP,
                    tooltip="When a page cannot be rendered: stop with an error that names it, or "
                    "leave out such pages; page_numbers tells which are there.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images", tooltip="A list, one picture a page.", is_output_list=True
                ),
                io.Int.Output(
                    "page_numbers",
                    tooltip="A list, the number of each page, from 1.",
                    is_output_list=True,
                ),
                io.Int.Output("page_count", tooltip="How many pages the whole document has."),
                io.String.Output("name", tooltip="The file's name without .pdf."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> str:
        """Another one when the file has changed."""
        try:
            state = _path(file).stat()
        except (OSError, BadOption):  # what runs says what is wrong
            return ""
        return f"{state.st_mtime_ns} {state.st_size}"

    @classmethod
    def execute(
        cls,
        file: str,
        pages: str,
        size: dict[str, Any] | None = None,  # ComfyUI leaves out what is no choice
        broken_pages: str = sockets.STOP,
    ) -> io.NodeOutput:
        keep_going = sockets.choice("broken_pages", broken_pages, [sockets.STOP, _LEAVE_OUT])
        with Document(_path(file)) as document:
            numbers = page_numbers(sockets.words(pages), len(document))
            found = dict(
                _rendered(document, numbers, _resolution(size or {}), keep_going == _LEAVE_OUT)
            )
            return io.NodeOutput(
                list(found.values()), list(found), len(document), Path(document.name).stem
            )


def _path(file: str) -> Path:
    return _EXAMPLE_FILE if file == EXAMPLE else host.input_file(file)


def _resolution(size: Mapping[str, Any]) -> Resolution:
    chosen = sockets.choice("size", size.get("size"), _SIZES)
    name = _SIZES[chosen].id
    return Resolution(**{name: size.get(name, _SIZES[chosen].default)})


def _rendered(
    document: Document, numbers: list[int], resolution: Resolution, keep_going: bool
) -> Iterator[tuple[int, Any]]:
    """IMAGE of each page by its number. Raises ``BadImage`` for a page that cannot be rendered
    unless to ``keep_going``, and always where none can."""
    sizes: dict[int, int] = {}
    errors: list[BadImage] = []
    for number in numbers:
        try:
            height, width = document.rendered_size(number, resolution)
            sizes[number] = height * width * _BYTES_PER_PIXEL
        except BadImage as error:
            errors.append(error)
            if not keep_going:
                raise
    _check_room(sum(sizes.values()), len(sizes))
    bar = host.ProgressBar(len(sizes))
    count = 0
    for done, number in enumerate(sizes, 1):
        host.check_interrupt()
        try:
            yield number, images.to_image([document.picture(number, resolution)])
            count += 1
        except BadImage as error:
            errors.append(error)
            if not keep_going:
                raise
        bar.set(done)
    if not count:
        raise errors[0]


def _check_room(nbytes: int, count: int) -> None:
    """Raises ``BadOption`` where pictures of that many bytes would not fit into memory: the system
    would end ComfyUI."""
    free = ram.available()
    if nbytes > free:
        raise BadOption(
            f"{count} pages of this size take {nbytes / 1e9:.1f} GB as pictures, and "
            f"{free / 1e9:.1f} GB of memory are free. Choose fewer pages at a time, or a smaller "
            "size."
        )
