"""Requests made into tokens, and what answering them will take."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

from .costs import Need
from .generation import Row
from .types import Request

if TYPE_CHECKING:
    from .transformers_backend import TransformersBackend

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
        self.grids = [self.preprocessing.grid(image) for image in request.images]
        self._backend = backend

    @cached_property
    def need(self) -> Need:
        return Need(len(self.ids), self.row(0).longest, sum(self.image_tokens))

    @property
    def nbytes(self) -> int:
        """Of its pictures."""
        return sum(image.nbytes for image in self.request.images)

    def shrunk(self) -> Prompt | None:
        """The same with half the pixels; None where the request does not allow that or there is
        little left to see."""
        if not self.request.may_shrink or max(self.image_tokens, default=0) < 2 * _LEAST_TOKENS:
            return None
        most = max(height * width for height, width in self.input_sizes) // 2
        least = self.request.min_pixels
        low = None if least is None else min(least, most)
        smaller = dataclasses.replace(self.request, min_pixels=low, max_pixels=most)
        return Prompt(smaller, self._backend)

    @property
    def opening(self) -> int:
        """Tokens up to the end of the last picture: what questions about it have in common."""
        places = [place for place, token in enumerate(self.ids) if token == self.template.image_id]
        return places[-1] + 2 if places else 0

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
