"""Pictures to words: captions, tags, prompts, or the answer to a question of one's own."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..qwenvl.tasks.describe import STYLES, describe
from ..qwenvl.types import THINKING_TOKENS
from . import host, sockets
from .model import ModelHandle

THINKING = {"model default": None, "on": True, "off": False}


def _number(name: str, default: float, low: float, high: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=low, max=high, step=0.01, tooltip=tooltip)


# Each choice shows only what it uses; the names are those of the engine's ``Sampling``.
_SAMPLING = [
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
            is_output_node=True,
            inputs=[
                sockets.Model.Input("model", tooltip="From the Qwen-VL Loader."),
                io.Image.Input("images", tooltip="One picture or a batch."),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default="detailed",
                    tooltip="What to write. Not used where the prompt below is not empty.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Your own question or instruction. Takes the place of the style.",
                ),
                io.Int.Input(
                    "max_new_tokens",
                    default=1024,
                    min=1,
                    max=40960,
                    tooltip="The longest a text may get. Thoughts are counted apart.",
                ),
                io.DynamicCombo.Input(
                    "sampling",
                    options=_SAMPLING,
                    tooltip="model default: the makers' values for its family. greedy: always the "
                    "likeliest word, no chance. custom: your own values.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=(1 << 64) - 1,
                    # Not within ``sampling``: the front end would add a control at each change.
                    control_after_generate="fixed",  # as text: older ComfyUI has no enum for it
                    tooltip="Equal seed, equal text, alone or in a batch. Greedy takes no chances "
                    "and gives the same text for every seed.",
                ),
                io.String.Input(
                    "system_prompt",
                    default="",
                    multiline=True,
                    tooltip="Standing instruction before the question, such as a role or a form.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "thinking",
                    options=list(THINKING),
                    default="model default",
                    tooltip="Whether a model that has the choice (Qwen3.5 and newer) thinks first.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "max_thinking_tokens",
                    default=THINKING_TOKENS,
                    min=0,
                    max=40960,
                    tooltip="The longest a thought may get before the model must answer. Only for "
                    "models that think.",
                    **sockets.ADVANCED,
                ),
                sockets.unreadable(),
            ],
            outputs=[
                io.String.Output("text", tooltip="One text a picture.", is_output_list=True),
                io.String.Output(
                    "thinking_text",
                    display_name="thinking",
                    tooltip="The thought before each text; empty for models that do not think.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelHandle,
        images: Any,
        style: str,
        prompt: str,
        max_new_tokens: int,
        sampling: dict[str, Any],
        seed: int,
        system_prompt: str = "",
        thinking: str = "model default",
        max_thinking_tokens: int = THINKING_TOKENS,
        when_unreadable: str = sockets.STOP,
    ) -> io.NodeOutput:
        task = describe(style, prompt, system_prompt)
        chosen = {
            **sampling_of(sampling),
            "max_new_tokens": max_new_tokens,
            "max_thinking_tokens": max_thinking_tokens,
            "seed": seed,
        }
        results = model.answer(
            task,
            images,
            chosen,
            thinking=THINKING[thinking],
            keep_unreadable=when_unreadable != sockets.STOP,
        )
        return io.NodeOutput(
            [result.text for result in results],
            [result.thinking for result in results],
            ui=host.shown(results),
        )
