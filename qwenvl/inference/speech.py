"""Speech: the answer of a request that asks for it, spoken by the checkpoint's own talker.

Through ``generate`` of the whole model, one request after another: the thinker writes the answer,
the talker turns it into codes, and those become a waveform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..types import Audio, Speech

MAX_CODES = 4096
"""Codes of the longest speech, the makers' default."""

CUT = "The speech was cut: it is as long as this model's can be. Ask for a shorter answer."

NOTHING_SAID = "There is no speech, since the answer is empty."

TOO_SHORT = "There is no speech, since the answer was cut at its first token: raise max_new_tokens."


class NothingSaid(Exception):
    """Ends ``generate`` where the answer has too few tokens to be spoken; with the note on it."""


def generate(
    whole: Any,
    inputs: dict[str, Any],
    options: dict[str, Any],
    speech: Speech,
    voice: str,
    seed: int,
    check: Callable[[], None],
) -> tuple[Audio, bool]:
    """The spoken answer, and whether it was cut. ``inputs`` and ``options``: arguments of the
    thinker's ``generate``. ``seed``: of the talker, which samples. Raises ``NothingSaid``."""
    codes = 0

    def counted(ids: Tensor, _scores: Any, **_: Any) -> Tensor:
        nonlocal codes
        check()
        codes += 1
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    talker = whole.talker
    if not hasattr(talker.config, "audio_config"):
        # Positions of sounds beside pictures are counted by it, and one family's talker lacks it.
        talker.config.audio_config = whole.thinker.config.audio_config
    # What the talker does not take must not come to it.
    options |= {name: inputs.pop(name) for name in list(inputs) if name.startswith("pixel_values")}
    thinker = {f"thinker_{name}": value for name, value in options.items()}
    ends = [getattr(talker, f"codec_{name}_token", None) for name in ("pad", "eos")]
    if None not in ends:  # one family's default has the numbers of its first checkpoints
        thinker["talker_eos_token_id"] = ends
    with _seeded(seed, inputs["input_ids"].device):
        _, wave = whole.generate(
            **inputs,
            **thinker,
            speaker=voice,
            talker_max_new_tokens=MAX_CODES,
            talker_stopping_criteria=[counted],
        )
    samples = wave.detach().reshape(1, -1).float().cpu()
    return Audio(samples, speech.rate), codes >= MAX_CODES


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's own generators begin at ``seed`` within the block, and go on as before behind it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
