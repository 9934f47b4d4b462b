"""Memory forecast: what a model will occupy once it is loaded and whether that fits, told from
settings and headers before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ..checkpoints.catalogue import CATALOGUE, CatalogueEntry
from ..checkpoints.files import read_settings
from ..checkpoints.inspection import inspect
from ..checkpoints.library import Download, name_of
from ..checkpoints.references import Reference
from ..checkpoints.remote_size import download_bytes, free_bytes, known_bytes
from ..checkpoints.retrieval_files import with_retrieval
from ..errors import BadOption, QwenVLError, Unavailable, UnsupportedModel
from ..families import FAMILIES, family_of, model_config
from ..retrieval import as_retrieval
from ..types import Family, LocalSpec
from ..yarn import with_yarn
from . import footprint
from .attention import ATTENTIONS
from .loading import check_runnable
from .precision import PRECISIONS
from .quantization import QUANTIZATIONS, check_quantization

_WORK = 10**9
"""Bytes that answering about one image of a usual size takes beside the weights, at least."""

_OPTIONS: Mapping[str, Collection[str]] = {
    "quantization": QUANTIZATIONS,
    "precision": PRECISIONS,
    "attention": ATTENTIONS,
}

Fits = Literal["now", "after others", "no"]
_Size = Callable[[LocalSpec], int]


class Placed(Protocol):
    """A model whose weights are here. ``place``: ``device``, ``ram`` or ``disk``; ``nbytes``: of
    its weights."""

    @property
    def place(self) -> str: ...

    @property
    def nbytes(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """Bytes of memory on the devices that a model will run on, added up over them.

    ``device``: the device's name; of a model that is split, their number and kind. ``movable``:
    what the host can move out of there to make room.
    """

    device: str
    free: int
    movable: int
    total: int


@dataclasses.dataclass(frozen=True)
class Forecast(DeviceMemory):
    """Sizes are bytes; see ``DeviceMemory``.

    ``availability``: whether the checkpoint is ``here``, will be a ``download`` on first use, or
    is ``incomplete`` and must be mended by hand, ``problem`` saying how. ``to_download``: about
    how much is still to come; ``partial``: whether some of it is here. ``weights``: what they
    occupy, or will (None: not known). ``loaded``: where they are now, empty if only on disk.

    ``fits``: ``now``, once ``after others`` were moved out, or ``no``; ``lighter`` is then a
    quantization that would fit, if there is one. ``retrieval``: of a model that only compares, the
    kind (see ``types.Retrieval``); empty for one that writes.

    ``consent``: of a download of what somebody named, whether it is ``needed`` or ``given``, or its
    hub was ``not asked`` for its size; empty of any other model. ``repository`` and ``source``:
    what is downloaded, and from which hub; ``disk``: what is free on the disk that it goes to.
    """

    name: str = ""
    availability: Literal["here", "download", "incomplete"] = "here"
    problem: str = ""
    to_download: int = 0
    partial: bool = False
    weights: int | None = None
    loaded: Literal["", "ram", "device"] = ""
    fits: Fits = "now"
    lighter: str = ""
    retrieval: Literal["", "reranker", "embedding"] = ""
    consent: Literal["", "not asked", "needed", "given"] = ""
    repository: str = ""
    source: str = ""
    disk: int = 0


def forecast(
    place: Path | Download, spec: LocalSpec, memory: DeviceMemory, loaded: Iterable[Placed] = ()
) -> Forecast:
    """A forecast for the checkpoint or download ``place``, loaded as ``spec`` says onto devices
    with this ``memory``. ``loaded``: the models of ``spec`` that are open now.

    Raises the engine's errors for settings that cannot be met.
    """
    for name, allowed in _OPTIONS.items():
        if (value := getattr(spec, name)) not in allowed:
            raise BadOption(f"{name} is {value!r}; use one of {', '.join(allowed)}.")
    known = dataclasses.asdict(memory)
    if isinstance(place, Download):
        return _of_download(place, spec, known)
    return _of_folder(place, spec, known | _loaded(loaded))


def _loaded(models: Iterable[Placed]) -> dict[str, Any]:
    """What is known of a model where one of ``models`` is not on disk only."""
    known: dict[str, Any] = {}
    for model in models:
        if model.place != "disk":
            known = {"loaded": model.place, "weights": model.nbytes}
    return known


def forecast_named(
    place: Download, reference: Reference, allowed: bool, memory: DeviceMemory
) -> Forecast:
    """A forecast for the download of what ``reference`` names. ``allowed``: whether the user has
    allowed it. Of a name that he has not, no hub is asked here: it may be in a workflow that was
    only opened. What its weights will occupy is known once it is here. Raises ``DownloadError``."""
    here, disk = place.bytes_here, free_bytes(place.folder)
    size = download_bytes(reference) if allowed else known_bytes(reference)
    missing = max(0, (size or 0) - here)
    room = "" if missing <= disk else f"There is no room for it in {place.root}. Free some space."
    return Forecast(
        **dataclasses.asdict(memory),
        name=place.folder.name,
        availability="download",
        problem=room,
        to_download=missing,
        partial=here > 0,
        consent="given" if allowed else "not asked" if size is None else "needed",
        repository=str(reference),
        source=reference.source,
        disk=disk,
    )


def forecast_served(
    name: str, nbytes: int, memory: DeviceMemory, loaded: Iterable[Placed] = ()
) -> Forecast:
    """A forecast for the model of that ``name``, which a server that is started here will take
    ``nbytes`` for. ``loaded``: the models of the same spec that are open now."""
    known = {**dataclasses.asdict(memory), "name": name, "weights": nbytes}
    return _fitting(known | _loaded(loaded))


def _of_download(place: Download, spec: LocalSpec, known: dict[str, Any]) -> Forecast:
    entry = CATALOGUE[place.repo_id]
    family = as_retrieval(FAMILIES[entry.model_type], entry.name)
    check_runnable(Path(entry.name), spec, family)
    with_yarn({}, family, spec.yarn)
    here = place.bytes_here
    known |= {"name": entry.name, "availability": "download", "partial": here > 0}
    known["retrieval"] = _retrieval(family)
    known["to_download"] = max(0, entry.nbytes - here)
    return _judge(known, spec, lambda wish: _catalogue_bytes(entry, wish))


def _of_folder(path: Path, spec: LocalSpec, known: dict[str, Any]) -> Forecast:
    found = inspect(path)
    known |= {"name": name_of(path), "availability": "here"}
    if found.missing:
        known |= {"availability": "incomplete", "weights": None, "loaded": ""}
        return Forecast(**known, problem=found.problem)
    if found.problem:
        raise UnsupportedModel(f"{name_of(path)}: {found.problem}")
    config = read_settings(path, "config.json")
    family = with_retrieval(family_of(config), path, config)
    known["retrieval"] = _retrieval(family)
    check_runnable(path, spec, family)
    with_yarn(model_config(config, family), family, spec.yarn)
    return _judge(known, spec, lambda wish: _checkpoint_bytes(path, config, wish))


def _retrieval(family: Family) -> str:
    return family.retrieval.kind if family.retrieval else ""


def _checkpoint_bytes(path: Path, config: Mapping[str, Any], spec: LocalSpec) -> int:
    check_quantization(path, spec, config)
    return footprint.estimated_bytes(path, spec)


def _catalogue_bytes(entry: CatalogueEntry, spec: LocalSpec) -> int:
    if spec.quantization != "none" and not entry.can_be_quantized:
        raise Unavailable(
            f"{spec.quantization} is not for FP8 editions and mixtures of experts: set "
            "quantization to none."
        )
    return footprint.expected_bytes(entry, spec)


def _judge(known: Mapping[str, Any], spec: LocalSpec, size: _Size) -> Forecast:
    """Whether it fits. ``size``: bytes of the weights by spec; raises for what cannot be loaded."""
    found = _fitting({**known, "weights": known.get("weights") or size(spec)})
    if found.fits != "no":
        return found
    return dataclasses.replace(found, lighter=_lighter(spec, size, found.free + found.movable))


def _fitting(known: Mapping[str, Any]) -> Forecast:
    """Whether what is ``known``, with its weights, fits."""
    needed = _needed(known["weights"])
    if known.get("loaded") == "device" or needed <= known["free"]:
        return Forecast(**known)
    fits: Fits = "after others" if needed <= known["free"] + known["movable"] else "no"
    return Forecast(**known, fits=fits)


def _needed(weights: int) -> int:
    return weights + min(weights // 5, _WORK)


def _lighter(spec: LocalSpec, size: _Size, room: int) -> str:
    """The first stronger quantization that fits into ``room`` bytes; empty if none does."""
    stronger = QUANTIZATIONS[QUANTIZATIONS.index(spec.quantization) + 1 :]
    for quantization in stronger:
        try:
            weights = size(dataclasses.replace(spec, quantization=quantization))
        except QwenVLError:  # not for this model, or not on this machine
            continue
        if _needed(weights) <= room:
            return quantization
    return ""
