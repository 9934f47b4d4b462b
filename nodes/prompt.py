"""Prompt node: an idea and pictures to a prompt for an image or video model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..qwenvl.errors import BadOption
from ..qwenvl.prompt_writing import MOST_TRIES, Order, Targets, Wishes, choose, listed, read_targets
from ..qwenvl.types import LocalSpec, Result
from . import host, lists, panels, sockets
from .model import Asked, ModelHandle, Question, answer_all, joined

THINKING = {"target default": None, "on": True, "off": False}


class Prompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Prompt",
            display_name="Qwen-VL Prompt",
            description="Writes a prompt for an image or video model out of an idea, pictures or "
            "both, in the form that this model was trained on.",
            search_aliases=[
                "prompt enhancer",
                "prompt expand",
                "rewrite",
                "upsampling",
                "text to prompt",
                "negative prompt",
            ],
            panels=panels.answer(height=110),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                sockets.model_input(),
                io.String.Input(
                    "idea",
                    default="",
                    multiline=True,
                    tooltip="What the prompt is to be about, or what is to be changed in the "
                    "pictures. Of words in braces with bars between them one is drawn by the "
                    "seed. May be empty where pictures are connected.",
                ),
                io.Combo.Input(
                    "target",
                    options=list(_targets().items),
                    default="qwen_image",
                    tooltip="The model that the prompt is for. Own ones are YAML files in "
                    "user/default/qwen-vl/targets; press R after adding one.",
                ),
                sockets.seed(
                    "Another seed, another prompt and other choices; an equal one gives the same."
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="One picture, a batch, or a list: a prompt for each, that makes it "
                    "anew, moves it, or changes it as the idea says.",
                ),
                io.String.Input(
                    "must_appear",
                    default="",
                    optional=True,
                    tooltip="Words that the prompt has to hold as they are, with commas between.",
                ),
                io.String.Input(
                    "must_not_appear",
                    default="",
                    optional=True,
                    tooltip="What the prompt is not to describe, with commas between; none of "
                    "these words may stand in it. They go into the negative prompt, too.",
                ),
                io.String.Input(
                    "trigger_words",
                    default="",
                    optional=True,
                    tooltip="Stand before the prompt as they are, such as those of a LoRA.",
                ),
                io.Int.Input(
                    "ask_again",
                    default=2,
                    min=0,
                    max=MOST_TRIES,
                    tooltip="How often a prompt is asked for again that lacks words, holds "
                    "unwanted ones, or is too long. The best try stays, and the node says what it "
                    "lacks.",
                    **sockets.ADVANCED,
                ),
                io.Float.Input(
                    "megapixels",
                    default=0.0,
                    min=0.0,
                    max=64.0,
                    step=0.1,
                    tooltip="Of width and height, where the target's replies name a ratio. 0: the "
                    "target's own.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "thinking",
                    options=list(THINKING),
                    default="target default",
                    tooltip="Whether a model that has the choice thinks first.",
                    **sockets.ADVANCED,
                ),
                sockets.max_new_tokens(40960),
                sockets.unreadable("the raw reply"),
                sockets.hidden_parts(),
                io.Boolean.Input(
                    "together",
                    default=False,
                    optional=True,
                    tooltip="One prompt about all pictures at once, such as an edit that takes "
                    "something from one into another. Off: a prompt for each.",
                ),
            ],
            outputs=[
                io.String.Output("prompt", tooltip="One a picture or idea.", is_output_list=True),
                io.String.Output(
                    "negative",
                    tooltip="What is not to be seen. Empty where the target's model takes none.",
                    is_output_list=True,
                ),
                io.Int.Output(
                    "width",
                    tooltip="In pixels, of the ratio that the reply names. Only targets whose "
                    "replies name one (qwen_image_2_1) give it.",
                    is_output_list=True,
                ),
                io.Int.Output(
                    "height",
                    tooltip="In pixels, of the ratio that the reply names.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "json",
                    tooltip="All that is known of each prompt: ratio, length in tokens, words that "
                    "are missing or unwanted, tries.",
                    is_output_list=True,
                ),
                sockets.complete(),
            ],
        )

    @classmethod
    def validate_inputs(cls, target: Any = None) -> bool | str:
        """Replaces ComfyUI's own check of the list, to say where a target of that name goes."""
        try:
            for name in lists.known(target):
                _targets()[str(name)]
        except BadOption as error:
            return f"{error} {_where()}"
        return True

    @classmethod
    def fingerprint_inputs(cls, target: Any = None, **_: Any) -> str:
        """Another one when the target's file has changed."""
        names = (name for name in lists.known(target) if isinstance(name, str))
        return repr([_targets().items.get(name) for name in names])

    @classmethod
    def execute(
        cls,
        model: list[ModelHandle],
        idea: list[str],
        target: list[str],
        seed: list[int],
        images: Any = None,
        must_appear: Any = "",
        must_not_appear: Any = "",
        trigger_words: Any = "",
        ask_again: Any = 2,
        megapixels: Any = 0.0,
        thinking: Any = "target default",
        max_new_tokens: Any = 0,
        when_unreadable: Any = sockets.STOP,
        mask: Any = None,
        together: Any = False,
    ) -> io.NodeOutput:
        questions = lists.mapped(
            partial(_asked, _targets(), host.text_tokenizers()),
            when_unreadable,
            model,
            idea,
            target,
            seed,
            images,
            must_appear,
            must_not_appear,
            trigger_words,
            ask_again,
            megapixels,
            thinking,
            max_new_tokens,
            mask,
            together,
        )
        results = [result for answers in answer_all(joined(questions)) for result in answers]
        known = [_known(result) for result in results]
        return io.NodeOutput(
            [result.text for result in results],
            [data["negative"] for data in known],
            [_side(data, "width") for data in known],
            [_side(data, "height") for data in known],
            [_json(result) for result in results],
            [result.is_complete for result in results],
            ui=host.results_ui(results),
        )


