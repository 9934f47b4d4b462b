"""Answering many requests with one model: batches that fit, smaller ones where memory runs out."""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections import deque
from typing import TYPE_CHECKING

import torch

from .backend import Watch
from .costs import Costs, Need, too_large
from .errors import OutOfMemory
from .generation import Batch, Row, TextStream, plan
from .memory import ran_out
from .types import Request, Response

if TYPE_CHECKING:
    from .transformers_backend import TransformersBackend

log = logging.getLogger(__name__)

_SHARE = 0.9  # of the free memory; the rest is left to others
_LEAST_TOKENS = 64  # a picture is not shrunk below this many tokens for want of memory


class Prompt:
    """A request made into tokens, its pictures still pictures."""

    def __init__(self, request: Request, backend: TransformersBackend):
        self.request = request
        self.preprocessing = backend.preprocessing.bounded(request.min_pixels, request.max_pixels)
        self.image_tokens = [self.preprocessing.tokens(image) for image in request.images]
        self.input_sizes = tuple(self.preprocessing.input_size(i) for i in request.images)
        self.template = backend.template
        self.thinking = backend.thinks(request.thinking)
        self.ids = self.template.encode(request, self.image_tokens)
        self._backend = backend

    @property
    def need(self) -> Need:
        return Need(len(self.ids), self.row(0).longest, sum(self.image_tokens))

    def shrunk(self) -> Prompt | None:
        """The same with half the pixels; None where the request does not allow that or there is
        little left to see."""
        if not self.request.may_shrink or max(self.image_tokens, default=0) < 2 * _LEAST_TOKENS:
            return None
        most = max(height * width for height, width in self.input_sizes) // 2
        low = min(self.preprocessing.min_pixels, most)
        smaller = dataclasses.replace(self.request, min_pixels=low, max_pixels=most)
        return Prompt(smaller, self._backend)

    def row(self, index: int) -> Row:
        image_id = self.template.image_id
        return Row(
            index=index,
            sampling=self.request.sampling,
            prompt_ids=[token for token in self.ids if token != image_id],
            eos_ids=self.template.eos_ids,
            close_ids=self.template.close_ids,
            thinking=self.thinking,
        )


class Answering:
    """One call of ``generate``."""

    def __init__(
        self,
        backend: TransformersBackend,
        prompts: list[Prompt],
        costs: Costs,
        watch: Watch,
    ):
        self.backend, self.prompts, self.watch = backend, prompts, watch
        self.costs = costs
        self._answered: dict[int, Response] = {}

    def responses(self) -> list[Response]:
        """In order. A request that memory does not suffice for has the error in its response."""
        waiting = deque(self._batches())
        while waiting:
            batch = waiting.popleft()
            if not self._fits(batch):
                waiting.extendleft(reversed(self._smaller(batch)))
        return [self._answered[index] for index in range(len(self.prompts))]

    def _batches(self) -> list[list[int]]:
        """The best batches, as far as memory can be had for them: other models may have to leave
        for a large batch, not for a single picture."""
        backend, work = self.backend, self.costs.work
        needs = [prompt.need for prompt in self.prompts]
        best = plan(needs, backend.budget, work)
        if best:
            backend.bring(work([needs[index] for index in best[0]]), self.watch)
        free = backend.memory.free(backend.device)
        return plan(needs, dataclasses.replace(backend.budget, nbytes=int(free * _SHARE)), work)

    def _fits(self, batch: list[int]) -> bool:
        """Answers ``batch``; False where memory ran out amid it, what is answered being kept."""
        backend = self.backend
        work = self.costs.work([self.prompts[index].need for index in batch])
        self.watch.check()
        with backend.weights.lock, torch.inference_mode(False), torch.no_grad():
            backend.bring(work, self.watch)
            try:
                self._answer(batch)
            except BaseException as error:
                # Its frames hold the batch's tensors for as long as somebody looks at the error.
                traceback.clear_frames(error.__traceback__)
                if not ran_out(error):
                    raise
                log.warning("Memory ran out with %d pictures at once: %s", len(batch), error)
            else:
                return True
            backend.memory.relieve(backend.weights)
        return False

    def _answer(self, batch: list[int]) -> None:
        rows = [self.prompts[index].row(index) for index in batch]
        decode = self.backend.template.decode
        prompts = [self.prompts[index] for index in batch]

        def finished() -> None:
            for row, prompt in zip(rows, prompts, strict=True):
                if row.finish_reason and row.index not in self._answered:
                    self._done(row.index, self.backend.response(row, prompt))

        streams = [TextStream(decode) for _ in rows]
        self.backend.decode(Batch(rows, self.watch, streams), prompts, finished)

    def _done(self, index: int, response: Response) -> None:
        self._answered[index] = response
        self.watch.done(index, response)

    def _smaller(self, batch: list[int]) -> list[list[int]]:
        """What is left of a batch that did not fit, as batches that may."""
        left = [index for index in batch if index not in self._answered]
        for index in left:
            self.watch.restart(index)
        if len(left) > 1:
            half = (len(left) + 1) // 2
            return [left[:half], left[half:]]
        if len(left) == len(batch):  # it was alone already
            (index,) = left
            smaller = self.prompts[index].shrunk()
            if smaller is None:
                self._done(index, Response("", finish_reason="error", error=self._advice(index)))
                return []
            self.prompts[index] = smaller
        return [left] if left else []

    def _advice(self, index: int) -> OutOfMemory:
        backend = self.backend
        free = backend.memory.free(backend.device)
        factor = backend.family.patch_factor
        return too_large(self.prompts[index].need, self.costs, free, factor)
