"""Fine-tunes: what some do in another way than the family whose ``model_type`` they carry.

A fine-tune that is not in this table is asked and read as its family. Names are those of the
checkpoints' folders, which keep the hub's. Prompts are the makers' own, word for word, since the
models were trained on them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import BadOption
from .types import Family

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class FineTune:
    """One fine-tune, or several that are asked alike.

    ``names``: whole words in the names of its checkpoints, lower case. ``prompts``: for reading
    text, by output format (see ``tasks.ocr.OUTPUTS``); formats that it was not trained on have
    none. ``writes_html``: replies to them are HTML with ``data-bbox``, whatever the format.
    ``longest_side``: pixels of the pictures that it was trained on (0: not known). ``box_scale``:
    see ``Family`` (None: as its family).
    """

    title: str
    names: tuple[str, ...]
    prompts: Mapping[str, str] = field(default_factory=dict)
    writes_html: bool = False
    longest_side: int = 0
    box_scale: int | None = None


_OLMOCR = (
    "Attached is one page of a document that you must process. Just return the plain text "
    "representation of this document as if you were reading it naturally. Convert equations to "
    "LateX and tables to {tables}.\n{figures}Return your output as markdown, with a front matter "
    "section on top specifying values for the primary_language, is_rotation_valid, "
    "rotation_correction, is_table, and is_diagram parameters."
)
_OLMOCR_FIGURES = (
    "If there are any figures or charts, label them with the following markdown syntax ![Alt text "
    "describing the contents of the figure](page_startx_starty_width_height.png)\n"
)
_ROLMOCR = (
    "Return the plain text representation of this document as if you were reading it naturally.\n"
)
_NANONETS = (
    "Extract the text from the above document as if you were reading it naturally. Return the "
    "tables in html format. Return the equations in LaTeX representation. If there is an image in "
    "the document and image caption is not present, add a small description of the image inside "
    "the <img></img> tag; otherwise, add the image caption inside <img></img>. Watermarks should "
    "be wrapped in brackets. Ex: <watermark>OFFICIAL COPY</watermark>. Page numbers should be "
    "wrapped in brackets. Ex: <page_number>14</page_number> or <page_number>9/22</page_number>. "
    "Prefer using ☐ and ☑ for check boxes."
)
_CHANDRA = """\
OCR this image to HTML, arranged as layout blocks.  Each layout block should be a div with the \
data-bbox attribute representing the bounding box of the block in [x0, y0, x1, y1] format.  Bboxes \
are normalized 0-1024. The data-label attribute is the label for the block.

Use the following labels:
- Caption
- Footnote
- Equation-Block
- List-Group
- Page-Header
- Page-Footer
- Image
- Section-Header
- Table
- Text
- Complex-Block
- Code-Block
- Form
- Table-Of-Contents
- Figure

Only use these tags ['math', 'br', 'i', 'b', 'u', 'del', 'sup', 'sub', 'table', 'tr', 'td', 'p', \
'th', 'div', 'pre', 'h1', 'h2', 'h3', 'h4', 'h5', 'ul', 'ol', 'li', 'input', 'a', 'span', 'img', \
'hr', 'tbody', 'small', 'caption', 'strong', 'thead', 'big', 'code'], and these attributes \
['class', 'colspan', 'rowspan', 'display', 'checked', 'type', 'border', 'value', 'style', 'href', \
'alt', 'align'].

Guidelines:
* Inline math: Surround math with <math>...</math> tags. Math expressions should be rendered in \
KaTeX-compatible LaTeX. Use display for block math.
* Tables: Use colspan and rowspan attributes to match table structure.
* Formatting: Maintain consistent formatting with the image, including spacing, indentation, \
subscripts/superscripts, and special characters.
* Images: Include a description of any images in the alt attribute of an <img> tag. Do not fill \
out the src property.
* Forms: Mark checkboxes and radio buttons properly.
* Text: join lines together properly into paragraphs using <p>...</p> tags.  Use <br> tags for \
line breaks within paragraphs, but only when absolutely necessary to maintain meaning.
* Use the simplest possible HTML structure that accurately represents the content of the block.
* Make sure the text is accurate and easy for a human to read and interpret.  Reading order should \
be correct and natural."""


def _for_text(prompt: str) -> dict[str, str]:
    """``prompt`` for the formats whose replies are kept as they are."""
    return {"plain": prompt, "markdown": prompt}


FINE_TUNES: Mapping[str, FineTune] = {
    tune.title: tune
    for tune in (
        FineTune(
            "olmOCR 2",
            ("olmocr-2",),
            _for_text(_OLMOCR.format(tables="HTML", figures=_OLMOCR_FIGURES)),
            longest_side=1288,
        ),
        # The first olmOCR (0225) was asked with the text of a PDF beside the picture.
        FineTune(
            "olmOCR 0725/0825",
            ("olmocr-7b-0725", "olmocr-7b-0825"),
            _for_text(_OLMOCR.format(tables="markdown", figures="")),
            longest_side=1288,
        ),
        FineTune("RolmOCR", ("rolmocr",), _for_text(_ROLMOCR)),
        FineTune("Nanonets-OCR", ("nanonets-ocr2", "nanonets-ocr-s"), _for_text(_NANONETS)),
        # Its makers find a page's parts first, and ask this about each of them.
        FineTune("MinerU2.5", ("mineru2.5",), _for_text("\nText Recognition:")),
        FineTune(
            "Chandra",
            ("chandra",),
            {"plain": _CHANDRA, "html": _CHANDRA},
            writes_html=True,
            longest_side=3072,
            box_scale=1024,
        ),
        FineTune("R1-Onevision", ("r1-onevision",), longest_side=518),
    )
}
PRESETS = (AUTO, NONE, *(tune.title for tune in FINE_TUNES.values() if tune.prompts))
"""What may be chosen for reading text: by the checkpoint's name, as any other model, or by name."""


def by_name(checkpoint: str) -> FineTune | None:
    """The row for a checkpoint's name, folder or ``owner/name``; None for what is in no row."""
    for tune in FINE_TUNES.values():
        words = "|".join(map(re.escape, tune.names))
        if re.search(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])", checkpoint.lower()):
            return tune
    return None


def preset(choice: str, checkpoint: str) -> FineTune | None:
    """The row that ``choice``, one of ``PRESETS``, means for the checkpoint of that name. Raises
    ``BadOption`` for another choice."""
    if choice not in PRESETS:
        raise BadOption(f"preset is {choice!r}; use one of: {', '.join(PRESETS)}.")
    return by_name(checkpoint) if choice == AUTO else FINE_TUNES.get(choice)


def as_tuned(family: Family, checkpoint: str) -> Family:
    """``family``, reading boxes as the fine-tune writes them whose name ``checkpoint`` is."""
    tune = by_name(checkpoint)
    if tune is None or tune.box_scale is None:
        return family
    title = f"{tune.title} ({family.title})"
    return dataclasses.replace(family, title=title, box_scale=tune.box_scale)
