"""Plain executor: transformers' own ``generate``, one request after another.

For models that the scheduler was not verified on, for ``optimize: off``, and for a model on which a
fast path has failed. Attention, cache, positions and the vision tower are the library's alone. The
tokens are chosen by our sampler, so sampling, penalties, thinking, seeds and log-probabilities are
those of the scheduler.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..media.audio_processor import AudioProcessor
from ..media.spans import Kind
from ..models.attention import without_cudnn
from ..models.patches import rope_index
from ..prompting.prompt import Prompt
from . import speech
from .active_request import ActiveRequest
from .detokenizer import Detokenizer
from .executor import Executor
from .loaded_model import LoadedModel, position_rule
from .memory_model import TokenNeed, token_need
from .model_runner import interruptible
from .mrope import rope_positions
from .sampler import Sampler
from .sequence import SampledToken, new_row

log = logging.getLogger(__name__)


class PlainExecutor(Executor):
    """Answers prompts one after the other, as transformers would."""

    def _run(self) -> None:
        while self._take_in():
            index = self._waiting.popleft()
            if not self._answer_within_memory(index):
                self._loaded.recover_memory()
                self._observer.restart(index)
                if self._shrink(index):
                    self._waiting.appendleft(index)

    def _need(self, prompt: Prompt) -> TokenNeed:
        return plain_need(prompt)

    def _answer_within_memory(self, index: int) -> bool:
        """Answers a request; False where memory ran out."""
        try:
            self._observer.check()
            self._check_ram(self._memory_model.peak_bytes([self._needs[index]]))
            self._answer(index)
        except BaseException as error:
            # Its frames hold tensors for as long as somebody looks at the error.
            traceback.clear_frames(error.__traceback__)
            if not self._is_out_of_memory(error):
                raise
            log.warning("Memory ran out for a single request: %s", error)
            return False
        return True

    def _answer(self, index: int) -> None:
        prompt, model = self._prompts[index], self._loaded.model
        row = new_row(prompt, index)
        decode = prompt.chat_template.decode
        active = ActiveRequest(row, prompt, Detokenizer(decode))
        loop = _SamplingLoop(self, active)
        inputs = model_inputs(model, prompt, self._observer.check)
        options: dict[str, Any] = {
            "max_new_tokens": row.max_output,
            "do_sample": False,
            "eos_token_id": None,  # rows are ended by ``stopping``
            "pad_token_id": prompt.chat_template.pad_id,
            "logits_processor": [loop.choose],
            "stopping_criteria": [loop.is_finished],
        }
        if prompt.request.voice is not None:
            # The talker has to know where the words end.
            options["eos_token_id"] = sorted(row.eos_ids)
            self._speak(active, inputs, options)
            return
        with (
            interruptible(model, self._observer.check),
            without_cudnn(),
            known_positions(self._loaded, prompt),
        ):
            model.generate(**inputs, **options)
        self._respond(active)

    def _speak(
        self, active: ActiveRequest, inputs: dict[str, Any], options: dict[str, Any]
    ) -> None:
        """As ``_answer``, by the whole model, which speaks the answer."""
        request, family = active.prompt.request, self._loaded.family
        assert request.voice is not None and family.speech is not None
        whole, check = self._loaded.weights.model, self._observer.check
        spoken: dict[str, Any] = {}
        try:
            known = known_positions(self._loaded, active.prompt)
            with interruptible(whole, check), without_cudnn(), known:
                spoken["speech"], is_cut = speech.generate(
                    whole,
                    inputs,
                    options,
                    family.speech,
                    request.voice,
                    request.sampling.seed,
                    check,
                )
            spoken["notes"] = (speech.CUT,) if is_cut else ()
        except speech.NothingSaid as nothing:
            spoken["notes"] = (str(nothing),)
        self._respond(active, **spoken)

    def _respond(self, active: ActiveRequest, notes: tuple[str, ...] = (), **fields: Any) -> None:
        """Gives the response of a finished row that has none yet."""
        if active.row.finish_reason == "error":
            return
        response = active.response()
        notes = (*response.notes, *notes)
        self._finish(active.row.index, dataclasses.replace(response, notes=notes, **fields))


class _SamplingLoop:
    """Puts our sampler into ``generate``: it chooses each token, and ``generate``, decoding
    greedily, finds no other one possible."""

    def __init__(self, executor: PlainExecutor, active: ActiveRequest):
        self._executor, self._active = executor, active
        self._sampler: Any = None
        self._chosen = SampledToken(-1)

    def choose(self, _ids: Tensor, logits: Tensor) -> Tensor:
        """As a logits processor: scores ``[1, V]`` that leave one token."""
        row = self._active.row
        if self._sampler is None:
            self._sampler = Sampler([row], logits.device, logits.shape[-1])
        self._sampler.prepare()
        tokens, logprobs = self._sampler.sample(logits)
        self._chosen = SampledToken(int(tokens), None if logprobs is None else float(logprobs))
        only = torch.full_like(logits, -torch.inf)
        return only.index_fill_(1, tokens.clamp(min=0), 0.0)

    def is_finished(self, _ids: Tensor, _scores: Any, **_: Any) -> Tensor:
        """As a stopping criterion."""
        executor, row = self._executor, self._active.row
        executor._observer.check()
        finished = executor._add_token(self._active, self._chosen)
        if (
            finished
            and self._active.prompt.request.voice is not None
            and len(_ids[0]) - len(self._active.prompt.ids) < 2
        ):
            is_cut = row.finish_reason == "length"
            raise speech.NothingSaid(speech.TOO_SHORT if is_cut else speech.NOTHING_SAID)
        if not finished:
            self._sampler.accept(0, self._chosen.id)
            if row.thought_repeats and row.thinking:
                self._sampler.close_thought(0)
        return torch.tensor([finished], device=_ids.device)


def plain_need(prompt: Prompt) -> TokenNeed:
    """Of the library's own pass, which puts all media through the tower at once."""
    return dataclasses.replace(token_need(prompt), encoded=None)


