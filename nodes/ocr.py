"""OCR node: pictures of pages, signs and screens to text, with boxes of lines or blocks."""

from __future__ import annotations

import functools
from typing import Any

from comfy_api.latest import io

from ..qwenvl import fine_tunes
from ..qwenvl.reading import AUTO, OFF, tile_reading
from ..qwenvl.replies.tables import Table, tables
from ..qwenvl.tasks.ocr import LANGUAGES, OUTPUTS, ocr
from ..qwenvl.types import Result
from . import box_values, host, lists, panels, sockets
from .model import ModelHandle, Question, answer_all, pictures

# Longest side in pixels. On pages scanned at 300 dpi these models repeat themselves; 1288 is what
# olmOCR was fine-tuned with.
PAGE_SIZES = {
    "longest side 1024 px": 1024,
    "longest side 1288 px (olmOCR)": 1288,
    "longest side 2048 px": 2048,
    "as it is": 0,
}
_PAGE_SIZE = "longest side 1288 px (olmOCR)"
_OTHER = "other"
_TABLES_AS = {"markdown": Table.markdown, "csv": Table.csv}


class OCR(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_OCR",
            display_name="Qwen-VL OCR",
            description="Reads the text in each picture of a batch: plain, as Markdown or HTML, or "
            "line by line with boxes.",
            search_aliases=["read text", "text recognition", "document", "markdown", "scan"],
            panels=panels.answer(height=110) | panels.boxes(),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *sockets.model_and_images("page"),
                io.Combo.Input(
                    "output",
                    options=list(OUTPUTS),
                    default="plain",
                    tooltip="plain: the words. markdown and html: a document with its tables and "
                    "headings. All but plain can give boxes.",
                ),
                io.DynamicCombo.Input(
                    "language",
                    options=[
                        *(io.DynamicCombo.Option(name, []) for name in LANGUAGES),
                        io.DynamicCombo.Option(
                            _OTHER,
                            [
                                io.String.Input(
                                    "other_language",
                                    default="",
                                    tooltip="Any language or script, in words: Old Norse runes.",
                                )
                            ],
                        ),
                    ],
                    tooltip="A hint; auto is right for most pictures.",
                ),
                io.Combo.Input(
                    "page_size",
                    options=list(PAGE_SIZES),
                    default=_PAGE_SIZE,
                    tooltip="Larger pictures are shrunk to this before the model sees them: pages "
                    "at 300 dpi make it repeat itself. Boxes stay in the picture's own pixels. A "
                    "preset's own size goes before the default one.",
                    **sockets.ADVANCED,
                ),
                sockets.max_new_tokens(32768),
                sockets.unreadable(),
                sockets.hidden_parts(),
                io.Combo.Input(
                    "preset",
                    options=list(fine_tunes.PRESETS),
                    default=fine_tunes.AUTO,
                    tooltip="Fine-tunes for reading were trained on a prompt and a page size of "
                    "their own. auto: those of the model, told by its name. none: ask it as any "
                    "other model.",
                    **sockets.ADVANCED,
                ),
                sockets.strict(
                    "Only for lines, and for plain where it is read in tiles: holds what the model "
                    "writes to JSON that can be read.",
                    "a line where no text is",
                ),
                io.Combo.Input(
                    "tiles",
                    options=[OFF, AUTO],
                    default=OFF,
                    tooltip="auto: pages over 2576 pixels are read in overlapping tiles, line by "
                    "line, and put together; for plain and lines. off: every page in one look.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "tables_as",
                    options=list(_TABLES_AS),
                    default="markdown",
                    tooltip="The form of the output tables. A cell that spans several columns or "
                    "rows stands in each of them; in text, HTML tables stay as they are.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[
                io.String.Output("text", tooltip="One text a picture.", is_output_list=True),
                *sockets.box_outputs(),
                io.String.Output(
                    "tables",
                    tooltip="One text a picture: its tables, with an empty line between; empty "
                    "where there is none.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        model: list[ModelHandle],
        images: list[Any],
        output: list[str],
        language: dict[str, list[str]] | None = None,  # ComfyUI leaves out what is no choice
        page_size: Any = _PAGE_SIZE,
        max_new_tokens: Any = 0,
        when_unreadable: Any = sockets.STOP,
        mask: Any = None,
        preset: Any = fine_tunes.AUTO,
        strict: Any = sockets.STRICT[0],
        tiles: Any = OFF,
        tables_as: Any = "markdown",
    ) -> io.NodeOutput:
        asked = lists.mapped(
            _question,
            model,
            images,
            output,
            language,
            page_size,
            max_new_tokens,
            when_unreadable,
            mask,
            preset,
            strict,
            tiles,
            tables_as,
        )
        questions = [question for question, _ in asked]
        answers = answer_all(questions, draw=True)
        results = [result for found in answers for result in found]
        placed = any(result.boxes for result in results)
        return io.NodeOutput(
            [result.text for result in results],
            [box_values.bounding_boxes(found, read=True) for found in answers],
            [
                box_values.annotated(question.images, found, host.check_interrupt)
                for question, found in zip(questions, answers, strict=True)
            ],
            [
                _tables(result, form)
                for found, (_, form) in zip(answers, asked, strict=True)
                for result in found
            ],
            ui=host.results_ui(results, pictures(questions) if placed else None),
        )


def _question(
    model: ModelHandle,
    images: Any,
    output: str,
    language: dict[str, str] | None,
    page_size: str,
    max_new_tokens: int,
    when_unreadable: str,
    mask: Any,
    preset: str,
    strict: str,
    tiles: str,
    tables_as: str,
) -> tuple[Question, str]:
    """What is asked, and the form of the tables in its answers."""
    language = language or {}
    chosen = sockets.choice("language", language.get("language"), [*LANGUAGES, _OTHER])
    asked = functools.partial(
        ocr,
        language=sockets.words(language.get("other_language")) if chosen == _OTHER else chosen,
        fine_tune=fine_tunes.preset(preset, model.name),
        strict=sockets.choice("strict", strict, sockets.STRICT),
    )
    task = asked(sockets.choice("output", output, OUTPUTS))
    reading = tile_reading(
        sockets.choice("tiles", tiles, (OFF, AUTO)),
        output,
        functools.partial(asked, "lines"),
        (model.min_pixels, model.max_pixels),
    )
    longest_side = PAGE_SIZES[sockets.choice("page_size", page_size, PAGE_SIZES)]
    if page_size == _PAGE_SIZE and task.longest_side:
        longest_side = task.longest_side
    question = Question(
        model,
        task,
        images,
        sockets.length(max_new_tokens),
        longest_side=longest_side,
        mask=mask,
        keep_unreadable=when_unreadable != sockets.STOP,
        method_of=(lambda _: reading.steps) if reading else None,
    )
    return question, sockets.choice("tables_as", tables_as, _TABLES_AS)


def _tables(result: Result, form: str) -> str:
    """The tables of a page in one text; a reply that could not be read has none."""
    found = () if result.error else tables(result.text)
    return "\n".join(_TABLES_AS[form](table) for table in found)
