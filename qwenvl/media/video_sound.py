"""Sound of a video, cut to the same part of the file as its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..types import Audio
from .pyav import channels_of
from .video_files import Clip, OpenVideo, load_av, opened

SHORTEST = 0.1
"""Seconds of a sound that models can hear."""


def heard_sound(clip: Clip, check: Callable[[], None] = lambda: None) -> Audio | None:
    """As ``read_sound``, in the form in which models hear it, mono at 16 kHz; None where it is too
    short for that."""
    from . import audio

    sound = read_sound(clip, check, mono=True)
    if sound is None or audio.seconds(sound) < SHORTEST:
        return None
    return Audio(audio.resampled(sound)[None], audio.RATE)


def read_sound(
    clip: Clip, check: Callable[[], None] = lambda: None, mono: bool = False
) -> Audio | None:
    """The sound of ``clip``, from its beginning to its end, at the file's own rate and with its own
    channels, or the mean of them (``mono``); None where it has none. Silence stands where the file
    has a gap. Raises as ``video_files.opened``."""
    import torch

    with opened(clip) as video:
        if not video.container.streams.audio:
            return None
        rate = video.container.streams.audio[0].rate
        end = clip.start + video.facts().duration
        found = map(torch.from_numpy, sound_blocks(video, clip.start, end, check))
        blocks = [block.mean(0, keepdim=True) if mono else block for block in found]
    return Audio(torch.cat(blocks, 1), rate) if blocks else None


def sound_blocks(
    video: OpenVideo, start: float, end: float, check: Callable[[], None]
) -> Iterator[Any]:
    """The first sound of ``video`` from ``start`` to ``end``, in seconds from its first frame, as
    float32 arrays ``[channels, N]`` that follow one another without a gap."""
    import numpy as np

    av = load_av()
    stream = video.container.streams.audio[0]
    rate = stream.rate
    resampler = av.AudioResampler(format="flt", layout=stream.layout, rate=rate)
    zero = video.origin * video.time_base + start  # of the clip, on the clock of the file
    position, length = 0, round((end - start) * rate)  # in samples of the clip
    # From the beginning too: while it was opened, packets of its sound were read and let go.
    video.container.seek(max(0, int(zero * av.time_base)), backward=True)
    for frame in video.decoded(stream, check):
        begins = round((frame.time - zero) * rate)
        if begins >= length:
            break
        for plain in resampler.resample(frame):
            block = channels_of(plain)
            first = max(begins, 0)
            block, begins = block[:, max(0, position - begins) :], begins + block.shape[1]
            if first > position + rate // 20:  # shorter gaps are rounding of timestamps
                yield np.zeros((block.shape[0], first - position), np.float32)
                position = first
            block = block[:, : length - position]
            if block.size:
                position += block.shape[1]
                yield block