def model_inputs(
    model: Any, prompt: Prompt, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Arguments of ``model.generate`` for ``prompt``, as transformers' own processors make them.
    ``check`` is called now and then."""
    device, accepted = next(model.parameters()).device, inspect.signature(model.forward).parameters
    ids = torch.tensor([prompt.ids], device=device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if images := prompt.request.images:
        patches = prompt.image_processor.pixel_values(images, device, model.dtype)
        # A still picture is a clip of equal frames to the library.
        frames = prompt.image_processor.temporal_patch_size
        repeated = patches.view(len(patches), 3, 1, -1).expand(-1, -1, frames, -1)
        inputs["pixel_values"] = repeated.reshape(len(patches), -1)
        inputs["image_grid_thw"] = _grids(prompt, "image", device)
    if prompt.video_processor and (videos := prompt.request.videos):
        made = [prompt.video_processor.pixel_values(v, device, model.dtype) for v in videos]
        inputs["pixel_values_videos"] = torch.cat([part for v in made for part, _ in v])
        inputs["video_grid_thw"] = _grids(prompt, "video", device)
        lasting = [span.seconds_per_step for span in prompt.spans if span.kind == "video"]
        for name in {"second_per_grid_ts", "video_second_per_grid"} & accepted.keys():
            inputs[name] = torch.tensor(lasting, device=device)
    if prompt.audio_processor and prompt.request.sounds:
        inputs |= _heard(prompt, prompt.audio_processor, device, model.dtype, check)
    if any(span.is_joined for span in prompt.spans):
        inputs["use_audio_in_video"] = True
    if "mm_token_type_ids" in accepted:
        token_ids = prompt.chat_template.token_ids
        kinds = (ids == token_ids["image"]).long() + 2 * (ids == token_ids["video"]).long()
        inputs["mm_token_type_ids"] = kinds
    return inputs


def _heard(
    prompt: Prompt,
    processor: AudioProcessor,
    device: torch.device,
    dtype: torch.dtype,
    check: Callable[[], None],
) -> dict[str, Tensor]:
    mels = [processor.features(sound, check) for sound in prompt.request.sounds]
    longest = max(mel.shape[1] for mel in mels)
    padded = [nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels]
    there = torch.stack([torch.arange(longest) < mel.shape[1] for mel in mels])
    return {
        "input_features": torch.stack(padded).to(device, dtype),
        "feature_attention_mask": there.long().to(device),
    }


def _grids(prompt: Prompt, kind: Kind, device: torch.device) -> Tensor:
    return torch.tensor([s.grid for s in prompt.spans if s.kind == kind], device=device)


def known_positions(loaded: LoadedModel, prompt: Prompt) -> AbstractContextManager[None]:
    """For a pass over ``prompt``: its positions are ours where it shows a video whose times are in
    them, else the library's."""
    if not any(span.kind == "video" and not span.is_told for span in prompt.spans):
        return nullcontext()
    model = loaded.model
    found, following = rope_positions(prompt.ids, prompt.spans, position_rule(model, loaded))
    device = next(model.parameters()).device
    return rope_index.substituted(model, found.to(device), following)
