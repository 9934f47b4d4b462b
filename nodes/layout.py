"""Layout node: pictures to captions, elements in their places and colours."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..qwenvl.layouts import FORMS, LayoutResult, Wanted, elements
from ..qwenvl.tasks.layout import MAX_ELEMENTS
from ..qwenvl.types import Result
from . import box_values, host, lists, panels, sockets
from .model import ModelHandle, Question, answer_all, pictures


class Layout(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Layout",
            display_name="Qwen-VL Layout",
            description="Writes what each picture of a batch consists of: caption, background, "
            "style, and each thing and text in its place with its colours, as layout prompts of "
            "image generators take them.",
            search_aliases=["ideogram", "flux", "composition", "regions", "palette", "json prompt"],
            panels=panels.answer(height=110) | panels.boxes(),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *sockets.model_and_images(),
                io.Combo.Input(
                    "form",
                    options=list(FORMS),
                    default="ideogram",
                    tooltip="Of the JSON. ideogram: the captions of Ideogram 4, as its prompt and "
                    "for training. plain: all there is, with boxes in pixels.",
                ),
                io.Int.Input(
                    "max_elements",
                    default=20,
                    min=1,
                    max=MAX_ELEMENTS,
                    tooltip="At most this many things and texts in a picture.",
                ),
                io.String.Input(
                    "instructions",
                    default="",
                    multiline=True,
                    tooltip="More on what to write, in your own words: a language, what matters, "
                    "what to leave out.",
                    **sockets.ADVANCED,
                ),
                sockets.max_new_tokens(16384),
                sockets.unreadable("an object that holds the raw reply"),
                sockets.hidden_parts(),
            ],
            outputs=[
                io.String.Output(
                    "json", tooltip="The layout, one JSON text a picture.", is_output_list=True
                ),
                io.String.Output(
                    "caption",
                    tooltip="What each picture shows, in one or two sentences.",
                    is_output_list=True,
                ),
                *sockets.box_outputs(),
                sockets.Elements.Output(
                    "elements",
                    tooltip="Per picture a list of elements as layout prompts of image generators "
                    "read them: type, bbox in 0-1000, text, desc, color_palette.",
                    is_output_list=True,
                ),
                sockets.complete(),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list[ModelHandle],
        images: list[Any],
        form: list[str],
        max_elements: list[int],
        instructions: Any = "",
        max_new_tokens: Any = 0,
        when_unreadable: Any = sockets.STOP,
        mask: Any = None,
    ) -> io.NodeOutput:
        questions = lists.mapped(
            _question,
            model,
            images,
            form,
            max_elements,
            instructions,
            max_new_tokens,
            when_unreadable,
            mask,
        )
        answers = answer_all(questions, draw=True)
        results = [result for found in answers for result in found]
        layouts = [_layout(result) for result in results]
        return io.NodeOutput(
            [sockets.found_json(result) for result in results],
            [layout["caption"] for layout in layouts],
            [[_boxes(result) for result in found] for found in answers],
            [
                box_values.annotated(question.images, found, host.check_interrupt)
                for question, found in zip(questions, answers, strict=True)
            ],
            [elements(layout) for layout in layouts],
            [result.is_complete for result in results],
            ui=host.results_ui(results, pictures(questions)),
        )


def _layout(result: Result) -> Any:
    return result.layout if isinstance(result, LayoutResult) else {"caption": "", "elements": []}


def _boxes(result: Result) -> list[dict[str, Any]]:
    """BOUNDING_BOX of one picture, with all that core's box nodes read of an element."""
    return [
        {
            **box_values.bounding_box(box),
            "metadata": {
                "type": element["type"],
                "text": element.get("text", ""),
                "desc": element["desc"],
                "palette": element["palette"],
            },
        }
        for box, element in zip(result.boxes, _layout(result)["elements"], strict=True)
    ]


def _question(
    model: ModelHandle,
    images: Any,
    form: str,
    max_elements: int,
    instructions: str,
    max_new_tokens: int,
    when_unreadable: str,
    mask: Any,
) -> Question:
    wanted = Wanted(sockets.choice("form", form, FORMS), max_elements, sockets.words(instructions))
    return Question(
        model,
        wanted.task,
        images,
        sockets.length(max_new_tokens),
        mask=mask,
        keep_unreadable=when_unreadable != sockets.STOP,
        method_of=lambda number: wanted.method,
    )
