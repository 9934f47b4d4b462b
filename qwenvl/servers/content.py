"""Content of requests to servers: messages in the OpenAI protocol's form, pictures as data URLs.

Pictures are resized here, to a size that the server need not change any more: so it is known in
which pixels some families write boxes.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BadOption
from ..families import check_sees
from ..types import Family, Image, Message, Part, Request, Size

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """What a request will show. ``input_sizes``: the size that each picture is resized to;
    ``tokens``: of all pictures, in the prompt."""

    input_sizes: tuple[Size, ...]
    tokens: int


def plan(request: Request, family: Family, name: str) -> Plan:
    """No pixel is touched. Raises ``UnsuitableModel`` for pictures that the model ``name`` of
    ``family`` cannot be shown, ``BadOption`` and ``BadImage`` for media that cannot be sent."""
    from ..media.image_processor import ImageProcessor

    if request.media:
        check_sees(family, name)
    if request.videos or request.sounds:
        raise BadOption("Only pictures can be sent to a server yet.")
    low, high = family.pixel_bounds
    side = family.patch_factor
    processor = ImageProcessor(patch_size=side // 2, min_pixels=low, max_pixels=high)
    processor = processor.bounded(request.min_pixels, request.max_pixels)
    sizes = tuple(processor.input_size(pixels) for pixels in request.images)
    return Plan(sizes, sum(height * width // side**2 for height, width in sizes))


def messages(request: Request, planned: Plan) -> list[dict[str, Any]]:
    """The messages of ``request``. Takes as long as it takes to compress the pictures."""
    sizes = iter(planned.input_sizes)
    return [
        {"role": message.role, "content": _content(message, sizes)} for message in request.messages
    ]


def _content(message: Message, sizes: Any) -> str | list[dict[str, Any]]:
    """Text alone as a string, which every server takes."""
    if all(isinstance(part, str) for part in message.parts):
        return message.text
    return [_part(part, sizes) for part in message.parts if part != ""]


def _part(part: Part, sizes: Any) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": data_url(part.pixels, next(sizes))}}
    assert isinstance(part, str)
    return {"type": "text", "text": part}


def data_url(picture: Tensor, size: Size) -> str:
    """A picture, uint8 ``[3, H, W]``, resized to ``size``, as a PNG in a data URL."""
    from PIL import Image as Pillow

    from ..media.image_processor import resize

    rows = resize(picture, size).movedim(0, -1).contiguous().cpu().numpy()
    buffer = io.BytesIO()
    Pillow.fromarray(rows, "RGB").save(buffer, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
