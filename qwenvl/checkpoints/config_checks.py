"""Config checks: whether a checkpoint's JSON settings are usable and consistent with one another,
before weights are read. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import IncompleteCheckpoint
from ..families import is_default, model_config
from ..types import Family
from .files import read_json, short_repr
from .integrity import PROCESSORS

_SECTIONS = ("text_config", "vision_config", "quantization_config")
# Settings of the image processor, those of the vision tower that they must equal, and defaults.
# Where the processor's are absent, its defaults hold; where the tower's are, those of its family.
_SIZES = (
    ("patch_size", "patch_size", 14),
    ("merge_size", "spatial_merge_size", 2),
    ("temporal_patch_size", "temporal_patch_size", 2),
)
_MERGE_SIZE = 2  # of every family
_MAX_SIZE = 1024  # of the settings in _SIZES; real ones are below 20
_BOUNDS = (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
_MOMENTS = ("image_mean", "image_std")
_Check = Callable[[Mapping[str, Any], Mapping[str, Any]], str]


def find_faults(
    folder: Path, sizes: Mapping[str, int], config: Mapping[str, Any], family: Family
) -> dict[str, str]:
    """By file name, what is wrong with the settings in it. ``sizes``: the files present;
    ``config``: the parsed ``config.json`` of a model of ``family``."""
    found = {"config.json": _check_config(config, family)}
    own = model_config(config, family)
    known = {**own, "vision_config": {**_default_sizes(family), **_section(own, "vision_config")}}
    checks: dict[str, _Check] = {"generation_config.json": _check_generation}
    if family.sees:
        checks[PROCESSORS[0]] = _check_image_processor
        if PROCESSORS[0] not in sizes:
            checks[PROCESSORS[1]] = _check_processor
    for name, check in checks.items():
        if name not in sizes:  # a needed one that is missing is reported by ``integrity``
            continue
        try:
            settings = read_json(folder / name)
        except IncompleteCheckpoint as error:
            found[name] = str(error)
            continue
        is_object = isinstance(settings, Mapping)
        what = check(settings, known) if is_object else "it holds no JSON object"
        found[name] = what and f"is unusable ({what})"
    return {file: what for file, what in found.items() if what}


def _default_sizes(family: Family) -> dict[str, int]:
    """The sizes of a family's vision towers, where ``config.json`` does not give them."""
    if is_default(family):
        return {}
    patch = family.patch_factor // _MERGE_SIZE
    return {"patch_size": patch, "spatial_merge_size": _MERGE_SIZE, "temporal_patch_size": 2}


def vocab_size(model: Mapping[str, Any]) -> int | None:
    """Tokens in the vocabulary, as ``model`` (see ``families.model_config``) gives them; None if
    it does not."""
    size = _section(model, "text_config").get("vocab_size", model.get("vocab_size"))
    return size if type(size) is int else None


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _check_config(config: Mapping[str, Any], family: Family) -> str:
    own = model_config(config, family)
    for holder in (config, own):
        for name in (family.config_section, *_SECTIONS):
            if not isinstance(holder.get(name), Mapping | None):
                return f"is unusable (its {name} is {short_repr(holder[name])}, no JSON object)"
    vision = _section(own, "vision_config")
    for _, name, _ in _SIZES:
        if name in vision and not _is_size(vision[name]):
            return f"is unusable ({name} in its vision_config is {short_repr(vision[name])})"
    return ""


def _check_generation(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    eos = settings.get("eos_token_id")
    size = vocab_size(config) or math.inf
    for token in eos if isinstance(eos, list) else [] if eos is None else [eos]:
        if type(token) is not int or not 0 <= token < size:
            return f"its eos_token_id is {short_repr(eos)}"
    return ""


def _check_processor(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    section = settings.get("image_processor")
    if not isinstance(section, Mapping):
        return f"it has no part for pictures, image_processor, and there is no {PROCESSORS[0]}"
    return _check_image_processor(section, config)


def _check_image_processor(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    size = settings.get("size")
    if not isinstance(size, Mapping | None):
        return f"its size is {short_repr(size)}, no JSON object"
    for key, _, _ in _SIZES:
        if settings.get(key) is not None and not _is_size(settings[key]):
            return f"its {key} is {short_repr(settings[key])}"
    known = {key for key, _, _ in _SIZES} | {key for key, _ in _BOUNDS} | {*_MOMENTS, "size"}
    if not known & settings.keys():
        return "it does not say how pictures are prepared"
    vision = _section(config, "vision_config")
    for key, vision_key, default in _SIZES:
        own = default if settings.get(key) is None else settings[key]
        if vision_key in vision and own != vision[vision_key]:
            return (
                f"its {key} is {own}, and {vision_key} of the vision tower in config.json is "
                f"{vision[vision_key]}: it belongs to another model"
            )
    return _check_bounds(settings, size or {}) or _check_moments(settings)


def _check_bounds(settings: Mapping[str, Any], size: Mapping[str, Any]) -> str:
    values = []
    for name, edge in _BOUNDS:
        given = [(name, settings.get(name)), (name, size.get(name)), (edge, size.get(edge))]
        for key, value in given:
            if value is not None and not (_is_number(value) and value >= 0):
                return f"its {key} is {short_repr(value)}"
        values.append(next((value for _, value in given if value), None))
    smallest, largest = values
    if smallest and largest and smallest > largest:
        return f"its smallest picture, {smallest} pixels, is larger than its largest, {largest}"
    return ""


def _check_moments(settings: Mapping[str, Any]) -> str:
    for name in _MOMENTS:
        values = settings.get(name)
        if values is None:
            continue
        are_three = isinstance(values, list) and len(values) == 3
        is_valid = are_three and all(map(_is_number, values))
        if not is_valid or (name == "image_std" and not all(values)):
            return f"its {name} is {short_repr(values)}, where one number for each colour is needed"
    return ""


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_SIZE


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e12  # false for NaN
