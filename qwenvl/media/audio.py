"""Sound: from files, videos and AUDIO waveforms to samples at 16 kHz, and samples to WAV files.

Files are decoded and resampled by PyAV, a packet at a time: memory holds what is kept of a sound,
and no more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import BadAudio, BadOption, Unavailable
from ..types import Audio
from .pyav import channels_of, container_of
from .video_files import reason

log = logging.getLogger(__name__)

RATE = 16_000
"""Samples a second that every Qwen model with an audio tower hears."""

DAMAGED = "Parts of the sound are damaged and were left out."

LONGEST = 3 * 3600
"""Seconds of a sound that are read: more than any model's context holds."""

_SETTLING = 0.5
"""Seconds that are decoded before the part that is wanted."""

_LEAST_GAP = 0.05
"""Seconds between a file's beginning and that of its sound that are kept as silence. Encoders'
delays are shorter."""


def read(path: str | Path, start: float = 0.0, end: float | None = None) -> Audio:
    """The sound of a file or video, whatever its container, rate and channels, from ``start`` to
    ``end`` seconds (None: its end) of the file's own time: mono at 16 kHz, ``[1, N]``.

    What is damaged is left out, and the sound's notes say so. Raises ``BadAudio`` for a file that
    cannot be read or has no sound there, and ``BadOption`` for times that are none.
    """
    _check_times(start, end)
    parts: list[Tensor] = []
    left = 0  # samples before ``start`` that are still to come
    wanted = _samples((end if end is not None else start + LONGEST) - start)
    got = 0
    damage: list[str] = []
    for first, piece in _decoded(Path(path), start, damage):
        if not parts:
            left = max(_samples(start - first), 0)
            silence = _samples(first - start) if first - start > _LEAST_GAP else 0
            parts.append(torch.zeros(min(silence, wanted)))
            got = len(parts[0])
        dropped = min(left, len(piece))
        left -= dropped
        piece = piece[dropped:][: wanted - got]
        parts.append(piece)
        got += len(piece)
        if got >= wanted:
            break
    samples = torch.cat(parts) if parts else torch.zeros(0)
    if not len(samples):
        what = f"from {start:g} s on" if start else "at all"
        raise BadAudio(f"{Path(path).name} holds no sound {what}.")
    if end is None and got >= wanted:
        raise BadAudio(
            f"{Path(path).name} is longer than {LONGEST // 3600} hours. Choose a part of it."
        )
    if damage:
        log.warning("%s is damaged, and parts of it were left out: %s", path, damage[0])
    return Audio(samples[None], RATE, (DAMAGED,) if damage else ())


def from_waveform(waveform: Any, rate: Any) -> list[Audio]:
    """The sounds of an AUDIO: ``waveform`` is a float tensor ``[batch, channels, samples]`` of -1
    to 1, ``rate`` of them a second. Raises ``BadAudio`` for anything else."""
    if not isinstance(waveform, Tensor) or waveform.ndim not in (2, 3) or not waveform.numel():
        shape = list(getattr(waveform, "shape", ()))
        raise BadAudio(
            f"An AUDIO has a waveform of batch, channels and samples, and this one is "
            f"{type(waveform).__name__} {shape}. Connect a node that loads or records sound."
        )
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 1 <= rate <= 10_000_000:
        raise BadAudio(f"An AUDIO of {rate!r} samples a second cannot be heard.")
    batch = waveform if waveform.ndim == 3 else waveform[None]
    return [Audio(sound.detach().cpu().float(), round(rate)) for sound in batch]


def part(audio: Audio, start: float = 0.0, end: float | None = None) -> Audio:
    """``audio`` from ``start`` to ``end`` seconds. Raises ``BadAudio`` where nothing is left."""
    _check_times(start, end)
    first = round(start * audio.rate)
    last = None if end is None else round(end * audio.rate)
    samples = audio.samples[..., first:last]
    if not samples.shape[-1]:
        raise BadAudio(f"The sound is {seconds(audio):.2f} s long; there is none at {start:g} s.")
    return Audio(samples, audio.rate, audio.notes)


def seconds(audio: Audio) -> float:
    """How long ``audio`` is."""
    return float(audio.samples.shape[-1] / audio.rate)


def check_finite(audio: Audio) -> None:
    """Raises ``BadAudio`` for samples that are no numbers."""
    if not torch.isfinite(audio.samples).all():
        raise BadAudio("The sound has samples that are no numbers (NaN or infinite).")


def length(audio: Audio) -> int:
    """Samples of ``resampled(audio)``, without computing it."""
    return math.ceil(audio.samples.shape[-1] * RATE / audio.rate)


def resampled(audio: Audio) -> Tensor:
    """``audio`` as models hear it: float32 ``[N]`` at 16 kHz, the mean of its channels."""
    mono = audio.samples.float().mean(0)
    if audio.rate == RATE:
        return mono
    av = _pyav()
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    parts: list[Tensor] = []
    for piece in mono.split(audio.rate * 60):  # a minute at a time
        frame = av.AudioFrame.from_ndarray(piece[None].numpy(), format="flt", layout="mono")
        frame.rate = audio.rate
        parts += _resampled(resampler, frame)
    parts += _resampled(resampler, None)
    made, wanted = torch.cat(parts), length(audio)
    return torch.nn.functional.pad(made[:wanted], (0, max(wanted - len(made), 0)))


