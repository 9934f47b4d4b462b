"""OCR: reads the text in a picture as plain text, as a document, or as lines with boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from .. import constraints, coordinates
from ..errors import BadOption, UnreadableReply
from ..fine_tunes import FineTune
from ..replies import (
    STILL_THINKING,
    extract_answer,
    has_text_lines,
    is_null,
    loose_json,
    markup,
    read_items,
    strip_fence,
)
from ..replies import scores as scoring
from ..replies.bbox import MAX_ITEMS, parse_numbers
from ..replies.figures import OLMOCR
from ..types import Box, ReplyContext, Result, Task

OUTPUTS: Mapping[str, str] = MappingProxyType(
    {
        "plain": "Read all the text in the image.",
        "markdown": "qwenvl markdown",
        "html": "QwenVL HTML",
        "lines": "Spotting all the text in the image with line-level, and output in JSON format.",
    }
)
"""Output formats, each with the model makers' own prompt."""

_NUMBERS = {"bbox_2d": (4, 8)}
"""Of the box of a line, or the corners of one that is not level."""

_LENGTHS = {"plain": 4096, "markdown": 8192, "html": 8192, "lines": 8192}
"""Tokens: a dense page in HTML, or with a box for each line, takes about twice its text."""

LANGUAGES = (
    "auto", "English", "Chinese", "Traditional Chinese", "Japanese", "Korean", "Arabic", "Hebrew",
    "Hindi", "Thai", "Vietnamese", "Indonesian", "Russian", "Ukrainian", "Greek", "Turkish",
    "German", "French", "Spanish", "Portuguese", "Italian", "Dutch", "Polish", "Czech", "Romanian",
    "Hungarian", "Swedish", "Danish", "Norwegian", "Finnish", "Latin",
)  # fmt: skip
"""Languages to offer; ``ocr`` takes any other name too."""

# A denial mentions the picture and is one line; "no letters of credit" is text that was read.
_WORDS = r"(?:\w+ )?(?:text|words|writing|letters|characters)"
_SOME_TEXT = rf"{_WORDS}(?:,? (?:or|and) {_WORDS})?"
_IMAGE = r"(?:the|this) (?:image|picture|photo|page|document)"
_ABOUT_IT = (
    r"(?: (?:(?:that )?(?:is|are|was|were|can be)|to be))?"
    r"(?: (?:found|visible|present|detected|seen|shown"
    rf"|to (?:read|transcribe|extract)|(?:anywhere )?(?:in|on|within) {_IMAGE}))"
)
_NO_TEXT = re.compile(
    rf"(?:(?:there (?:is|are) no|{_IMAGE} (?:contains|has|shows) no"
    rf"|{_IMAGE} (?:does not|doesn't) (?:contain|have|include|show)(?: any)?"
    rf"|i (?:do not|don't|cannot|can't) (?:see|find|detect) any) {_SOME_TEXT}{_ABOUT_IT}*"
    rf"|no {_SOME_TEXT}{_ABOUT_IT}+|none found"
    r"|(?:图(?:片|像)?中|这张图(?:片|像)?中?)?没有(?:任何|可见的?|可读的?)?(?:文字|文本)(?:内容|信息)?)"
    r"(?:[.!,;。！，；].*)?",
    re.IGNORECASE,
)
# Such words alone may be on a sign, unless the answer had to be JSON or HTML.
_BARE = re.compile(rf"(?:none|no {_WORDS})[.!]?", re.IGNORECASE)
# Longer answers that begin like this are text that was read.
_NO_TEXT_LENGTH = 300
_HTML_FENCE = re.compile(r"```html?[ \t]*\n", re.IGNORECASE)
# The front matter of an olmOCR page: ``key: value`` lines between two rules.
_FRONT_MATTER = re.compile(
    r"---[ \t]*\r?\n((?:[a-z_]{1,40}[ \t]*:[^\n]*\n)+)(?:---[ \t]*(?:\r?\n|\Z)|\Z)"
)
_FRONT_MATTER_KEYS = frozenset(
    ("primary_language", "is_rotation_valid", "rotation_correction", "is_table", "is_diagram")
)
_SCALARS = {"true": True, "false": False, "null": None, "none": None, "": None}
_BOX_COMMENT = re.compile(r"<!--([^<>()]{0,60})\(([^<>()]{1,100})\)\s*-->")


