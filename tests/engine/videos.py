"""Video files for tests, written by PyAV. Every frame shows its own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch

BITS = 8
SIZE = 64, 96


def numbered(number: int, size: tuple[int, int] = SIZE, invert: bool = False) -> np.ndarray:
    """A frame ``[H, W, 3]`` that shows ``number`` as bars, one a bit: bright ones are set."""
    bars = [224 if number >> bit & 1 else 32 for bit in range(BITS)]
    row = np.repeat(np.array(bars, np.uint8), size[1] // BITS)
    frame = np.broadcast_to(row[None, :, None], (size[0], len(row), 3))
    return np.ascontiguousarray(255 - frame if invert else frame)


def number_of(frame: torch.Tensor) -> int:
    """The number that a frame ``[3, H, W]`` shows."""
    bars = frame.float().mean((0, 1)).view(BITS, -1)
    return sum((bars[bit].mean() > 128).int().item() << bit for bit in range(BITS))


def write(
    out: Any,
    form: str = "mp4",
    codec: str = "libx264",
    frames: int = 48,
    rate: int = 24,
    *,
    keyframes: int = 12,
    b_frames: int | None = 2,
    size: tuple[int, int] = SIZE,
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> Any:
    """Writes a video to ``out``, a path or a file. ``keyframes``: frames from one to the next.
    ``pts``: of each frame, in milliseconds; by default they are equally far apart. Gives ``out``
    back."""
    with av.open(out if hasattr(out, "write") else str(out), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = keyframes
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if pts is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        beeps = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(index, size), format="rgb24")
            frame.pts = index if pts is None else pts[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if beeps is not None:
            _write_sound(container, beeps, frames / rate)
    return out


def _write_sound(container: Any, stream: Any, seconds: float) -> None:
    """A tone whose loudness rises from silence at the beginning to full at the end."""
    count = int(seconds * 16_000)
    time = np.arange(count) / 16_000
    wave = (np.sin(2 * np.pi * 440 * time) * time / seconds).astype(np.float32)
    for start in range(0, count, 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
        frame.rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
