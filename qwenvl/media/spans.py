"""Spans: the room that pictures, videos and sounds take in a prompt, known from their shapes before
any pixel is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadOption
from ..types import Audio, Image, Size, Video

if TYPE_CHECKING:
    from .image_processor import ImageProcessor


@dataclass(frozen=True)
class Span:
    """A medium in a prompt: its ``grid`` of patches (time, rows, columns), the ``tokens`` that it
    becomes, and the ``input_size`` in pixels that it is resized to."""

    grid: tuple[int, int, int]
    tokens: int
    input_size: Size


def plan(part: Image | Video | Audio, image_processor: ImageProcessor) -> Span:
    """The span of ``part``. Raises ``BadImage`` for a picture that no model can be given, and
    ``BadOption`` for videos and sounds, which cannot be shown to a model yet."""
    if not isinstance(part, Image):
        kind, instead = _UNSUPPORTED[type(part)]
        raise BadOption(f"{kind} cannot be given to a model yet. {instead}")
    picture = part.pixels
    return Span(
        image_processor.grid(picture),
        image_processor.tokens(picture),
        image_processor.input_size(picture),
    )


_UNSUPPORTED: dict[type, tuple[str, str]] = {
    Video: ("Videos", "Give some of the video's frames as pictures."),
    Audio: ("Sounds", "Remove the sound from the request."),
}
