"""Describe node: captions, tags, prompts, or the answer to a prompt of one's own."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..qwenvl.errors import BadOption
from ..qwenvl.styles import Style
from ..qwenvl.tasks.choose import choose
from ..qwenvl.tasks.describe import describe, known_styles
from ..qwenvl.types import THINKING_TOKENS
from ..qwenvl.yaml_files import Found
from . import host, lists, panels, sockets, styles
from .model import ModelHandle, Question, answer_all, joined


def _number(name: str, default: float, low: float, high: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=low, max=high, step=0.01, tooltip=tooltip)


# Each choice shows only what it uses; the names are those of the engine's ``Sampling``.
SAMPLING = [
    io.DynamicCombo.Option("model default", []),
    io.DynamicCombo.Option("greedy", []),
    io.DynamicCombo.Option(
        "custom",
        [
            _number("temperature", 0.7, 0.0, 2.0, "Higher is more varied. 0: the likeliest word."),
            _number("top_p", 0.8, 0.01, 1.0, "Only likely tokens that sum to this. 1: all."),
            io.Int.Input(
                "top_k",
                default=20,
                min=0,
                max=1000,
                tooltip="Only this many of the likeliest tokens. 0: all.",
            ),
            _number("min_p", 0.0, 0.0, 1.0, "Least share of the likeliest token's chance."),
            _number("repetition_penalty", 1.0, 1.0, 2.0, "Above 1: used tokens become rarer."),
            _number("presence_penalty", 1.5, 0.0, 2.0, "Above 0: fewer repetitions."),
        ],
    ),
]


def sampling_of(choice: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``Sampling`` that the sampling widget sets; the others stay the model's."""
    sockets.choice("sampling", choice.get("sampling"), [option.key for option in SAMPLING])
    if choice["sampling"] == "greedy":
        return {"temperature": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0}
    return {name: value for name, value in choice.items() if name != "sampling"}


class Describe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Describe",
            display_name="Qwen-VL Describe",
            description="Describes each picture of a batch, or answers your question about it. One "
            "text a picture, in order.",
            search_aliases=["caption", "image to text", "interrogate", "tagger", "vqa", "ask"],
            panels=panels.words("style", "prompt", styles.ROUTE) | panels.answer(height=150),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *sockets.model_and_images(),
                io.Combo.Input(
                    "style",
                    options=list(known_styles(styles.read())),
                    default="detailed",
                    tooltip="What to write; html, svg, mermaid and drawio rewrite the picture as "
                    "code. Own ones are YAML files in user/default/qwen-vl/styles; press R after "
                    "adding one. Not used where the prompt below is not empty.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Your own question or instruction. Takes the place of the style.",
                ),
                io.Int.Input(
                    "max_new_tokens",
                    default=0,
                    min=0,
                    max=40960,
                    tooltip="The longest a text may get; one that is cut off is reported. 0: as "
                    "long as the style may need. Thoughts are counted apart.",
                ),
                io.DynamicCombo.Input(
                    "sampling",
                    options=SAMPLING,
                    tooltip="model default: the makers' values for its family; greedy for code. "
                    "greedy: always the likeliest word, no chance. custom: your own values.",
                ),
                sockets.seed(
                    "Equal seed, equal text, alone or in a batch. Greedy takes no chances "
                    "and gives the same text for every seed."
                ),
                sockets.system_prompt(),
                sockets.thinking(),
                sockets.max_thinking_tokens(),
                sockets.unreadable(),
                sockets.hidden_parts(),
                io.Boolean.Input(
                    "together",
                    default=False,
                    optional=True,
                    tooltip="Asks about all pictures at once, such as the pages of a document: one "
                    "text for all. Off: one text a picture.",
                ),
                io.String.Input(
                    "choices",
                    default="",
                    multiline=True,
                    tooltip="The model answers with one of these, word for word: a choice a line, "
                    "or with commas between them, such as yes, no. The prompt is the question; "
                    "where it is empty, which of them fits best. The style is not used.",
                    **sockets.ADVANCED,
                ),
                sockets.reasoning_effort(),
            ],
            outputs=[
                io.String.Output(
                    "text",
                    tooltip="One text a picture; one for all that are asked about together.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "thinking_text",
                    display_name="thinking",
                    tooltip="The thought before each text; empty for models that do not think.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, style: Any = None, prompt: Any = None, choices: Any = "", sampling: Any = None
    ) -> bool | str:
        """Replaces ComfyUI's own check of the styles, to say where one of that name goes. Sampling
        is named since a check that leaves out an input with inputs of its own fails."""
        prompts = lists.known(prompt)
        others = [*prompts, *lists.known(choices)]  # which take the place of the style
        if not prompts or any(str(text).strip() for text in others):
            return True
        try:
            for name in lists.known(style):
                describe(str(name), own=styles.read())
        except BadOption as error:
            return f"{error} {styles.where()}"
        return True

    @classmethod
    def fingerprint_inputs(cls, style: Any = None, **_: Any) -> str:
        """Another one when the style's file has changed."""
        known = styles.read().items
        return repr([known.get(name) for name in lists.known(style) if isinstance(name, str)])

    @classmethod
    def execute(
        cls,
        *,
        model: list[ModelHandle],
        images: list[Any],
        style: list[str],
        prompt: list[str],
        max_new_tokens: list[int],
        sampling: dict[str, list[Any]] | None = None,  # ComfyUI leaves out what is no choice
        seed: list[int],
        system_prompt: Any = "",
        thinking: Any = "model default",
        max_thinking_tokens: Any = THINKING_TOKENS,
        when_unreadable: Any = sockets.STOP,
        mask: Any = None,
        together: Any = False,
        choices: Any = "",
        reasoning_effort: Any = "",
    ) -> io.NodeOutput:
        questions = lists.mapped(
            partial(_question, styles.read()),
            model,
            images,
            style,
            prompt,
            max_new_tokens,
            sampling,
            seed,
            system_prompt,
            thinking,
            max_thinking_tokens,
            when_unreadable,
            mask,
            together,
            choices,
            reasoning_effort,
        )
        results = [result for answers in answer_all(joined(questions)) for result in answers]
        return io.NodeOutput(
            [result.text for result in results],
            [result.thinking for result in results],
            ui=host.results_ui(results),
        )


def _question(
    own: Found[Style],
    model: ModelHandle,
    images: Any,
    style: str,
    prompt: str,
    max_new_tokens: int,
    sampling: dict[str, Any] | None,
    seed: int,
    system_prompt: str,
    thinking: str,
    max_thinking_tokens: int,
    when_unreadable: str,
    mask: Any,
    together: bool,
    choices: str,
    reasoning_effort: str,
) -> Question:
    prompt, system, choices = map(sockets.words, (prompt, system_prompt, choices))
    if choices.strip():
        task = choose(choices, prompt, system)
    elif prompt.strip() or isinstance(style, str):
        task = describe(style, prompt, system, own)
    else:
        raise own.missing(str(style), known_styles(own))
    return Question(
        model,
        task,
        images,
        {
            **sampling_of(sampling or {}),
            **sockets.length(max_new_tokens),
            "max_thinking_tokens": max_thinking_tokens,
            "seed": seed,
        },
        thinking=sockets.THINKING[sockets.choice("thinking", thinking, sockets.THINKING)],
        mask=mask,
        keep_unreadable=when_unreadable != sockets.STOP,
        together=bool(together),
        reasoning_effort=sockets.words(reasoning_effort).strip(),
    )
