"""Prompts for a text encoder of the graph: a request as text and pictures of known sizes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ...qwenvl.errors import BadOption
from ...qwenvl.media.image_processor import ImageProcessor, resize
from ...qwenvl.prompting.chatml import ChatML
from ...qwenvl.types import THINKING_TOKENS, Request, Size
from .clip_calls import ClipCalls
from .clip_models import Encoder

MAX_PIXELS = 12_845_056
"""The most pixels of a picture that ComfyUI's own code shows to an encoder; it shrinks larger
ones."""

_MIN_IMAGE_TOKENS = 64  # a picture is not shrunk below this for want of memory


@dataclass(frozen=True, eq=False)
class ClipPrompt:
    """``text`` of a whole conversation, with an image token for each picture, which will be resized
    to its one of ``sizes``. ``tokens``: of all, ``image_tokens`` of them pictures. ``thinks``: the
    answer begins within a thought."""

    request: Request
    processor: ImageProcessor
    text: str
    sizes: tuple[Size, ...]
    tokens: int
    image_tokens: int
    thinks: bool

    @property
    def thinking_limit(self) -> int:
        limit = self.request.sampling.max_thinking_tokens
        return (THINKING_TOKENS if limit is None else limit) if self.thinks else 0

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt, and the most of the thought and the answer."""
        return self.tokens, self.request.sampling.max_new_tokens + self.thinking_limit

    @property
    def patches(self) -> int:
        """Of all pictures, as the vision tower gets them."""
        return self.image_tokens * self.processor.merge_size**2

    def images(self) -> list[Tensor]:
        """The pictures as ComfyUI's IMAGE, each ``[1, H, W, 3]``. They have the sizes that its own
        code would resize them to, so that this leaves them as they are: bicubic with antialiasing,
        as the models were trained on, in place of its bilinear."""
        return [
            resize(picture, size).movedim(0, -1).unsqueeze(0).to(torch.float32) / 255
            for picture, size in zip(self.request.images, self.sizes, strict=True)
        ]


class ClipPrompts:
    """Makes prompts for one encoder. ``chat``: its conversations."""

    def __init__(self, encoder: Encoder, calls: ClipCalls, thinking_edition: bool):
        self._encoder, self._calls = encoder, calls
        self.chat = ChatML(encoder.family, thinking_edition)
        self._processor = processor_of(encoder)

    def of(self, request: Request) -> ClipPrompt:
        """Raises ``BadImage`` for a picture that no model can be shown, and ``BadOption`` for what
        an encoder cannot do: videos, sound, speech, thoughts that it does not have, and a prompt
        that fills its context."""
        if request.voice is not None:
            raise BadOption("A text encoder in the graph does not speak: leave voice empty.")
        processor = self._bounded(request)
        text = self.chat.prompt(request)
        sizes = tuple(processor.input_size(picture) for picture in request.images)
        image_tokens = sum(high * wide // processor.factor**2 for high, wide in sizes)
        words = len(self._calls.row(self._calls.tokens(text, ()))) - len(sizes)
        thinks = self.chat.thinks(request.thinking, request.reasoning_effort)
        tokens = words + image_tokens
        context = self._encoder.context_length
        if context is not None and tokens >= context:
            raise BadOption(
                f"The prompt is {tokens} tokens long ({image_tokens} of them pictures), but this "
                f"model's context holds {context} with the answer. Shorten the prompt, or show "
                "fewer or smaller pictures (max_pixels in Qwen-VL From CLIP)."
            )
        return ClipPrompt(request, processor, text, sizes, tokens, image_tokens, thinks)

    def shrunk(self, prompt: ClipPrompt) -> ClipPrompt | None:
        """The same with half the pixels; None where the request does not allow that or too little
        would be left to see."""
        area = max((high * wide for high, wide in prompt.sizes), default=0)
        least_area = 2 * _MIN_IMAGE_TOKENS * prompt.processor.factor**2
        if not prompt.request.may_shrink or area < least_area:
            return None
        low = prompt.request.min_pixels
        low = None if low is None else min(low, area // 2)
        smaller = dataclasses.replace(prompt.request, min_pixels=low, max_pixels=area // 2)
        return self.of(smaller)

    def _bounded(self, request: Request) -> ImageProcessor:
        if request.min_pixels is not None and request.min_pixels > MAX_PIXELS:
            raise BadOption(
                f"min_pixels is {request.min_pixels}; ComfyUI shows a text encoder at most "
                f"{MAX_PIXELS} pixels of a picture."
            )
        found = self._processor.bounded(request.min_pixels, request.max_pixels)
        return dataclasses.replace(found, max_pixels=min(found.max_pixels, MAX_PIXELS))


def processor_of(encoder: Encoder) -> ImageProcessor:
    """The image processor that the encoder was trained with. Since tokens are of 32 pixels (that
    is, since Qwen3-VL), values are -1 to 1; before, they were scaled as for CLIP."""
    low, high = encoder.family.pixel_bounds
    side = encoder.family.patch_factor
    made = ImageProcessor(patch_size=side // 2, min_pixels=low, max_pixels=min(high, MAX_PIXELS))
    if side < 32:
        return made
    half = (0.5, 0.5, 0.5)
    return dataclasses.replace(made, image_mean=half, image_std=half)