def write_wav(audio: Audio, target: str | Path | BinaryIO) -> None:
    """Writes ``audio`` as a WAV file of 16 bits, to a path or an open file. Raises ``OSError``."""
    import wave

    samples = (audio.samples.clamp(-1, 1) * 32767).round().to(torch.int16)
    opened = str(target) if isinstance(target, (str, Path)) else target
    with wave.open(opened, "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(audio.rate)
        file.writeframes(samples.T.contiguous().numpy().astype("<i2").tobytes())


def _check_times(start: float, end: float | None) -> None:
    if not 0 <= start < math.inf or (end is not None and not start < end < math.inf):
        until = "the end" if end is None else f"{end:g} s"
        raise BadOption(f"A sound cannot be cut from {start:g} s to {until}: begin before the end.")


def _samples(duration: float) -> int:
    return round(duration * RATE)


def _decoded(path: Path, start: float, damage: list[str]) -> Iterator[tuple[float, Tensor]]:
    """Pieces of the sound of ``path`` at 16 kHz, mono, the first of them at or before ``start``
    unless the sound begins later; each with the time in seconds, within the file, of the first.
    Why any of it could not be decoded goes into ``damage``."""
    av = _pyav()
    with _opened(av, path) as (container, stream):
        first: float | None = None
        resampler, source = None, None
        try:
            for time, frame in _frames(av, container, stream, start, damage):
                first = time if first is None else first
                if source != (source := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    yield from ((first, piece) for piece in _resampled(resampler, None))
                    resampler = av.AudioResampler("flt", frame.layout, RATE)
                frame.pts = None  # jumps in them are not for the resampler to fill
                yield from ((first, piece) for piece in _resampled(resampler, frame))
        except av.FFmpegError as error:  # it cannot be searched or resampled
            damage.append(reason(error))
        if first is not None:
            yield from ((first, piece) for piece in _resampled(resampler, None))
        elif damage:
            raise BadAudio(f"The sound of {path.name} cannot be decoded: {damage[0]}.")


def _frames(
    av: Any, container: Any, stream: Any, start: float, damage: list[str]
) -> Iterator[tuple[float, Any]]:
    """Frames from a little before ``start`` on, each with its time in seconds within the file.
    Codecs that build on what came before need a moment after a seek."""
    base = (container.start_time or 0) / av.time_base
    target = start - _SETTLING
    if target > 0:
        container.seek(int((target + base) / stream.time_base), stream=stream, backward=True)
        frames = _intact(av, container, stream, damage)
        frame = next(frames, None)
        if frame is not None and frame.time is not None and frame.time - base <= start:
            yield frame.time - base, frame
            yield from ((frame.time - base, frame) for frame in frames)
            return
        container.seek(0)  # it cannot be sought in: read from its beginning
    time = 0.0
    for frame in _intact(av, container, stream, damage):
        time = frame.time - base if frame.time is not None else time
        yield time, frame
        time += frame.samples / frame.sample_rate


def _intact(av: Any, container: Any, stream: Any, damage: list[str]) -> Iterator[Any]:
    """Frames of ``stream`` from where the file was searched to, a packet at a time, without what
    cannot be decoded."""
    packets, is_over = container.demux(stream), False
    while not is_over:
        frames: list[Any] = []
        try:
            packet = next(packets, None)
            is_over = packet is None  # behind damage, with frames left in the decoder
            frames = stream.decode(None) if packet is None else packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError as error:
            damage.append(reason(error))
        yield from frames


def _resampled(resampler: Any, frame: Any) -> Iterator[Tensor]:
    """What ``resampler`` (None: nothing) makes of ``frame``; of None: what it still holds."""
    if resampler is not None:
        yield from map(_mono, resampler.resample(frame))


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[tuple[Any, Any]]:
    """The container at ``path`` and its first sound."""
    if not path.is_file():
        raise BadAudio(f"There is no file {str(path)!r}.")
    try:
        # As a file, whatever its name looks like.
        container = container_of(av, f"file:{path}")
    except av.ArgumentError as error:
        raise BadAudio(
            f"{path.name} cannot be opened as sound: it is damaged, or a playlist of other files."
        ) from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadAudio(f"{path.name} cannot be opened as sound: {reason(error)}.") from error
    with container:
        if not container.streams.audio:
            raise BadAudio(f"{path.name} has no sound in it.")
        yield container, container.streams.audio[0]


def _mono(frame: Any) -> Tensor:
    """The mean of the channels of a frame of floats ``flt``, ``[samples]``."""
    return torch.from_numpy(channels_of(frame)).mean(0)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise Unavailable(
            "Sound and video are read with the package av, which is not installed. Install it "
            "with: pip install av"
        ) from error
    return av
