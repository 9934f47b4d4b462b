"""LoRA adapters on disk: which there are, what a folder holds, and what is wrong with it, before
anything is loaded.

An adapter is a folder with ``adapter_config.json`` and ``adapter_model.safetensors``, as the
library peft saves it.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..errors import (
    BadOption,
    CheckpointError,
    CheckpointNotFound,
    IncompleteCheckpoint,
    UnsupportedModel,
)
from ..types import Adapter
from .files import list_files, printable, read_settings, reason
from .safetensors_header import read_header

log = logging.getLogger(__name__)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_DEPTH = 3  # folders below a root
_REMARK = " (cannot be loaded)"
_MOST_STRENGTH = 100.0

# What peft does to the model itself when such an adapter is put on, and cannot undo.
_CHANGES_THE_MODEL = ("pissa", "olora", "corda", "loftq", "lora_ga")
_REFUSED = {
    "layer_replication": "it repeats layers of the model (layer_replication)",
    "alora_invocation_tokens": "it is an activated LoRA (alora_invocation_tokens)",
    "megatron_config": "it is written for Megatron (megatron_config)",
    "trainable_token_indices": "it retrains single tokens (trainable_token_indices)",
}


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter on disk. ``name``: its path below the root, with ``/``; ``problem``: why it cannot
    be loaded, empty where it can."""

    name: str
    path: Path
    problem: str = ""


@dataclass(frozen=True)
class AdapterFiles:
    """What an adapter's files say. ``config``: its ``adapter_config.json``; ``base``: the model
    that it was trained on, as far as it names one; ``tensors``: as ``read_header`` gives them;
    ``nbytes``: of them all."""

    path: Path
    config: Mapping[str, Any]
    base: str
    tensors: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        spans = (entry["data_offsets"] for entry in self.tensors.values())
        return sum(end - begin for begin, end in spans)

    def other_base(self, model_name: str) -> str:
        """What to tell of an adapter that goes on a model of another name than its base; empty
        where there is nothing to tell. Not an error: a fine-tune of its base, or a copy under
        another name, may well be meant."""
        trained_on, own = self.base.rpartition("/")[2].casefold(), model_name.casefold()
        if not trained_on or own.startswith(trained_on) or trained_on.startswith(own):
            return ""
        return f"{self.path.name} was trained on {self.base}, and is put on {model_name}."

    def replaces(self, name: str) -> bool:
        """Whether the tensor ``name``, no half of a low-rank pair, is one that the adapter was
        trained to put in the place of the model's own (``modules_to_save``)."""
        modules = self.config.get("modules_to_save") or ()
        return any(f"{module}." in name for module in modules)  # peft compares ends of names


@dataclass(frozen=True)
class AdapterLibrary:
    """The adapters below ``roots``, read anew at each call."""

    roots: tuple[Path, ...]

    def scan(self) -> list[AdapterFolder]:
        """Sorted by name; of two with one name, the first root's. Raises nothing, whatever the
        folders hold."""
        found: dict[str, AdapterFolder] = {}
        for root in self.roots:
            for folder in _adapter_folders(root, _DEPTH):
                name = printable(folder.relative_to(root).as_posix())
                found.setdefault(name, AdapterFolder(name, folder, _problem(folder)))
        return sorted(found.values(), key=lambda item: item.name.casefold())

    def choices(self) -> list[str]:
        """The adapters in the order of a menu, those that cannot be loaded last."""
        found = self.scan()
        return [
            *(item.name for item in found if not item.problem),
            *(f"{item.name}{_REMARK}" for item in found if item.problem),
        ]

    def locate(self, choice: str) -> Path:
        """The folder of an adapter: by an entry of ``choices``, by its name, or by the last part of
        that where only one has it, so that saved names still hold when folders were moved. Raises
        ``CheckpointNotFound``."""
        name = choice.removesuffix(_REMARK).strip().replace("\\", "/")
        found = self.scan()
        for item in found:
            if item.name == name:
                return item.path
        same = [item for item in found if _own_part(item.name) == _own_part(name)]
        if len(same) == 1:
            log.info("The adapter %r is taken from %s.", name, same[0].path)
            return same[0].path
        roots = ", ".join(map(str, self.roots)) or "no folder"
        here = f" Those here: {', '.join(item.name for item in found[:20])}." if found else ""
        if same:
            raise CheckpointNotFound(
                f"There is no adapter {name!r} in {roots}, and {len(same)} that it could be: "
                f"{', '.join(item.name for item in same[:20])}. Choose one of them."
            )
        raise CheckpointNotFound(
            f"There is no adapter {name!r} in {roots}. An adapter is a folder there with "
            f"{CONFIG} and {WEIGHTS}.{here}"
        )


