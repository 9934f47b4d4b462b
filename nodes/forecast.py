"""What the Loader will load and what that will take, told before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from ..qwenvl.checkpoints import library
from ..qwenvl.checkpoints.safetensors_header import settings
from ..qwenvl.errors import BadOption, QwenVLError, Unavailable, UnsupportedModel
from ..qwenvl.families import FAMILIES, family_of
from ..qwenvl.model_cache import CACHE
from ..qwenvl.models import footprint, loading
from ..qwenvl.models.devices import pick_devices
from ..qwenvl.models.memory import Memory
from ..qwenvl.types import LocalSpec
from . import host, shelf

_WORK = 10**9
"""Bytes that answering about one picture of a usual size takes beside the weights, at least."""

_CHOICES: Mapping[str, Collection[str]] = {
    "quantization": loading.QUANTIZATIONS,
    "precision": loading.PRECISIONS,
    "attention": loading.ATTENTIONS,
}

Fits = Literal["now", "after others", "no"]
Size = Callable[[LocalSpec], int]


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Sizes are bytes.

    ``stock``: whether the checkpoint is ``here``, will be a ``download`` on the first run, or is
    ``incomplete`` and must be mended by hand, ``problem`` saying how. ``to_download``: about how
    much is still to come; ``begun``: whether a part of it is here. ``weights``: what they occupy,
    or will (None: not known). ``loaded``: where they are now, empty if only on disk.

    ``device``: where they will run; of a model that is split, the number of devices, whose memory
    is added up. ``movable``: what ComfyUI can move out of there to make room. ``fits``: ``now``,
    once ``after others`` were moved out, or ``no``; ``lighter`` is then a quantization that would
    fit, if there is one.
    """

    name: str
    stock: Literal["here", "download", "incomplete"]
    device: str
    free: int
    movable: int
    total: int
    problem: str = ""
    to_download: int = 0
    begun: bool = False
    weights: int | None = None
    loaded: Literal["", "ram", "device"] = ""
    fits: Fits = "now"
    lighter: str = ""


def forecast(query: Mapping[str, str]) -> dict[str, Any]:
    """A ``Forecast`` for the widgets of a Loader by name, those left out at their defaults. Reads
    headers of files only, and names no folder of this machine but the models' own.

    Raises the engine's errors for settings that cannot be met.
    """
    try:
        return dataclasses.asdict(_forecast(query))
    except QwenVLError as error:
        raise BadOption(shelf.without_folders(str(error))) from error


def _forecast(query: Mapping[str, str]) -> Forecast:
    place = shelf.locate(query.get("model", ""))
    spec = _spec(query, "" if isinstance(place, shelf.Download) else str(place))
    devices = pick_devices(spec.device)
    memory = CACHE.memory or Memory()
    told: dict[str, Any] = {
        "device": str(devices[0]) if len(devices) == 1 else f"{len(devices)} × {devices[0].type}",
        "free": sum(map(memory.free, devices)),
        "movable": sum(map(host.movable_memory, devices)),
        "total": sum(map(host.total_memory, devices)),
    }
    if isinstance(place, shelf.Download):
        return _of_download(place, spec, told)
    return _of_folder(spec, told)


def _spec(query: Mapping[str, str], checkpoint: str) -> LocalSpec:
    for name, allowed in _CHOICES.items():
        if name in query and query[name] not in allowed:
            raise BadOption(f"{name} is {query[name]!r}; use one of {', '.join(allowed)}.")
    return LocalSpec(
        checkpoint,
        query.get("precision", "auto"),
        query.get("quantization", "none"),
        query.get("attention", "auto"),
        host.device(query.get("device", "auto")),
    )


def _of_download(place: shelf.Download, spec: LocalSpec, told: dict[str, Any]) -> Forecast:
    entry = library.CATALOGUE[place.repo_id]
    loading.check_runnable(Path(entry.name), spec, FAMILIES[entry.model_type])
    came = shelf.came(place)
    told.update(name=entry.name, stock="download", begun=came > 0)
    told.update(to_download=max(0, entry.nbytes - came))
    return _judged(told, spec, lambda wish: _coming(entry, wish))


def _of_folder(spec: LocalSpec, told: dict[str, Any]) -> Forecast:
    path = Path(spec.checkpoint)
    found = library.inspect(path)
    name = shelf.BUNDLED_NAME if path == library.BUNDLED else found.name
    if found.missing:
        problem = shelf.without_folders(found.problem)
        return Forecast(name=name, stock="incomplete", problem=problem, **told)
    if found.problem:
        raise UnsupportedModel(f"{name}: {found.problem}")
    config = settings(path, "config.json")
    loading.check_runnable(path, spec, family_of(config))
    told.update(name=name, stock="here")
    return _judged(told, spec, lambda wish: _here(path, config, wish))


def _here(path: Path, config: Mapping[str, Any], spec: LocalSpec) -> int:
    loading.check_quantization(path, spec, config)
    return footprint.estimated_bytes(path, spec)


def _coming(entry: library.Entry, spec: LocalSpec) -> int:
    if spec.quantization != "none" and entry.is_fixed:
        raise Unavailable(
            f"{spec.quantization} is not for FP8 editions and mixtures of experts: set "
            "quantization to none."
        )
    return footprint.expected_bytes(entry, spec)


def _judged(told: Mapping[str, Any], spec: LocalSpec, size: Size) -> Forecast:
    """Whether it fits. ``size``: bytes by spec; raises for what cannot be loaded so."""
    for backend in CACHE.loaded(spec) if spec.checkpoint else []:
        if backend.place != "disk":
            told = {**told, "loaded": backend.place, "weights": backend.nbytes}
    weights = told.get("weights") or size(spec)
    told = {**told, "weights": weights}
    if told.get("loaded") == "device" or _need(weights) <= told["free"]:
        return Forecast(**told)
    room = told["free"] + told["movable"]
    if _need(weights) <= room:
        return Forecast(fits="after others", **told)
    return Forecast(fits="no", lighter=_lighter(spec, size, room), **told)


def _need(weights: int) -> int:
    return weights + min(weights // 5, _WORK)


def _lighter(spec: LocalSpec, size: Size, room: int) -> str:
    """The first stronger quantization that fits into ``room``; empty if none does."""
    stronger = loading.QUANTIZATIONS[loading.QUANTIZATIONS.index(spec.quantization) + 1 :]
    for quantization in stronger:
        try:
            weights = size(dataclasses.replace(spec, quantization=quantization))
        except QwenVLError:  # not for this model, or not on this machine
            continue
        if _need(weights) <= room:
            return quantization
    return ""