def ocr(
    output: str = "plain",
    language: str = "auto",
    fine_tune: FineTune | None = None,
    min_score: float = 0,
    scores: bool = False,
    strict: str = "auto",
) -> Task:
    """The task to read all text. ``output`` is a key of ``OUTPUTS``:

    ``plain``: text in lines. ``markdown``: a document; the coordinates in the comments at its
    pictures are in pixels, and are boxes too. ``html``: a document whose ``data-bbox`` are in
    pixels, with a box for each block (``label``: its text, or else its class or element) and a
    list of ``{bbox_2d, kind, text, html}`` in ``data``. ``lines``: a box for each line with its
    text as ``label``; ``text`` holds the lines in the order of the reply.

    ``language``: any language as a hint; ``auto`` gives none. ``fine_tune``: ask as it was trained
    to be asked, where it has a prompt for that output. A picture without text gives "" and no
    boxes. ``scores``: compute them for the boxes (see ``replies.scores``); ``min_score``, 0 to 1,
    computes them too, and leaves out what has a lower one: boxes, and of ``lines`` their text.
    ``strict``: whether replies with ``lines`` are held to JSON, see ``constraints.from_items``.
    Raises ``BadOption``.
    """
    if output not in OUTPUTS:
        raise BadOption(f"There is no output {output!r}. Choose one of {', '.join(OUTPUTS)}.")
    scores = scoring.checked(min_score) > 0 or scores
    if scores and output == "plain":
        raise BadOption("Plain text has no boxes to score. Choose the output lines, or html.")
    language = " ".join(language.split())
    hint = "" if language.lower() in ("", "auto") else f" The text in the image is in {language}."
    plain = Task(
        "ocr",
        OUTPUTS[output] + hint,
        partial(_READERS[output], min_score=min_score) if min_score else _READERS[output],
        greedy=True,
        max_new_tokens=_LENGTHS[output],
        logprobs=scores,
        constraint=constraints.from_items(_NUMBERS, strict) if output == "lines" else None,
    )
    return _tuned(plain, output, hint, fine_tune) if fine_tune else plain


def _tuned(task: Task, output: str, hint: str, fine_tune: FineTune) -> Task:
    """``task`` as ``fine_tune`` was trained on it."""
    task = replace(task, longest_side=fine_tune.longest_side)
    prompt = fine_tune.prompt(output)
    if prompt is None:
        return task
    reader = _read_text_of_html if fine_tune.writes_html and output == "plain" else task.parse

    def parse(text: str, context: ReplyContext) -> Result:
        scale = fine_tune.box_scale or context.family.box_scale
        return reader(text, replace(context, family=replace(context.family, box_scale=scale)))

    asked = prompt.rstrip() + hint if hint else prompt
    length = max(_LENGTHS.values())
    return replace(task, prompt=asked, parse=parse, max_new_tokens=length, constraint=None)


def read_any(text: str, context: ReplyContext) -> Result:
    """Parses a reply in any of the output formats. Raises ``UnreadableReply``."""
    answer = extract_answer(text)
    if "data-bbox" in answer:
        return _read_html(text, context)
    if (page := _page(answer)) is not None:
        return page
    if _is_empty_json(answer) or has_text_lines(answer):
        return _read_lines(text, context)
    return _read_markdown(text, context)


def _is_empty_json(answer: str) -> bool:
    return "".join(strip_fence(answer).split()) in ("[]", "{}")


def _page(answer: str) -> Result | None:
    """A page in olmOCR's formats, text with metadata: JSON (``natural_text``), or text after front
    matter. None for any other answer."""
    answer = strip_fence(answer)
    if answer.startswith("{") and '"natural_text"' in answer:
        page = loose_json.members(answer)
        if "natural_text" in page:
            return Result(text=str(page.pop("natural_text") or ""), data=page)
    front_matter = _FRONT_MATTER.match(answer)
    if front_matter is None:
        return None
    rows = (row.partition(":") for row in front_matter[1].splitlines())
    page = {key.strip(): _scalar(value.strip()) for key, _, value in rows}
    if not _FRONT_MATTER_KEYS & page.keys():
        return None
    return Result(text=answer[front_matter.end() :].strip(), data=page)


