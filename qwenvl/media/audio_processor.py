"""Audio processor: sounds to log-mel features of the audio tower, and how many tokens they become.

The features are those of transformers' ``WhisperFeatureExtractor`` for a sound by itself, computed
a minute at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..errors import BadAudio
from ..types import Audio, Hearing
from . import audio

_FRAMES_AT_ONCE = 6000  # a minute


@dataclass(frozen=True)
class AudioProcessor:
    """How a checkpoint hears. ``hearing``: its family's rules; ``mel_bins`` rows of features, one
    column each ``hop`` samples, from ``window`` of them; ``chunk``: columns that the tower's
    convolutions see at a time, and ``attention`` those that attend to one another, whole chunks.
    ``max_samples``: the longest sound that the makers' processor takes
    whole (None: any)."""

    hearing: Hearing
    mel_bins: int = 128
    hop: int = 160
    window: int = 400
    chunk: int = 200
    attention: int = 200
    max_samples: int | None = None

    @classmethod
    def from_config(
        cls, hearing: Hearing, settings: Mapping[str, Any], tower: Mapping[str, Any]
    ) -> AudioProcessor:
        """``settings``: the feature extractor's, of ``preprocessor_config.json``; ``tower``: the
        model's ``audio_config``. What they do not say is as in the makers' checkpoints. Raises
        ``TypeError`` and ``ValueError`` for what is no number."""
        seconds = int(settings.get("chunk_length", hearing.max_seconds or 0))
        chunk = 2 * int(tower.get("n_window", hearing.window))
        attention = int(tower.get("n_window_infer", hearing.tower_window)) // chunk * chunk
        return cls(
            hearing,
            int(tower.get("num_mel_bins", settings.get("feature_size", 128))),
            int(settings.get("hop_length", 160)),
            int(settings.get("n_fft", 400)),
            chunk,
            max(chunk, attention) if hearing.tower_window else chunk,
            seconds * audio.RATE if hearing.max_seconds else None,
        )

    def seconds(self, sound: Audio) -> float:
        """How long ``sound`` is."""
        return audio.seconds(sound)

    def frames(self, sound: Audio) -> int:
        """Columns of the features of ``sound``."""
        samples = audio.length(sound)
        return -(-samples // self.hop) if self.hearing.pads else samples // self.hop

    def tokens(self, sound: Audio) -> int:
        """Tokens that ``sound`` becomes. Raises ``BadAudio`` for one that is too short or too long
        for the model, or has samples that are no numbers."""
        audio.check_finite(sound)
        samples = audio.length(sound)
        tokens = self._tokens(self.frames(sound)) if samples > self.window else 0
        if tokens < 1:
            raise BadAudio(
                f"A sound of {samples / audio.RATE:.3f} s is too short to be heard: give at least "
                "a tenth of a second."
            )
        if self.max_samples and samples > self.max_samples:
            raise BadAudio(
                f"The sound is {samples / audio.RATE:.0f} s long, and this model hears at most "
                f"{self.max_samples // audio.RATE} s at once. Give a part of it, or several "
                "sounds one after the other."
            )
        return tokens

    def _tokens(self, frames: int) -> int:
        if self.hearing.pooled:
            # A convolution of stride 2, then the mean of each two.
            return ((frames - 1) // 2 + 1) // 2
        # Three convolutions of stride 2 over each chunk by itself.
        whole, rest = divmod(frames, self.chunk)
        return whole * _thrice_halved(self.chunk) + _thrice_halved(rest)

    def parts(self, mels: Tensor) -> list[Tensor]:
        """Features in parts of about a minute that the tower may be given one after the other: what
        is in one part attends to nothing in another. The last has a whole chunk at least, to which
        the tower fills up what is left over."""
        step = _FRAMES_AT_ONCE // self.attention * self.attention or self.attention
        starts = range(0, max(1, mels.shape[1] - self.chunk + 1), step)
        return list(mels.tensor_split([*starts][1:], 1))

    def features(self, sound: Audio, check: Callable[[], None] = lambda: None) -> Tensor:
        """Log-mel features ``[mel_bins, frames]`` of ``sound``, float32. ``check`` is called now
        and then."""
        count, half = self.frames(sound), self.window // 2
        samples = audio.resampled(sound)[None]
        samples = _mirrored(samples, half, 0)
        if self.hearing.pads:  # with silence, up to the longest sound
            left = (self.max_samples or math.inf) - audio.length(sound)
            silence = int(min(self.window, left))
            samples = torch.nn.functional.pad(samples, (0, silence))
        samples = _mirrored(samples, 0, half)
        window, filters = torch.hann_window(self.window), _mel_filters(self.mel_bins, self.window)
        parts = []
        for first in range(0, count, _FRAMES_AT_ONCE):
            check()
            last = min(first + _FRAMES_AT_ONCE, count)
            piece = samples[0, first * self.hop : (last - 1) * self.hop + self.window]
            spectrum = torch.stft(
                piece, self.window, self.hop, window=window, center=False, return_complex=True
            )
            parts.append((filters @ spectrum.abs().square()).clamp(min=1e-10).log10())
        features = torch.cat(parts, 1)
        return (features.maximum(features.max() - 8.0) + 4.0) / 4.0


def _mirrored(samples: Tensor, before: int, behind: int) -> Tensor:
    """``samples`` ``[1, N]``, continued by their own mirror image."""
    return torch.nn.functional.pad(samples, (before, behind), mode="reflect")


def _thrice_halved(frames: int) -> int:
    for _ in range(3):
        frames = (frames - 1) // 2 + 1
    return frames


@lru_cache(maxsize=4)
def _mel_filters(bins: int, window: int) -> Tensor:
    """Triangular filters ``[bins, window // 2 + 1]`` up to 8 kHz on the mel scale of Slaney's
    Auditory Toolbox (1998): linear up to 1 kHz, logarithmic above; each of area 1."""
    step = math.log(6.4) / 27
    top = 15.0 + math.log(8.0) / step
    mel = torch.linspace(0, top, bins + 2, dtype=torch.float64)
    edges = torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp(step * (mel - 15)))
    bands = torch.linspace(0, audio.RATE / 2, window // 2 + 1, dtype=torch.float64)
    slopes = edges[:, None] - bands
    width = edges.diff()[:, None]
    rising, falling = -slopes[:-2] / width[:-1], slopes[2:] / width[1:]
    filters = torch.minimum(rising, falling).clamp(min=0)
    return (filters * 2 / (edges[2:] - edges[:-2])[:, None]).float()