def _asked(
    targets: Targets, tokenizers: Mapping[str, Path], when_unreadable: str, *inputs: Any
) -> Asked:
    keep_going = when_unreadable != sockets.STOP
    try:
        return _question(targets, tokenizers, keep_going, *inputs)
    except BadOption as error:  # of this idea, such as that there is none
        if keep_going:
            return error
        raise


def _question(
    targets: Targets,
    tokenizers: Mapping[str, Path],
    keep_going: bool,
    model: ModelHandle,
    idea: str,
    target: str,
    seed: int,
    images: Any,
    must: str,
    must_not: str,
    triggers: str,
    ask_again: int,
    megapixels: float,
    thinking: str,
    max_new_tokens: int,
    mask: Any,
    together: bool,
) -> Question:
    folder = Path(model.spec.checkpoint) if isinstance(model.spec, LocalSpec) else None
    order = Order(
        targets[target],
        choose(sockets.words(idea), seed),
        images is not None,
        Wishes(listed(sockets.words(must)), listed(sockets.words(must_not))),
        sockets.words(triggers),
        ask_again,
        megapixels,
        folder.name if folder else model.name,
        folder,
        tokenizers,
    )
    return Question(
        model,
        order.task,
        images,
        {**sockets.length(max_new_tokens), "seed": seed},
        thinking=THINKING[sockets.choice("thinking", thinking, THINKING)],
        mask=mask,
        keep_unreadable=keep_going,
        method_of=lambda number: order.method,
        together=bool(together) and images is not None,
        order=order,
    )


def _targets() -> Targets:
    return read_targets([host.user_folder("targets")])


def _where() -> str:
    return f"Own targets are YAML files in {host.user_folder('targets')}."


def _known(result: Result) -> Mapping[str, Any]:
    """What is known of a prompt; nothing of a reply that could not be read."""
    return {"negative": "", "width": None, "height": None} if result.error else result.data


def _side(data: Mapping[str, Any], name: str) -> Any:
    """A side in pixels; nodes that would take one that is not known are stopped, and say so."""
    if (side := data[name]) is not None:
        return side
    return host.execution_blocker(
        f"The prompt came without a {name}: only targets whose replies name a ratio give one, such "
        "as qwen_image_2_1, and this reply may have named none. Set the size by hand."
    )


def _json(result: Result) -> str:
    if result.error:
        return sockets.found_json(result)
    return json.dumps(result.data, ensure_ascii=False)