def _figures_in_pixels(page: Result, context: ReplyContext) -> Result:
    """An olmOCR page with its figures, whose places are those in the picture that the model was
    shown, in pixels of the original, and as boxes."""
    boxes: list[Box] = []

    def in_pixels(found: re.Match[str]) -> str:
        left, top, width, height = (int(found[group]) for group in range(2, 6))
        values = (left, top, left + width, top + height)
        box = coordinates.to_box(values, context, found[1]) if len(boxes) < MAX_ITEMS else None
        if box is None:
            return found[0]
        boxes.append(box)
        x1, y1, x2, y2 = coordinates.integer_box(box)
        return f"![{found[1]}](page_{x1}_{y1}_{x2 - x1}_{y2 - y1}.png)"

    return replace(page, text=OLMOCR.sub(in_pixels, page.text), boxes=tuple(boxes))


def _scalar(text: str) -> Any:
    return _SCALARS.get(text.lower(), int(text) if text.isascii() and text.isdigit() else text)


def _read_plain(text: str, context: ReplyContext) -> Result:
    answer = _answer(text)
    if (page := _page(answer)) is not None:
        return _figures_in_pixels(page, context)
    answer = strip_fence(answer)
    return Result(text="" if _says_no_text(answer) else answer)


def _read_text_of_html(text: str, context: ReplyContext) -> Result:
    """The words of an HTML document with boxes, and the boxes; any other answer as it is."""
    document = markup.strip_unfinished_tag(_without_html_fence(_answer(text)), context.cut)
    blocks = [block.text for block in markup.blocks(document)]
    if not blocks:
        return _read_plain(text, context)
    return replace(_read_html(text, context), text="\n\n".join(filter(None, blocks)))


def _read_lines(text: str, context: ReplyContext, min_score: float = 0) -> Result:
    answer = _answer(text)
    if _says_no_text(answer, bare=True):
        return Result(text="", data=[])
    context = _with_declared_size(answer, context)[0]
    unusable: list[str] = []
    items = read_items(text, "lines", unusable=unusable)
    mapper = coordinates.PixelMapper(context, unusable)
    found, lines = [], []
    scores = scoring.scores(text, [(item.box or (), item.text) for item in items], context.tokens)
    for item, score in zip(items, scores, strict=True):
        box = mapper.box(item.box, item.text, score) if item.box else None
        found += [(item, box)] if box else []
        lines += [item.text] if scoring.is_kept(score, min_score) else []
    if mapper.count and not found:
        raise UnreadableReply(mapper.complaint(), text)
    found = [pair for pair in found if scoring.is_kept(pair[1].score, min_score)]
    return Result(
        text="\n".join(lines),
        boxes=tuple(box for _, box in found),
        data=[
            {
                **item.data,
                "bbox_2d": list(coordinates.integer_box(box)),
                "text": item.text,
                **scoring.entry(box.score),
                **mapper.data(item.box or ()),
            }
            for item, box in found
        ],
        notes=(*mapper.notes(), *scoring.unscored_note([b.score for _, b in found], min_score)),
    )


def _read_markdown(text: str, context: ReplyContext, min_score: float = 0) -> Result:
    answer = _answer(text)
    if _says_no_text(answer):
        return Result(text="")
    if (page := _page(answer)) is not None:
        return _figures_in_pixels(page, context)
    context, answer = _with_declared_size(answer, context)
    mapper = coordinates.PixelMapper(context)
    boxes: list[Box] = []
    document = markup.strip_unfinished_tag(strip_fence(answer), context.cut)
    scores = _comment_scores(document, text, context)

    def in_pixels(comment: re.Match[str]) -> str:
        values = parse_numbers(comment[2])
        if len(values) != 4:  # a comment of the page itself
            return comment[0]
        if mapper.count >= MAX_ITEMS:
            return ""
        box = mapper.box(values, comment[1].strip().lower(), scores.get(comment.start()))
        if box is None:
            return ""
        if scoring.is_kept(box.score, min_score):
            boxes.append(box)
        return f"<!--{comment[1]}({', '.join(map(str, coordinates.integer_box(box)))}) -->"

    document = _BOX_COMMENT.sub(in_pixels, document)
    return Result(
        text=_in_pixels(document, context),
        boxes=tuple(boxes),
        notes=(*mapper.notes(), *scoring.unscored_note([b.score for b in boxes], min_score)),
    )