def read_adapter(path: Path) -> AdapterFiles:
    """The adapter in the folder ``path``, whose weights are not read.

    Raises ``CheckpointNotFound`` where there is none, ``IncompleteCheckpoint`` for missing or
    damaged files, and ``UnsupportedModel`` for what cannot be put on a model and taken off again.
    """
    if not (path / CONFIG).is_file():
        raise CheckpointNotFound(
            f"{path} is no adapter: it holds no {CONFIG}. Name the folder that holds {CONFIG} and "
            f"{WEIGHTS}."
        )
    config = read_settings(path, CONFIG)
    if not (path / WEIGHTS).exists() and any(path.glob("adapter_model.*")):
        raise UnsupportedModel(
            f"{path.name}: its weights are pickle files (.bin), which can run code when they are "
            f"opened: only safetensors are loaded. Save it again with peft as {WEIGHTS}."
        )
    tensors, _ = _header(path)
    if problem := _config_problem(config):
        raise UnsupportedModel(f"{path.name}: {problem}")
    if not tensors:
        raise UnsupportedModel(f"{path.name} changes nothing: {WEIGHTS} holds no tensors.")
    return AdapterFiles(path, config, base_of(config), tensors)


def base_of(config: Mapping[str, Any]) -> str:
    """The model that an adapter was trained on, as its config names it; empty where it does not.
    Of a folder on the machine where it was trained, the folder's name."""
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        return ""
    parts = PurePath(base.replace("\\", "/"))
    is_folder = parts.is_absolute() or base.startswith(".") or re.match(r"[A-Za-z]:", base)
    return printable(parts.name if is_folder else base, 200)


def check_adapters(adapters: Iterable[Adapter]) -> None:
    """Raises ``BadOption`` for a strength that is none, and for an adapter that is there twice."""
    paths: set[str] = set()
    for adapter in adapters:
        name, strength = Path(adapter.path).name, adapter.strength
        if not math.isfinite(strength) or abs(strength) > _MOST_STRENGTH:
            raise BadOption(
                f"The strength of the adapter {name} is {strength}; it may be "
                f"{-_MOST_STRENGTH:g} to {_MOST_STRENGTH:g}."
            )
        real = os.path.realpath(adapter.path)
        if real in paths:
            raise BadOption(
                f"The adapter {name} is put on twice. Put it on once, with both strengths added."
            )
        paths.add(real)


def fingerprint(path: Path) -> object:
    """Equal as long as the files of the adapter in ``path`` are unchanged."""
    try:
        return tuple(entry for entry in list_files(path) if entry[0] in (CONFIG, WEIGHTS))
    except OSError:
        return None


def _header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return read_header(path / WEIGHTS)
    except IncompleteCheckpoint as error:
        raise IncompleteCheckpoint(
            f"{WEIGHTS} of {path.name} {error}. Copy or download the adapter again.", (WEIGHTS,)
        ) from error


def _config_problem(config: Mapping[str, Any]) -> str:
    kind = config.get("peft_type")
    if kind != "LORA":
        return f"it is an adapter of the type {kind}, and only LoRA is put on models here."
    for name, what in _REFUSED.items():
        if config.get(name):
            return f"{what}, which is not supported here. Merge it into its model with peft."
    if not isinstance(config.get("modules_to_save") or [], list):
        return f"its modules_to_save is {config['modules_to_save']!r:.100} in place of a list."
    if config.get("bias", "none") != "none":
        return (
            f"it was trained with bias={config['bias']!r}: it replaces numbers of the model "
            "itself, which could not be taken off again. Merge it into its model with peft."
        )
    method = config.get("init_lora_weights")
    if isinstance(method, str) and method.lower().startswith(_CHANGES_THE_MODEL):
        return (
            f"it was trained from {method} and changes the model that it is put on. Convert it to "
            "a plain LoRA with peft (path_initial_model_for_weight_conversion)."
        )
    return ""


def _problem(path: Path) -> str:
    try:
        read_adapter(path)
    except CheckpointError as error:
        return printable(str(error))
    except OSError as error:
        return printable(f"{path.name} cannot be read ({reason(error)}).")
    return ""


def _adapter_folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders at most ``depth`` levels below ``root`` that hold an adapter's config, but none
    inside another such folder: a training run's checkpoints lie beside its outcome."""
    try:
        with os.scandir(root) as entries:
            folders = sorted(
                Path(entry.path)
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir()
            )
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a ValueError: not a possible path at all
        log.warning("Adapters in %s are not listed: %s", root, error)
        return
    for folder in folders:
        if os.path.isfile(folder / CONFIG):
            yield folder
        elif depth > 1:
            yield from _adapter_folders(folder, depth - 1)


def _own_part(name: str) -> str:
    """The end of an adapter's name that tells it from others: a trainer's checkpoints are called
    alike in every run."""
    *above, last = name.casefold().split("/")
    return "/".join([*above[-1:], last]) if re.fullmatch(r"checkpoint-\d+", last) else last
