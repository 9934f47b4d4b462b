"""CLIP backend: requests answered by a text encoder that ComfyUI has loaded for its graph.

The weights are those in the graph, moved and evicted by ComfyUI, and the words are written by its
own ``generate``: one request after another. Prompts, the sizes of pictures, limits, repetition and
thoughts are ours, as for every other model.

What that ``generate`` cannot do: batches, answers held to a form (grammars), log-probabilities,
videos, sound, a prefix cache, adapters of this pack's LoRA node.
"""

from __future__ import annotations

import logging
import threading
import traceback
import weakref
from collections.abc import Sequence
from typing import Any

from ...qwenvl.errors import BadImage, BadOption, OutOfMemory, QwenVLError, unloaded
from ...qwenvl.models.memory import acquired, is_out_of_memory
from ...qwenvl.observer import GuardedObserver, Observer
from ...qwenvl.types import Family, Place, Request, Response
from .clip_answer import ClipAnswer
from .clip_calls import ClipCalls
from .clip_models import Encoder, encoder_of
from .clip_prompt import MAX_PIXELS, ClipPrompt, ClipPrompts
from .memory import empty_cache, is_loaded, make_room, unload

log = logging.getLogger(__name__)

_TURNS: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()


class ClipBackend:
    """One CLIP, as a ``backends.base.Backend`` that is ``Resident``: ComfyUI is asked to take the
    weights off their device, and keeps them in RAM while they are in its graph.
    ``thinking_edition``: see ``ChatML``. Raises ``UnsuitableModel`` for a CLIP that cannot see and
    write."""

    def __init__(self, clip: Any, thinking_edition: bool = False):
        self._encoder: Encoder = encoder_of(clip)
        self._calls = ClipCalls(self._encoder)
        self._prompts = ClipPrompts(self._encoder, self._calls, thinking_edition)
        # Clones of a CLIP share the model, and with it the turn.
        self._turn = _TURNS.setdefault(self._encoder.wrapper, threading.RLock())
        self._closed = False

    @property
    def family(self) -> Family:
        return self._encoder.family

    @property
    def shape(self) -> str:
        """See ``Encoder.shape``."""
        return self._encoder.shape

    @property
    def max_pixels(self) -> int:
        return min(self.family.pixel_bounds[1], MAX_PIXELS)

    @property
    def nbytes(self) -> int:
        return int(self._encoder.clip.patcher.model_size())

    @property
    def place(self) -> Place:
        return "device" if is_loaded(self._encoder.clip.patcher) else "ram"

    def offload(self) -> None:
        """See ``Resident.offload``; done by ComfyUI."""
        unload(self._encoder.clip.patcher)

    def release(self) -> None:
        """As ``offload``: the graph holds the weights, so that they stay in RAM."""
        self.offload()

    def close(self) -> None:
        """The weights are the graph's and stay."""
        self._closed = True

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``."""
        return self._prompts.chat.thinks(wish, effort)

    def media_tokens(self, request: Request) -> int:
        """See ``Planner.media_tokens``."""
        return self._prompts.of(request).image_tokens

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``. A request that cannot be asked (``BadOption``, ``BadImage``)
        has the error in its response; where there is no other, or an option lies outside its range,
        that is raised before any work is done."""
        observer = GuardedObserver(observer or Observer())
        for request in requests:
            request.sampling.validate()
        if self._closed:
            raise unloaded()
        asked = [self._prompt(request) for request in requests]
        refused = [prompt for prompt in asked if isinstance(prompt, QwenVLError)]
        if refused and len(refused) == len(asked):
            raise refused[0]
        observer.check()
        with acquired(self._turn, observer.check):
            counts = [p.counts if isinstance(p, ClipPrompt) else (0, 0) for p in asked]
            observer.start([count for count, _ in counts], [limit for _, limit in counts])
            return [self._response(index, prompt, observer) for index, prompt in enumerate(asked)]

    def _prompt(self, request: Request) -> ClipPrompt | QwenVLError:
        try:
            return self._prompts.of(request)
        except (BadOption, BadImage) as error:
            return error

    def _response(
        self, index: int, prompt: ClipPrompt | QwenVLError, observer: GuardedObserver
    ) -> Response:
        if isinstance(prompt, ClipPrompt):
            response = self._answer(index, prompt, observer)
        else:
            response = Response.failed(prompt)
        observer.done(index, response)
        return response

    def _answer(self, index: int, prompt: ClipPrompt, observer: GuardedObserver) -> Response:
        """The answer, or why there is none: what fails for one request is that request's alone."""
        observer.check()
        try:
            work = self._encoder.work_bytes(*prompt.counts, prompt.patches)
            make_room(self._encoder.clip.patcher, work)
            return ClipAnswer(index, prompt, self._calls, self._encoder, observer).response()
        except QwenVLError as error:
            problem: QwenVLError = error
        except Exception as error:  # whatever ComfyUI's code, a kernel or a driver raises
            if error is observer.error:
                raise
            # Its frames hold tensors for as long as somebody looks at the error.
            traceback.clear_frames(error.__traceback__)
            if is_out_of_memory(error):
                empty_cache()
                if smaller := self._prompts.shrunk(prompt):
                    observer.restart(index)
                    return self._answer(index, smaller, observer)
                problem = _no_memory(prompt)
            else:
                log.warning("ComfyUI could not write an answer", exc_info=error)
                problem = QwenVLError(
                    f"ComfyUI could not write an answer: {type(error).__name__}: {error}"
                )
        return Response.failed(problem)


def _no_memory(prompt: ClipPrompt) -> OutOfMemory:
    tokens, longest = prompt.counts
    return OutOfMemory(
        f"Memory does not suffice for {tokens} tokens of prompt and up to {longest} of answer, for "
        "all of which ComfyUI sets memory aside before it begins. Lower max_new_tokens, or "
        "max_pixels in Qwen-VL From CLIP."
    )
