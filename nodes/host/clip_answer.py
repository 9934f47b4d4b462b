"""One answer of a text encoder in the graph, followed token by token while ComfyUI writes it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...qwenvl.errors import UnsuitableModel
from ...qwenvl.inference.detokenizer import Detokenizer
from ...qwenvl.inference.sequence import Row
from ...qwenvl.inference.stopping import append_token
from ...qwenvl.observer import Observer
from ...qwenvl.prompting.chat_template import THINK_END, THINK_START
from ...qwenvl.replies import split_thinking
from ...qwenvl.run import end_notes
from ...qwenvl.types import Response, Size, Usage
from .clip_calls import ClipCalls, Tokens
from .clip_models import Encoder
from .clip_prompt import ClipPrompt

NO_FORM = (
    "The answer was checked, but not held to the form asked for: ComfyUI's own text generation "
    "cannot do that."
)
NO_SCORES = "There are no scores: ComfyUI's own text generation does not tell its probabilities."

_TOLERANCE = 0.01  # of a picture's mean colour, in the units of the model's input


class _Enough(BaseException):
    """Ends ComfyUI's ``generate`` where it would go on. No ``Exception``, as ComfyUI's interrupt is
    none, so that nothing in between takes it for a failure."""


class ClipAnswer:
    """The answer to request ``index`` of a run."""

    def __init__(
        self,
        index: int,
        prompt: ClipPrompt,
        calls: ClipCalls,
        encoder: Encoder,
        observer: Observer,
    ):
        self._index, self._prompt, self._calls, self._observer = index, prompt, calls, observer
        self._stop_ids = encoder.stop_ids
        self._images: list[Tensor] = []
        self._seen: list[Size] = []
        self._unknown: list[str] = []
        self._begin()

    def _begin(self) -> None:
        """Nothing is written yet."""
        prompt, calls = self._prompt, self._calls
        self._row = Row(
            self._index,
            dataclasses.replace(prompt.request.sampling, max_thinking_tokens=prompt.thinking_limit),
            prompt_ids=(),
            eos_ids=self._stop_ids,
            think_end_ids=calls.ids(THINK_END) if prompt.thinks else (),
            thinking=prompt.thinks,
            decode=calls.decode,
        )
        self._detokenizer = Detokenizer(calls.decode)
        self._followed: list[int] = []

    def response(self) -> Response:
        """Raises ``UnsuitableModel`` where ComfyUI does not show the pictures as the model was
        trained to see them, and whatever ComfyUI raises."""
        self._images = self._prompt.images()
        tokens = self._calls.tokens(self._prompt.text, self._images)
        while self._row.finish_reason is None:
            if self._is_enough:
                self._close_thought()
                prompt = self._calls.row(tokens)
                prompt += [(token, 1.0) for token in self._row.output_ids]
            self._write(tokens)
            if self._row.finish_reason is None and not self._is_enough:
                self._row.finish_reason = "length"  # this ComfyUI has a limit of its own
        return self._made()

    def _write(self, tokens: Tokens) -> None:
        """Has ComfyUI generate, until the answer is finished or its thought is to be closed."""
        self._seen.clear()
        self._followed.clear()
        before = list(self._row.output_ids)
        options = _options(self._row)
        self._unknown = self._calls.unknown(_effective(options))
        try:
            with self._calls.watched(self._on_token, self._on_picture):
                ids = self._calls.generate(tokens, options)
        except _Enough:
            ids = list(self._followed)
        self._check_seen()
        rest = ids[len(self._followed) :]
        if ids[: len(self._followed)] != self._followed:  # what was followed were no tokens of it
            self._observer.restart(self._index)
            self._begin()
            for token in before:
                self._add(token)
            rest = ids
        for token in rest:
            if not self._is_enough:
                self._add(token)

    @property
    def _is_enough(self) -> bool:
        """Whether the answer is finished, or its thought is to be closed."""
        row = self._row
        full = row.thinking and row.thought_length >= row.thinking_limit
        return row.finish_reason is not None or full or (row.thinking and row.thought_repeats)

    def _on_token(self, token: int) -> None:
        self._observer.check()
        self._followed.append(token)
        if self._row.finish_reason is None:
            self._add(token)
        if self._is_enough and self._row.finish_reason != "stop":  # which ComfyUI heeds itself
            raise _Enough

    def _add(self, token: int) -> None:
        row = self._row
        append_token(row, token)
        if row.finish_reason in (None, "length"):  # not of what ended it
            piece = self._detokenizer.append(row.output_ids)
            self._observer.token(self._index, piece)

    def _close_thought(self) -> None:
        """Ends a thought that has reached its limit or goes round in a circle: the next call of
        ``generate`` begins behind it."""
        for token in self._row.think_end_ids:
            self._add(token)

    def _on_picture(self, patches: Tensor, grid: Tensor) -> None:
        """Notes the size in which ComfyUI shows the next picture, and whether its values are those
        that the model was trained on."""
        self._observer.check()
        number = len(self._seen)
        processor = self._prompt.processor
        _, rows, columns = (int(side) for side in grid.flatten()[-3:])
        self._seen.append((rows * processor.patch_size, columns * processor.patch_size))
        if number >= len(self._images):
            return
        mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        expected = (self._images[number].mean(dim=(0, 1, 2)).cpu() - mean) / std
        shown = patches.float().view(len(patches), 3, -1).mean(dim=(0, 2)).cpu()
        if (shown - expected).abs().max() > _TOLERANCE:
            raise UnsuitableModel(
                "This ComfyUI shows pictures to this text encoder in other colours than the model "
                "was trained on, so that its answers would be wrong. Update ComfyUI."
            )

    def _check_seen(self) -> None:
        if len(self._seen) != len(self._images):
            raise UnsuitableModel(
                f"ComfyUI showed this text encoder {len(self._seen)} of {len(self._images)} "
                "pictures. Choose another type in Load CLIP, or update ComfyUI."
            )

    def _made(self) -> Response:
        row, decode = self._row, self._calls.decode
        cut = row.thought_length if self._prompt.thinks else 0
        thinking = decode(row.output_ids[:cut]).strip().removesuffix(THINK_END).strip()
        text = decode(row.output_ids[cut:]).strip()
        if text.startswith(THINK_START):  # some fine-tunes think unasked
            thinking, text = split_thinking(text)
        made = Response(
            text,
            thinking,
            row.finish_reason or "length",
            tuple(self._seen),
            Usage(self._prompt.tokens, self._prompt.image_tokens, len(row.output_ids)),
        )
        if own := self._notes():
            made = dataclasses.replace(made, notes=(*end_notes(row.sampling, made), *own))
        return made

    def _notes(self) -> tuple[str, ...]:
        request, found = self._prompt.request, []
        if request.constraint is not None and not request.constraint.opening:
            found.append(NO_FORM)
        if request.logprobs:
            found.append(NO_SCORES)
        if self._unknown:
            found.append(f"This ComfyUI knows no {', '.join(self._unknown)}: without effect here.")
        return tuple(found)


def _options(row: Row) -> dict[str, Any]:
    """Arguments of ComfyUI's ``generate`` for what is left to write."""
    sampling, thought = row.sampling, 0
    if row.thinking:
        thought = row.thinking_limit - row.thought_length + len(row.think_end_ids)
    common = {
        "max_length": thought + row.remaining,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "seed": sampling.seed,
    }
    if sampling.temperature > 0:
        names = ("temperature", "top_k", "top_p", "min_p")
        return {"do_sample": True, **{name: getattr(sampling, name) for name in names}, **common}
    # Its greedy decoding knows no penalties; the likeliest one token of a sample is greedy too.
    is_penalised = sampling.repetition_penalty != 1 or sampling.presence_penalty != 0
    greedy = {"temperature": 1.0, "top_k": 1, "top_p": 1.0, "min_p": 0.0}
    return {"do_sample": is_penalised, **greedy, **common}


_WITHOUT_EFFECT = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "min_p": 0.0, "top_p": 1.0}


def _effective(options: dict[str, Any]) -> dict[str, Any]:
    """Those that change an answer."""
    return {name: v for name, v in options.items() if v != _WITHOUT_EFFECT.get(name, object())}
