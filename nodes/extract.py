"""Extract node: what a picture shows as JSON of a given form."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..qwenvl.tasks.extract import FORMS, extract, form
from . import host, lists, panels, sockets
from .model import ModelHandle, Question, answer_all

_FORM = "keys"


class Extract(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Extract",
            display_name="Qwen-VL Extract",
            description="Writes what each picture of a batch shows as JSON of the form that you "
            "give. The model is held to it token by token: a whole answer always has that form.",
            search_aliases=["json", "structured output", "schema", "fields", "invoice", "receipt"],
            panels=panels.answer(height=110),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *sockets.model_and_images(),
                io.Combo.Input(
                    "form",
                    options=list(FORMS),
                    default=_FORM,
                    tooltip="What the text below is. keys: names with commas between them, or one "
                    "a line; each value is a text, or null where the picture does not show it. "
                    "example: JSON like what you want, with the same keys and types. schema: a "
                    "JSON schema.",
                ),
                io.String.Input(
                    "fields",
                    default="",
                    multiline=True,
                    tooltip="What to extract, in the form chosen above. Names tell the model what "
                    "is meant: invoice_number is better than number.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Your own words on what to extract and how, in place of the usual "
                    "ones. The form is told to the model behind them.",
                    **sockets.ADVANCED,
                ),
                sockets.max_new_tokens(16384),
                sockets.unreadable("an object that holds the raw reply"),
                sockets.hidden_parts(),
            ],
            outputs=[
                io.String.Output(
                    "json",
                    tooltip="One JSON text a picture. Of one that was cut off, what is whole.",
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
        fields: list[str],
        prompt: Any = "",
        max_new_tokens: Any = 0,
        when_unreadable: Any = sockets.STOP,
        mask: Any = None,
    ) -> io.NodeOutput:
        questions = lists.mapped(
            _question, model, images, form, fields, prompt, max_new_tokens, when_unreadable, mask
        )
        results = [result for answers in answer_all(questions) for result in answers]
        return io.NodeOutput(
            [sockets.found_json(result) for result in results],
            [result.is_complete for result in results],
            ui=host.results_ui(results),
        )


def _question(
    model: ModelHandle,
    images: Any,
    kind: str,
    fields: str,
    prompt: str,
    max_new_tokens: int,
    when_unreadable: str,
    mask: Any,
) -> Question:
    constraint = form(sockets.choice("form", kind, FORMS), sockets.words(fields))
    return Question(
        model,
        extract(constraint, sockets.words(prompt)),
        images,
        sockets.length(max_new_tokens),
        mask=mask,
        keep_unreadable=when_unreadable != sockets.STOP,
    )
