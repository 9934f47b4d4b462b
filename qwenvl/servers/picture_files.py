"""Picture files for servers: pixels as PNG or JPEG in data URLs, sounds as WAV in base64."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from ..types import Audio

if TYPE_CHECKING:
    from torch import Tensor

MAX_PNG_BYTES = 6 << 20
"""A PNG that is longer is sent as JPEG instead: servers refuse long requests."""
MAX_PNG_PIXELS = 6_000_000
"""Larger pictures are sent as JPEG at once: a PNG of one takes more than half a second to write."""
JPEG_QUALITY = 95


def picture_url(picture: Tensor, form: str = "png") -> str:
    """A picture, uint8 ``[3, H, W]``, as a data URL of ``form`` (one of ``types.PICTURE_FORMATS``):
    PNG, or JPEG, also where a PNG would be too long. Never WebP, which some servers cannot read."""
    if form == "png" and picture.shape[-2] * picture.shape[-1] <= MAX_PNG_PIXELS:
        png = _encoded(picture, "PNG")
        if len(png) <= MAX_PNG_BYTES:
            return f"data:image/png;base64,{_base64(png)}"
    return f"data:image/jpeg;base64,{jpeg(picture)}"


def jpeg(picture: Tensor) -> str:
    """A picture, uint8 ``[3, H, W]``, as JPEG in base64, its colours as finely sampled as its
    brightness."""
    return _base64(_encoded(picture, "JPEG"))


def wav(audio: Audio) -> str:
    """``audio`` at 16 kHz, its channels mixed to one, as a WAV file of 16 bits in base64."""
    from ..media.audio import RATE, resampled, write_wav

    file = io.BytesIO()
    write_wav(Audio(resampled(audio)[None], RATE), file)
    return _base64(file.getvalue())


def _encoded(picture: Tensor, form: str) -> bytes:
    from PIL import Image

    rows = picture.movedim(0, -1).contiguous().cpu().numpy()
    file = io.BytesIO()
    options = (
        {"compress_level": 1} if form == "PNG" else {"quality": JPEG_QUALITY, "subsampling": 0}
    )
    Image.fromarray(rows, "RGB").save(file, format=form, **options)
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
