"""The Loader's panel: the memory forecast for its widgets, asked by the page over HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..qwenvl.backends.base import Resident
from ..qwenvl.checkpoints.library import Download
from ..qwenvl.checkpoints.references import Reference, parse_reference
from ..qwenvl.checkpoints.remote_size import download_bytes
from ..qwenvl.errors import BadOption, QwenVLError
from ..qwenvl.model_cache import CACHE
from ..qwenvl.models import forecast as engine
from ..qwenvl.models.devices import pick_devices
from ..qwenvl.models.memory import Memory
from ..qwenvl.types import GgufSpec, LocalSpec
from . import host

ROUTE = "/qwen_vl/model"


def forecast(query: Mapping[str, str]) -> dict[str, Any]:
    """A ``Forecast`` for the widgets of a Loader by name, those left out at their defaults. Reads
    headers of files only, and names no folder of this machine but the models' own.

    Raises ``BadOption`` for settings that cannot be met.
    """
    models = host.model_library()
    try:
        reference = _reference(query)
        place = models.locate_reference(reference) if reference else _located(query)
        if reference and isinstance(place, Download) and place.reference:
            return _of_named(place, reference, query)
        spec = _spec(query, "" if isinstance(place, Download) else str(place))
        loaded = CACHE.loaded(spec) if spec.checkpoint else []
        resident = [backend for backend in loaded if isinstance(backend, Resident)]
        found = engine.forecast(place, spec, device_memory(spec), resident)
    except QwenVLError as error:
        raise BadOption(models.without_folders(str(error))) from error
    return {**dataclasses.asdict(found), "problem": models.without_folders(found.problem)}


def download_size(body: Mapping[str, str]) -> dict[str, Any]:
    """Asks the hub how large the ``custom_model`` of a Loader is; ``forecast`` knows it from then
    on. Raises ``BadOption`` and ``DownloadError``."""
    if (reference := _reference(body)) is None:
        raise BadOption("There is no model to ask about: custom_model is empty.")
    return {"bytes": download_bytes(reference)}


def allow_download(body: Mapping[str, str]) -> dict[str, Any]:
    """Notes that the user allows the download of the ``custom_model`` of a Loader. Raises
    ``BadOption``."""
    if (reference := _reference(body)) is None:
        raise BadOption("There is no model to allow: custom_model is empty.")
    host.consents().allow(reference)
    return {"allowed": str(reference)}


def _reference(query: Mapping[str, str]) -> Reference | None:
    text = query.get("custom_model", "").strip()
    return parse_reference(text, query.get("source", "huggingface")) if text else None


def _located(query: Mapping[str, str]) -> Path | Download:
    return host.model_library().locate(query.get("model", ""))


def _of_named(place: Download, reference: Reference, query: Mapping[str, str]) -> dict[str, Any]:
    allowed = host.consents().allows(reference)
    memory = device_memory(_spec(query, ""))
    found = engine.forecast_named(place, reference, allowed, memory)
    problem = host.model_library().without_folders(found.problem)
    return {**dataclasses.asdict(found), "problem": problem}


def _spec(query: Mapping[str, str], checkpoint: str) -> LocalSpec:
    return LocalSpec(
        checkpoint,
        query.get("precision", "auto"),
        query.get("quantization", "none"),
        query.get("attention", "auto"),
        host.device(query.get("device", "auto")),
        optimize=query.get("optimize", "auto"),
        yarn=_number("yarn", query.get("yarn", "1")),
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadOption(f"{name} is {text[:40]!r}, no number.") from error


def device_memory(spec: LocalSpec | GgufSpec) -> engine.DeviceMemory:
    """Of the devices that a model will run on."""
    devices = pick_devices(spec.device)
    memory = CACHE.memory or Memory()
    return engine.DeviceMemory(
        str(devices[0]) if len(devices) == 1 else f"{len(devices)} × {devices[0].type}",
        free=sum(map(memory.free, devices)),
        movable=sum(map(host.movable_memory, devices)),
        total=sum(map(host.total_memory, devices)),
    )