def _comment_scores(document: str, text: str, context: ReplyContext) -> dict[int, float | None]:
    """The score of each comment with coordinates, by its place in the Markdown ``document``."""
    found = [(comment, parse_numbers(comment[2])) for comment in _BOX_COMMENT.finditer(document)]
    found = [(comment, values) for comment, values in found if len(values) == 4]
    written = [(values, comment[1].strip()) for comment, values in found]
    scores = scoring.scores(text, written, context.tokens)
    return {comment.start(): score for (comment, _), score in zip(found, scores, strict=True)}


def _read_html(text: str, context: ReplyContext, min_score: float = 0) -> Result:
    answer = _answer(text)
    if _says_no_text(answer, bare=True):
        return Result(text="", data=[])
    context, answer = _with_declared_size(answer, context)
    document = markup.strip_unfinished_tag(_without_html_fence(answer), context.cut)
    if not markup.has_tags(document):
        raise UnreadableReply(
            "The model did not answer in HTML. Choose the output plain, which takes any words. It "
            f"wrote: {answer[:200]}",
            text,
        )

    mapper = coordinates.PixelMapper(context)
    blocks = [block for block in markup.blocks(document) if not is_null(block.box)]
    scores = scoring.scores(text, [(block.box, block.label) for block in blocks], context.tokens)
    found = [
        (block, box)
        for block, score in zip(blocks, scores, strict=True)
        if (box := mapper.box(block.box, block.label, score)) and scoring.is_kept(score, min_score)
    ]
    return Result(
        text=_in_pixels(document, context),
        boxes=tuple(box for _, box in found),
        data=[
            {
                "bbox_2d": list(coordinates.integer_box(box)),
                "kind": block.kind,
                "text": block.text,
                "html": block.html.strip(),
                **scoring.entry(box.score),
                **mapper.data(block.box),
            }
            for block, box in found
        ],
        notes=(*mapper.notes(), *scoring.unscored_note([b.score for _, b in found], min_score)),
    )


def _without_html_fence(answer: str) -> str:
    """The content of an HTML document's code fence; the page itself may contain fences."""
    opening = _HTML_FENCE.search(answer)
    if opening is None:
        return answer
    inside = answer[opening.end() :]
    closing = inside.rfind("```")
    return inside[: closing if closing >= 0 else None].strip()


_READERS: Mapping[str, Callable[..., Result]] = {
    "plain": _read_plain,
    "markdown": _read_markdown,
    "html": _read_html,
    "lines": _read_lines,
}


def _answer(text: str) -> str:
    """The answer in ``text``; it may be empty, unless the thinking never ended."""
    answer = extract_answer(text)
    if not answer and text.lstrip().startswith("<think>"):
        raise UnreadableReply(STILL_THINKING, text)
    return answer


def _says_no_text(answer: str, bare: bool = False) -> bool:
    """Whether the model says that there is no text. ``bare``: one or two words are enough.

    Capitals are text that was read: a model's own sentences are not in capitals.
    """
    if len(answer) > _NO_TEXT_LENGTH:
        return False
    if not answer or (bare and _BARE.fullmatch(answer)):
        return True
    return not answer.isupper() and _NO_TEXT.fullmatch(answer.replace("’", "'")) is not None


def _with_declared_size(answer: str, context: ReplyContext) -> tuple[ReplyContext, str]:
    """``context`` with the input size that the reply declares, if any; the rest of the reply."""
    size, rest = markup.declared_size(answer)
    return (replace(context, input_size=size) if size else context), rest


def _in_pixels(document: str, context: ReplyContext) -> str:
    """``document`` with each ``data-bbox`` in pixels of the picture; invalid ones are removed."""

    def in_pixels(values: tuple[float, ...]) -> str:
        box = coordinates.to_box(values, context) if len(values) == 4 else None
        return " ".join(map(str, coordinates.integer_box(box))) if box else ""

    return markup.rewrite_boxes(document, in_pixels)
