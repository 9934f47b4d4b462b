"""Server kinds: what each kind of server does to pictures, and which fields of the OpenAI protocol
it knows, as data in ``kinds.yaml``."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import BadOption
from ..types import Family, Size
from ..yaml_files import read_mapping

BUILT_IN = Path(__file__).with_name("kinds.yaml")

AUTO, OTHER = "auto", "other"
"""A kind that is to be found out, see ``detection``; one that is none of the known ones."""

Rounding = Literal["half_even", "half_up"]


@dataclass(frozen=True)
class PictureLimits:
    """What a server does to pictures. Numbers are 0 where it has no bound of its own, beside that
    of the checkpoint.

    ``least_tokens`` and ``most_tokens``: of one picture; ``least_pixels`` and
    ``most_pixels``: of the resized picture; ``longest_side``: in pixels, to which longer pictures
    are shrunk first. ``rounding``: what the server's own resize makes of half a patch."""

    least_tokens: int = 0
    most_tokens: int = 0
    least_pixels: int = 0
    most_pixels: int = 0
    longest_side: int = 0
    rounding: Rounding = "half_even"

    def bounds(self, family: Family) -> tuple[int, int]:
        """The least and the most pixels that the server shows of a picture to a model of
        ``family``."""
        square = family.patch_factor**2
        low, high = family.pixel_bounds
        low = max(low, self.least_tokens * square, self.least_pixels)
        mosts = (high, self.most_tokens * square, self.most_pixels)
        return low, min(most for most in mosts if most)

    def resized(self, size: Size, family: Family) -> Size:
        """The (height, width) that the server makes of a picture of ``size``: the ``smart_resize``
        of Qwen's own processors, with this kind's limits and rounding.

        https://github.com/QwenLM/Qwen3-VL, ``qwen_vl_utils.vision_process.smart_resize``."""
        low, high = self.bounds(family)
        height, width = (float(side) for side in size)
        if self.longest_side and max(size) > self.longest_side:
            scale = self.longest_side / max(size)
            height, width = (max(1.0, float(round(side * scale))) for side in size)
        factor = family.patch_factor
        high_side, wide_side = (
            max(1, _rounded(side / factor, self.rounding)) * factor for side in (height, width)
        )
        if high_side * wide_side > high:
            shrink = math.sqrt(height * width / high)
            high_side = max(factor, math.floor(height / shrink / factor) * factor)
            wide_side = max(factor, math.floor(width / shrink / factor) * factor)
        elif high_side * wide_side < low:
            grow = math.sqrt(low / (height * width))
            high_side = math.ceil(height * grow / factor) * factor
            wide_side = math.ceil(width * grow / factor) * factor
        return high_side, wide_side


def _rounded(value: float, rounding: Rounding) -> int:
    return math.floor(value + 0.5) if rounding == "half_up" else round(value)


@dataclass(frozen=True)
class ServerKind:
    """A kind of server. ``name`` as in ``ServerSpec.kind``; ``owners``: what its list of models
    says in ``owned_by``, where that tells the kind.

    ``forms``: constraints that answers can be held to (kinds of ``Constraint``, and ``choice``),
    with the field of a request that does it, see ``answer_form``.
    ``thoughts``: fields of a reply that hold a thought, the likelier first. ``thinking``: the field
    that turns it on and off: ``chat_template_kwargs``, ``reasoning_effort`` or ``none``.
    ``thinkers``: names of models, without the tag after a colon, that are the Thinking edition here
    unless they say otherwise.
    ``logprobs``: ``raw``, as ``Token.logprob`` describes them, or ``none``.

    ``sampling``: fields of ``Sampling``, beside temperature, top_p and max_new_tokens that all
    know, with the server's own names; those that are missing it does not know. ``sampling_in``: the
    field that they stand in, as JSON text; empty: in the request itself. ``always``: fields of
    every request. ``all_tokens``: the ``top_k`` that has no effect.

    ``video``: ``frames``, a video of its own with the times of its frames, or ``pictures``, one
    after the other. ``video_switch``: the option that a server must have been started with before
    it takes these times; empty: any does. ``audio``: the part of a message that holds a sound, or
    ``none``, where the server takes none. ``parts_are_messages``: each part of a message becomes
    one of its own.
    ``sources``: of these facts, by the field's name."""

    name: str
    title: str
    pictures: PictureLimits
    owners: tuple[str, ...] = ()
    forms: Mapping[str, str] = field(default_factory=dict, hash=False)
    thoughts: tuple[str, ...] = ()
    thinking: Literal["chat_template_kwargs", "reasoning_effort", "none"] = "none"
    thinkers: tuple[str, ...] = ()
    logprobs: Literal["raw", "none"] = "none"
    sampling: Mapping[str, str] = field(default_factory=dict, hash=False)
    sampling_in: str = ""
    always: Mapping[str, Any] = field(default_factory=dict, hash=False)
    all_tokens: int = 0
    video: Literal["frames", "pictures"] = "pictures"
    video_switch: str = ""
    audio: Literal["input_audio", "audio_url", "none"] = "none"
    parts_are_messages: bool = False
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)


def kind(name: str) -> ServerKind:
    """The kind of that name. Raises ``BadOption``, naming those that there are."""
    found = kinds()
    if name not in found:
        raise BadOption(
            f"There is no kind of server {name!r}. Choose one of: {', '.join(names())}."
        )
    return found[name]


def names() -> tuple[str, ...]:
    """What may be chosen as ``ServerSpec.kind``."""
    return AUTO, *kinds()


@functools.lru_cache(maxsize=1)
def kinds() -> Mapping[str, ServerKind]:
    """All kinds, by name, in the order of the file. Raises ``Unavailable`` without pyyaml."""
    return {name: _kind(name, values) for name, values in read_mapping(BUILT_IN).items()}


def _kind(name: str, values: Mapping[str, Any]) -> ServerKind:
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    limits = PictureLimits(**given.pop("pictures", {}))
    return ServerKind(name, pictures=limits, **given)
