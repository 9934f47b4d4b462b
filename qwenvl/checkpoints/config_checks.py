"""Whether a checkpoint's settings can be what they say, and agree with one another. Told before
weights are read; standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import IncompleteCheckpoint
from ..families import is_default
from ..types import Family
from .integrity import PROCESSORS
from .safetensors_header import read_json

_PARTS = ("thinker_config", "text_config", "vision_config", "quantization_config")
# The picture processor's settings beside those of the vision tower that they must equal. Where the
# processor's are absent, its own defaults hold; where the tower's are, those of its family.
_SIZES = (
    ("patch_size", "patch_size", 14),
    ("merge_size", "spatial_merge_size", 2),
    ("temporal_patch_size", "temporal_patch_size", 2),
)
_MERGE = 2  # of every family
_LARGEST = 1024  # of these; real ones are below 20
_BOUNDS = (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
_MOMENTS = ("image_mean", "image_std")


def faults(
    folder: Path, sizes: Mapping[str, int], config: Mapping[str, Any], family: Family
) -> dict[str, str]:
    """By file, what is wrong with the settings in it. ``sizes``: the files that there are;
    ``config``: the parsed ``config.json`` of a model of ``family``."""
    found = {"config.json": _in_config(config)}
    known = {**config, "vision_config": {**_usual(family), **vision(config)}}
    checks = {"generation_config.json": _in_generation, PROCESSORS[0]: _in_processor}
    if PROCESSORS[0] not in sizes:
        checks[PROCESSORS[1]] = _in_image_part
    for name, check in checks.items():
        if name not in sizes:  # where it is needed, that is told elsewhere
            continue
        try:
            settings = read_json(folder / name)
        except IncompleteCheckpoint as error:
            found[name] = str(error)
            continue
        sound = isinstance(settings, Mapping)
        what = check(settings, known) if sound else "it holds no JSON object"
        found[name] = what and f"is unusable ({what})"
    return {file: what for file, what in found.items() if what}


def _usual(family: Family) -> dict[str, int]:
    """What holds of a family's vision towers where ``config.json`` does not say it."""
    if is_default(family):
        return {}
    patch = family.patch_factor // _MERGE
    return {"patch_size": patch, "spatial_merge_size": _MERGE, "temporal_patch_size": 2}


def vision(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of ``config.json`` on the vision tower; empty where there is none."""
    return _part(thinker(config), "vision_config")


def thinker(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of ``config.json`` on the model that sees and writes: of Omni one part, else all."""
    return _part(config, "thinker_config") or config


def vocabulary(model: Mapping[str, Any]) -> int | None:
    """How many tokens the part ``thinker(config)`` says that the model knows, if it does."""
    words = _part(model, "text_config").get("vocab_size", model.get("vocab_size"))
    return words if type(words) is int else None


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def _in_config(config: Mapping[str, Any]) -> str:
    for holder in (config, thinker(config)):
        for name in _PARTS:
            if not isinstance(holder.get(name), Mapping | None):
                return f"is unusable (its {name} is {_short(holder[name])}, no JSON object)"
    seeing = vision(config)
    for _, name, _ in _SIZES:
        if name in seeing and not _is_size(seeing[name]):
            return f"is unusable ({name} in its vision_config is {_short(seeing[name])})"
    return ""


def _in_generation(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    named = settings.get("eos_token_id")
    most = vocabulary(thinker(config)) or math.inf
    for token in named if isinstance(named, list) else [] if named is None else [named]:
        if type(token) is not int or not 0 <= token < most:
            return f"its eos_token_id is {_short(named)}"
    return ""


def _in_image_part(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    part = settings.get("image_processor")
    if not isinstance(part, Mapping):
        return f"it has no part for pictures, image_processor, and there is no {PROCESSORS[0]}"
    return _in_processor(part, config)


def _in_processor(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    size = settings.get("size")
    if not isinstance(size, Mapping | None):
        return f"its size is {_short(size)}, no JSON object"
    for key, _, _ in _SIZES:
        if settings.get(key) is not None and not _is_size(settings[key]):
            return f"its {key} is {_short(settings[key])}"
    known = {key for key, _, _ in _SIZES} | {key for key, _ in _BOUNDS} | {*_MOMENTS, "size"}
    if not known & settings.keys():
        return "it does not say how pictures are prepared"
    seeing = _part(config, "vision_config")
    for key, theirs, default in _SIZES:
        own = default if settings.get(key) is None else settings[key]
        if theirs in seeing and own != seeing[theirs]:
            return (
                f"its {key} is {own}, and {theirs} of the vision tower in config.json is "
                f"{seeing[theirs]}: it belongs to another model"
            )
    return _in_bounds(settings, size or {}) or _in_moments(settings)


def _in_bounds(settings: Mapping[str, Any], size: Mapping[str, Any]) -> str:
    values = []
    for name, edge in _BOUNDS:
        named = [(name, settings.get(name)), (name, size.get(name)), (edge, size.get(edge))]
        for key, value in named:
            if value is not None and not (_is_number(value) and value >= 0):
                return f"its {key} is {_short(value)}"
        values.append(next((value for _, value in named if value), None))
    least, most = values
    if least and most and least > most:
        return f"its smallest picture, {least} pixels, is larger than its largest, {most}"
    return ""


def _in_moments(settings: Mapping[str, Any]) -> str:
    for name in _MOMENTS:
        values = settings.get(name)
        if values is None:
            continue
        sound = isinstance(values, list) and len(values) == 3 and all(map(_is_number, values))
        if not sound or (name == "image_std" and not all(values)):
            return f"its {name} is {_short(values)}, where one number for each colour is needed"
    return ""


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e12  # false for NaN


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
