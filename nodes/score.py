"""Score node: how well pictures fit a text, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io

from ..qwenvl import score
from ..qwenvl.errors import QwenVLError
from ..qwenvl.types import Result
from . import host, lists, panels, sockets
from .model import Comparison, ModelHandle, pictures, score_all

KEEP_GOING = "keep going"


class Score(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Score",
            display_name="Qwen-VL Score",
            description="Tells how well each picture fits a text, as a number, and picks the best: "
            "to make several and keep one, or to find the page that answers a question.",
            search_aliases=["rank", "rerank", "best of", "vqascore", "clip score", "similarity"],
            panels=panels.answer(height=60),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *sockets.model_and_images(done="compared"),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="What the pictures should show, such as the prompt they were made "
                    "from, or a question that one of the pages answers.",
                ),
                io.Int.Input(
                    "top",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="How many of the best pictures to give, the best first.",
                ),
                io.String.Input(
                    "instruction",
                    default="",
                    multiline=True,
                    tooltip="Most models: your own yes-or-no question, with [text] where the text "
                    'goes, in place of: Does this image show "[text]"? Answer yes or no. Rerankers '
                    "and embedding models: what to look for, such as: Retrieve pages that answer "
                    "the question.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "when_unscored",
                    options=[sockets.STOP, KEEP_GOING],
                    default=sockets.STOP,
                    tooltip="When a picture gets no score: stop with an error that names it, or "
                    "keep going with NaN for it, which is never the best.",
                    **sockets.ADVANCED,
                ),
                sockets.hidden_parts(),
            ],
            outputs=[
                io.Float.Output(
                    "scores",
                    tooltip="One a picture. 0 to 1: the probability of yes against no. Embedding "
                    "models: -1 to 1, the cosine of the two vectors.",
                    is_output_list=True,
                ),
                io.Int.Output(
                    "best_index",
                    tooltip="Which picture is the best, counted from 0; as many as top says, the "
                    "best first. With several texts or models, those of each in turn.",
                    is_output_list=True,
                ),
                io.Image.Output(
                    "best",
                    tooltip="The pictures of best_index.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list[ModelHandle],
        images: list[Any],
        text: list[str],
        top: list[int],
        instruction: Any = "",
        when_unscored: Any = sockets.STOP,
        mask: Any = None,
    ) -> io.NodeOutput:
        asked = lists.mapped(_comparison, model, images, text, instruction, mask)
        # Of the whole run, not of a picture: of lists the highest and the first.
        count = max((*lists.mapped(int, top), 1))
        (missing,) = lists.mapped(str, when_unscored)[:1] or [sockets.STOP]
        sockets.choice("when_unscored", missing, (sockets.STOP, KEEP_GOING))
        scores = score_all(asked)
        best = _best(asked, scores, count)
        shown = [value for found in scores for value in found]
        results = _results(shown, {at for _, at in best})
        failed = {at: value for at, value in enumerate(shown) if isinstance(value, QwenVLError)}
        if failed and missing == sockets.STOP:
            host.send_results(results)
            raise _unscored(failed, len(shown))
        every = pictures(asked)
        if best:
            indices, pictured = [index for index, _ in best], [every[at][None] for _, at in best]
        else:
            indices = pictured = host.execution_blocker(
                "No picture got a score, so none is the best. The node says why under each picture."
            )
        return io.NodeOutput(
            [math.nan if isinstance(value, QwenVLError) else value for value in shown],
            indices,
            pictured,
            ui=host.results_ui(results),
        )


def _comparison(
    model: ModelHandle, images: Any, text: str, instruction: str, mask: Any
) -> Comparison:
    return Comparison(model, images, sockets.words(text), sockets.words(instruction), mask)


def _best(
    asked: Sequence[Comparison], scores: Sequence[Sequence[score.Score]], count: int
) -> list[tuple[int, int]]:
    """The best pictures of each model and text in turn: which of the pictures that were compared
    with it, and which of all."""
    competing: dict[tuple[ModelHandle, str, str], list[int]] = {}
    flat: list[score.Score] = []
    for comparison, found in zip(asked, scores, strict=True):
        key = comparison.model, comparison.text, comparison.instruction
        own = competing.setdefault(key, [])
        own.extend(range(len(flat), len(flat) + len(found)))
        flat.extend(found)
    return [
        (index, own[index])
        for own in competing.values()
        for index in score.best([flat[at] for at in own], count)
    ]


def _results(scores: Sequence[score.Score], best: set[int]) -> list[Result]:
    """What the node shows of each picture: its score, with a star at the best."""
    return [
        Result("", finish_reason="error", error=str(value))
        if isinstance(value, QwenVLError)
        else Result(f"{value:.4f}{' ★' if at in best else ''}")
        for at, value in enumerate(scores)
    ]


def _unscored(failed: dict[int, QwenVLError], count: int) -> QwenVLError:
    first, error = next(iter(failed.items()))
    more = f", and {len(failed) - 1} more," if len(failed) > 1 else ""
    return type(error)(
        f"Picture {first + 1} of {count}{more} got no score: {error} To go on with the others, set "
        f"when_unscored to {KEEP_GOING}."
    )
